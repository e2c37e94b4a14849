"""The spool in Python: ``Spool().submit(["nbody", "sims/nbody/plummer.toml"], ranks=4).result()``."""

import contextlib
import json
import time
import uuid
from pathlib import Path

from brmpi import speeds
from brmpi.cluster import launch
from brmpi.errors import BadInput
from brmpi.spool import routing, spec
from brmpi.spool.store import OVER, PREFIX, Away, Store

LISTEN = 5.0  # seconds between looks where no event comes
TRIES = 3  # of a submission whose answer was lost: it has a key, and is taken in once


class Job:
    """A job of the spool, or one of its arrays.

    Parameters
    ----------
    spool : Spool
    id : str
    """

    def __init__(self, spool, id):
        self.spool, self.id = spool, id

    def __repr__(self):
        return f"<Job {self.id}>"

    def records(self):
        """What the spool knows of it: one record, or one of each job of an array.

        Returns
        -------
        list of dict of str

        Raises
        ------
        Refused : there is no such job
        """
        store = self.spool.store
        return store.records(store.expanded([self.id]))

    @property
    def state(self):
        """Its state; of an array "done" where all are, else the state of the first that is not."""
        states = [record["state"] for record in self.records()]
        return next((state for state in states if state != "done"), "done")

    def done(self):
        """Whether it is over, well or not."""
        return all(record["state"] in OVER for record in self.records())

    def wait(self, timeout=None):
        """Until it is over.

        Parameters
        ----------
        timeout : float [s], no limit if None

        Returns
        -------
        bool, whether it is over

        Raises
        ------
        Away : Redis does not answer
        """
        return not wait(self.spool.store, self.spool.store.expanded([self.id]), timeout)

    def result(self, timeout=None):
        """Its exit code, once it is over; of an array the first that is not 0.

        Parameters
        ----------
        timeout : float [s], no limit if None

        Returns
        -------
        int: 0 done; its own where it failed, 1 where that is not known, 130 where it was cancelled

        Raises
        ------
        TimeoutError : it is not over in time
        """
        if not self.wait(timeout):
            raise TimeoutError(f"job {self.id} is {self.state} after {timeout:g} s")
        return next((code for record in self.records() if (code := exit_code(record))), 0)

    def cancel(self):
        """Ask it to end: at once where it waits, after saving where it runs.

        Returns
        -------
        list of str, the states after that
        """
        store = self.spool.store
        said = [store.call("cancel", id) for id in store.expanded([self.id])]
        store.remember()
        return said

    def log(self):
        """What it has printed, of all attempts.

        Returns
        -------
        str
        """
        store = self.spool.store
        rows = [row for id in store.expanded([self.id]) for row in store.ask("xrange", f"{PREFIX}log:{id}")]
        return "".join(told["text"] for _, told in rows)

    def folders(self):
        """Folders of its runs; none where its program writes none.

        Returns
        -------
        list of Path
        """
        found = []
        for record in self.records():
            told = json.loads(record["spec"])
            if out := spec.folder_of(told, record["id"]):
                found.append(Path(told["folder"], out))
        return found


class Spool:
    """The queued runs of a cluster.

    Parameters
    ----------
    store : Store; that of this user's settings if None
    folder : path of the hostfiles, whose ``cluster.toml`` says which kinds of work go where
    """

    def __init__(self, store=None, folder=None):
        self.store, self.folder = store or Store(), speeds.folder() if folder is None else folder

    def planned(self, argv, *, ranks=None, threads=1, memory=0, on=(), tags=(), limit=0.0, kind=None, program=None):
        """What a job would need, and why.

        Parameters
        ----------
        argv : list of str, a program of brmpi, a module, a Python file, or ``--`` and any program; its arguments
        ranks, threads : int, as of ``brmpi run``
        memory : int, of each rank [bytes]
        on : sequence of str, nodes, roles, architectures or tags, one of which each of its nodes has
        tags : sequence of str, that each of its nodes has
        limit : float [s], 0 for none
        kind : str, of work; the program's if not given
        program : (command, module) from ``launch.resolve``, if known

        Returns
        -------
        need : str
        why : list of str
        module : str or None

        Raises
        ------
        BadInput : no such program or kind, or a number that cannot be
        """
        _, module = program or launch.resolve(list(argv))
        kinds, programs = routing.kinds(self.folder)
        name = kind or routing.kind_of(argv[0], module, programs)
        if name not in kinds:
            raise BadInput(f"--kind {name}: must be one of {', '.join(kinds)}")
        request = routing.Request(
            ranks, threads, memory, tuple(tags), tuple(word for word in on if word != "all"), limit
        )
        if "all" in on:
            kinds[name].nodes = []
        need, why = routing.decide(request, kinds[name], self.store.nodes())
        return need, why, module

    def submit(
        self, argv, *, name=None, folder=None, priority=0, retries=0, losses=5, after=(), count=0, key=None, **needs
    ):
        """Take a job in: when this returns it is on Redis's disk.

        Parameters
        ----------
        argv : as of ``planned``
        name : str, for people
        folder : path, where it runs; the current one if None
        priority : int, -999 to 999
        retries : int, new starts after failures
        losses : int, new starts after lost nodes and exit code 75
        after : sequence of str or Job, what is to be done before
        count : int, jobs of an array; in each ``{index}`` stands for its number
        key : str, by which a second submission is known to be the same
        **needs : as of ``planned``

        Returns
        -------
        Job

        Raises
        ------
        BadInput : a job that cannot be, or a spool that is paused
        Away : Redis does not answer
        """
        need, _, module = self.planned(argv, **needs)
        self.store.durable()
        ids = [one.id if isinstance(one, Job) else str(one) for one in after]
        record = spec.record(list(argv), need, name=name, folder=folder, priority=priority, retries=retries, cap=losses,
                             after=ids, count=count, key=key or uuid.uuid4().hex, out=run_name(module, argv))
        for _ in range(TRIES - 1):
            with contextlib.suppress(Away):
                return Job(self, self.store.submit([record])[0])
            time.sleep(0.2)
        return Job(self, self.store.submit([record])[0])

    def job(self, id):
        """A job by its number.

        Parameters
        ----------
        id : str

        Returns
        -------
        Job

        Raises
        ------
        Refused : there is none
        """
        self.store.expanded([str(id)])
        return Job(self, str(id))


def wait(store, ids, timeout=None):
    """Until jobs are over.

    Parameters
    ----------
    store : Store
    ids : list of str
    timeout : float [s], no limit if None

    Returns
    -------
    list of str, those that are not over

    Raises
    ------
    Away : Redis does not answer
    """
    end = None if timeout is None else time.monotonic() + timeout
    last = store.ask("xrevrange", f"{PREFIX}events", count=1)
    last, asked = last[0][0] if last else "0", list(ids)
    left = set(ids)
    while True:
        over = {row["id"] for row in store.records(asked) if row.get("state") in OVER}
        left -= over
        seconds = LISTEN if end is None else min(LISTEN, end - time.monotonic())
        if not left or seconds <= 0:
            return [id for id in ids if id in left]
        said = store.ask("xread", {f"{PREFIX}events": last}, block=max(1, int(seconds * 1000)))
        events = said[0][1] if said else []
        last = events[-1][0] if events else last
        asked = sorted(left & {told.get("job") for _, told in events}) if events else sorted(left)


def exit_code(record):
    """The exit code that stands for how a job ended.

    Parameters
    ----------
    record : dict

    Returns
    -------
    int
    """
    if record["state"] == "done":
        return 0
    if record["state"] == "cancelled":
        return 130
    code = record.get("code") or ""
    return int(code) if code.isdecimal() and int(code) else 1


def run_name(module, argv):
    """The name of a run's folder, without the job's number, of a program that writes one.

    Parameters
    ----------
    module : str or None
    argv : sequence of str

    Returns
    -------
    str, or None for other programs
    """
    if not (module or "").startswith("brmpi."):
        return None
    import importlib.util

    file = importlib.util.find_spec(module).origin
    if "program.main(" not in Path(file).read_text(encoding="utf-8"):
        return None
    cases = [Path(word).stem for word in argv[1:] if word.endswith(".toml")]
    return f"{module.rpartition('.')[2]}-{cases[0] if cases else 'default'}"

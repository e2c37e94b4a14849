"""The one door a program enters by: ``run(main)``, output from the root alone, section timers.

Nothing here starts MPI at import: ``run`` does.
"""

import faulthandler
import os
import sys
import time
import traceback

import numpy as np

from brmpi.errors import BadInput, Fault

EACH = 64  # ranks up to which each sends to each
SPIN = 2e-4  # seconds that a rank looks without a pause
NAP = 5e-5  # seconds between looks after that
PATIENCE = 1.0  # seconds that a failing rank waits to learn whether all ranks failed alike


def run(main):
    """Call ``main(comm)`` on every rank and leave with its exit code; how every program starts. Collective.

    ``BadInput`` ends the job with one sentence and exit code 2, ``Fault`` with one sentence and 1, each printed
    once. Any other exception on any rank prints that rank's traceback and ends the whole job with exit code 1.

    Parameters
    ----------
    main : callable taking a communicator, returning an exit code or None for 0
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        sys.exit(f"{_program()}: MPI does not start here: {error} (make install installs it)")
    faulthandler.enable()
    meeting = MPI.COMM_WORLD.Dup()  # failing ranks meet here: the program's own messages cannot interfere
    try:
        code = main(MPI.COMM_WORLD) or 0
    except BaseException as error:
        code = _failed(meeting, error)
    say()
    sys.exit(code)


def say(text=""):
    """Print for people, and flush; a terminal or pipe that has gone away ends no run.

    Parameters
    ----------
    text : str; nothing where it is empty
    """
    try:
        print(text, end="\n" if text else "", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where what is left goes


def on_root(comm, action, *arguments):
    """Let the root do something and tell every rank the result. Collective.

    Parameters
    ----------
    comm : communicator
    action : callable, called on rank 0 only; its result must pickle
    *arguments : what it is called with

    Returns
    -------
    what ``action`` returned, on every rank

    Raises
    ------
    BadInput, Fault : on every rank, where the root raised it
    """
    outcome = None
    if comm.rank == 0:
        try:
            outcome = action(*arguments), None
        except (BadInput, Fault) as error:
            outcome = None, error
    result, error = comm.bcast(outcome)
    if error is not None:
        raise error
    return result


def wait(ready):
    """Look until something is so, such as ``request.Test``: without a pause at first, then leaving the core to others.

    MPI's own waiting never pauses, and takes the time that a slow or crowded machine needs to send.

    Parameters
    ----------
    ready : callable returning a bool
    """
    end = time.perf_counter() + SPIN
    while not ready():
        if time.perf_counter() < end:
            os.sched_yield()
        else:
            time.sleep(NAP)


class Gathering:
    """A few numbers of each rank to all, without waiting: each sends to each, so that nobody has to pass anything on.

    Collective to make, in the same order on all ranks of a communicator that is used for nothing else.

    Parameters
    ----------
    comm : communicator
    values : (k,) float64

    Attributes
    ----------
    every : (ranks, k) float64, complete once ``Test`` said so
    """

    def __init__(self, comm, values):
        self.sent = np.array(values, np.float64)
        self.every = np.empty((comm.size, self.sent.size))
        self.every[comm.rank] = self.sent
        if comm.size > EACH:
            self.requests = [comm.Iallgather(self.sent, self.every)]
            return
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        self.requests = [comm.Irecv(self.every[rank], rank) for rank in others]
        self.requests += [comm.Isend(self.sent, rank) for rank in others]

    def Test(self):
        """Whether all have come."""
        self.requests = [request for request in self.requests if not request.Test()]
        return not self.requests


def node_by_node(comm, action):
    """Do something once on each node before its other ranks do it too, as for a cache on disk. Collective.

    Parameters
    ----------
    comm : communicator
    action : callable without arguments
    """
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    if node.rank == 0:
        action()
    node.Barrier()
    if node.rank > 0:
        action()
    node.Free()


class Timers:
    """Seconds spent in named sections: ``with timers("force"): …``.

    Time in a section within a section counts for the inner one alone, so that sections add up to the whole.
    """

    def __init__(self):
        self.seconds = {}
        self._open = []

    def __call__(self, section):
        """Open a section until the ``with`` block ends.

        Parameters
        ----------
        section : str

        Returns
        -------
        context manager
        """
        return _Section(self, section)

    def reduce(self, comm):
        """Least, mean and largest seconds of each section over the ranks. Collective.

        Parameters
        ----------
        comm : communicator

        Returns
        -------
        dict of section: {"min", "mean", "max"} in seconds, longest mean first; a rank that never
        entered a section counts as 0
        """
        ranks = comm.allgather(self.seconds)
        table = {}
        for section in dict.fromkeys(name for rank in ranks for name in rank):
            spent = [rank.get(section, 0.0) for rank in ranks]
            table[section] = {"min": min(spent), "mean": sum(spent) / len(spent), "max": max(spent)}
        return dict(sorted(table.items(), key=lambda item: -item[1]["mean"]))


class _Section:
    def __init__(self, timers, name):
        self.timers, self.name = timers, name

    def __enter__(self):
        self.inner = 0.0
        self.timers._open.append(self)
        self.start = time.perf_counter()

    def __exit__(self, *_):
        spent = time.perf_counter() - self.start
        timers = self.timers
        timers._open.pop()
        timers.seconds[self.name] = timers.seconds.get(self.name, 0.0) + spent - self.inner
        if timers._open:
            timers._open[-1].inner += spent


def _program():
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else (sys.argv[0] or "brmpi").rpartition("/")[2]


def _verdict(error):
    """(exit code, text to print, whether MPI can be left in order) for an exception that reached ``run``."""
    if isinstance(error, BadInput):
        return 2, f"{_program()}: {error} (see --help)", True
    if isinstance(error, Fault):
        return 1, f"{_program()}: {error}", True
    if isinstance(error, KeyboardInterrupt):
        return 130, f"{_program()}: interrupted", False
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0, "", True
        return 1, str(error.code), True
    return 1, "".join(traceback.format_exception(error)).rstrip(), False


def _failed(meeting, error):
    """Report a failure once and end the job; returns the exit code where all ranks failed alike."""
    code, text, orderly = _verdict(error)
    say()
    if meeting.size == 1:
        _print(text)
        return code
    # Ranks wait a little longer the higher they are: the lowest that failed speaks, and ends the others.
    if not _all_arrive(meeting, PATIENCE + 0.02 * min(meeting.rank, 50)):
        _print(text if orderly else f"rank {meeting.rank} of {meeting.size} on {_host()}:\n{text}")
        meeting.Abort(code or 1)
    verdicts = meeting.allgather((code, text, orderly))
    if meeting.rank == 0:
        for rank, verdict in enumerate(verdicts):
            if verdict not in verdicts[:rank]:
                _print(verdict[1])
    code = max(code for code, *_ in verdicts)
    meeting.Barrier()  # all has been said
    if code and not all(orderly for *_, orderly in verdicts):
        meeting.Abort(code)  # messages may still be under way: MPI_Finalize could wait for them for ever
    return code


def _all_arrive(meeting, seconds):
    request = meeting.Ibarrier()
    end = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def _host():
    from mpi4py import MPI

    return MPI.Get_processor_name()


def _print(text):
    if text:
        print(text, file=sys.stderr, flush=True)

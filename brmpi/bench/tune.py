"""``brmpi tune``: time every version of every kernel, with its parameters, once for each type of processor."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.bench import report, trials
from brmpi.bench.workloads import WORKLOADS
from brmpi.cluster import atomic, inventory, probe, probing, table
from brmpi.cluster.children import Children
from brmpi.errors import BadInput, Fault
from brmpi.kernels import choice
from brmpi.progress import progress
from brmpi.results import provenance

SECONDS = 240.0
REPEATS = 7  # of the versions beside each other
BRIEF = 3  # of a try of parameters
GRACE = 90.0  # s, that a node may take longer than it was given


class Search:
    """The fastest parameters of each version of some kernels on this machine.

    Parameters
    ----------
    works : sequence of Workload
    counts : sequence of int, numbers of threads
    seconds : float, for all of it [s]
    """

    def __init__(self, works, counts, seconds):
        self.rows, self.lacking, self.skipped = [], {}, 0
        self.given_up = set()  # (kernel, size or None for all, backend)
        self.tasks = [(threads, work, work.sizes[place]) for threads in counts for place in (1, 2, 0) for work in works]
        self.end = time.monotonic() + seconds
        self.timers = {}

    def run(self, quiet=False):
        """Work off the tasks.

        Parameters
        ----------
        quiet : bool, whether to show no progress
        """
        try:
            with progress(True, "tune", 0, len(self.tasks), quiet) as bar:
                for done, (threads, work, size) in enumerate(self.tasks):
                    bar.show(done, work.kernel)
                    left = self.end - time.monotonic()
                    if left > 0:
                        self._task(threads, work, size, left / (len(self.tasks) - done))
                    else:
                        self.skipped += 1
        finally:
            for timer in self.timers.values():
                timer.close()

    def _task(self, threads, work, size, seconds):
        """Find the parameters of each version, then time the versions in turns."""
        begin = time.monotonic()
        found = {}
        backends = [name for name in ("numba", "opencl", "numpy") if self._pays(name, threads, work, size, seconds)]
        for place, backend in enumerate(backends):
            share = 0.6 * seconds * (place + 1) / len(backends) - (time.monotonic() - begin)
            with contextlib.suppress(trials.Ended):
                found[backend] = self._best(backend, threads, work.kernel, size, share)
        found = {backend: best for backend, best in found.items() if best is not None}
        rates = {backend: [] for backend in found}
        for turn in range(REPEATS):
            if turn >= BRIEF and time.monotonic() - begin > seconds:
                break
            for backend, (parameters, _) in found.items():
                with contextlib.suppress(trials.Ended):
                    answer = self._ask(backend, threads, work.kernel, size, parameters, 1, 0)
                    rates[backend] += answer.get("rates", [])
        for backend, (parameters, told) in found.items():
            if len(rates[backend]) < BRIEF:
                continue
            middle = sorted(rates[backend])[len(rates[backend]) // 2]
            self.rows.append({"kernel": work.kernel, "size": size, "threads": threads, "backend": backend,
                              "parameters": parameters, "rate": middle, "spread": trials.spread(rates[backend]),
                              "unit": work.unit, "repeats": len(rates[backend]), **told})

    def _pays(self, backend, threads, work, size, seconds):
        """Whether a version is not too slow to be timed at this size, by what it did at another."""
        if backend == "numba":
            return True
        known = [row for row in self.rows if row["kernel"] == work.kernel and row["backend"] == backend]
        return all(4 * BRIEF * size / row["rate"] < seconds for row in known)

    def _best(self, backend, threads, kernel, size, seconds):
        """The fastest parameters and what else the answer told; None where there is no answer."""
        end = time.monotonic() + seconds
        known = choice.parameters(kernel, backend)
        best = {name: values[0] for name, values in known.items()}
        answer = self._ask(backend, threads, kernel, size, best, BRIEF, max(seconds / 4, 0))
        if "rates" not in answer:
            return None
        most = max(answer["rates"])
        for name, values in known.items():
            for value in values[1:]:
                if time.monotonic() > end:
                    break
                tried = best | {name: value}
                again = self._ask(backend, threads, kernel, size, tried, BRIEF, max(end - time.monotonic(), 0) / 2)
                if max(again.get("rates", [0])) > 1.02 * most:  # the default stays where nothing is won
                    best, most = tried, max(again["rates"])
        return best, {key: answer[key] for key in ("device", "processor") if key in answer}

    def _ask(self, backend, threads, *question):
        if (backend, threads) not in self.timers:
            self.timers[backend, threads] = trials.Timer(backend, threads)
        kernel, size = question[:2]
        if not self.given_up.isdisjoint({(kernel, size, backend), (kernel, None, backend)}):
            return {}
        try:
            answer = self.timers[backend, threads].ask(*question)
        except trials.Ended as reason:
            self.timers.pop((backend, threads)).close()
            self.given_up.add((kernel, None, backend))
            self.lacking.setdefault(kernel, {})[backend] = str(reason)
            raise
        if "lacking" in answer:  # for lack of memory, perhaps, which smaller sizes do not need
            self.given_up.add((kernel, size, backend))
            self.lacking.setdefault(kernel, {})[backend] = answer["lacking"]
        return answer


def here(words, seconds, quiet=False):
    """Tune this machine.

    Parameters
    ----------
    words : sequence of str, beginnings of kernels' names; empty for all
    seconds : float, limit of time [s]
    quiet : bool, whether to show no progress

    Returns
    -------
    dict, a tuning as ``kernels.choice`` describes it, with where, when and by what it was made, ``lacking`` (dict of
    kernel to dict of backend to reason) and ``skipped``, how many sizes there was no time for
    """
    cores = (probe.guarded(probe.cores)[0] or {}).get("usable") or 1
    begin = time.monotonic()
    search = Search(chosen(words), sorted({1, cores}), seconds)
    search.run(quiet)
    return {"schema": choice.SCHEMA, "cpu": probe.guarded(probe.cpu)[0] or "unknown", "host": socket.gethostname(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.monotonic() - begin, 1),
            "versions": provenance.versions(), "rows": search.rows, "lacking": search.lacking,
            "skipped": search.skipped}


def chosen(words):
    """Kernels by the beginnings of their names.

    Parameters
    ----------
    words : sequence of str

    Returns
    -------
    list of Workload

    Raises
    ------
    BadInput : no kernel begins so
    """
    for word in words:
        if not any(work.kernel.startswith(word) for work in WORKLOADS):
            there = ", ".join(dict.fromkeys(work.kernel.split()[0] for work in WORKLOADS))
            raise BadInput(f"--kernels {word!r}: no kernel begins so; there are {there}")
    return [work for work in WORKLOADS if not words or any(work.kernel.startswith(word) for word in words)]


def of_each_type(known, names, folder):
    """Nodes to tune: those of each type of processor, of which one is enough.

    Parameters
    ----------
    known : inventory.Inventory
    names : sequence of str, nodes to choose from; empty for all
    folder : path of the hostfiles

    Returns
    -------
    list of list of inventory.Node, this machine first

    Raises
    ------
    BadInput : a node that is named, or every node, has no probe, so that its processor is not known
    """
    nodes = [known.node(name) for name in dict.fromkeys(names)] or list(known.nodes)
    if len(nodes) == 1:
        return [nodes]
    probes, types = speeds.read(folder), {}
    unknown = [node.name for node in nodes if node.name not in probes]
    if unknown and (names or len(unknown) == len(nodes)):
        raise BadInput(f"{Path(folder, 'probes')}: holds no probe of {', '.join(unknown)}, so that the processor is "
                       "not known: run brmpi probe")
    if unknown:
        print(f"Left out, as there is no probe of them: {', '.join(unknown)} (brmpi probe)", file=sys.stderr)
    for node in sorted(nodes, key=lambda node: not inventory.is_local(node)):
        if node.name in probes:
            types.setdefault(probes[node.name].get("cpu"), []).append(node)
    return list(types.values())


def _remote(node, children, words, seconds):
    """The tuning of a node, over ssh."""
    arguments = ["-m", "brmpi.bench.tune", "--here", "--seconds", f"{seconds:g}", "--kernels", *words]
    script = probing.interpreter(node, shlex.join(arguments))
    command = [*probing.SSH, probing.login(node), f"sh -c {shlex.quote(script)}"]
    try:
        code, out, err = children.run(command, b"", seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise Fault(f"{node.name}: no answer within {seconds + GRACE:.0f} s") from None
    except OSError as error:
        raise Fault(f"{node.name}: {error.filename or 'a process'} cannot be started here: {error.strerror}") from None
    for line in out.splitlines():
        if line.startswith('{"schema"'):
            return json.loads(line)
    reason = probing.complaint(code, err)
    advice = f"brmpi sync {node.name}" if "brmpi" in reason else probing.advice(node, reason)
    raise Fault(f"{node.name}: not tuned: {reason} ({advice})")


def _first_of(nodes, children, words, seconds):
    """The tuning of the first node of a type that can be reached, and the node; None if none can."""
    for node in nodes:
        try:
            return node, _remote(node, children, words, seconds)
        except Fault as fault:
            print(fault, file=sys.stderr)
    return None


def _beat():
    """Write a line a second: once nobody reads them, as when ssh is gone, end this process."""
    while True:
        time.sleep(1)
        try:
            os.write(1, b"\n")
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def merged(old, new):
    """A tuning with the rows of an older one that were not timed again.

    Parameters
    ----------
    old : dict or None
    new : dict

    Returns
    -------
    dict
    """
    if old is None or old["cpu"] != new["cpu"]:
        return new

    def _place(row):
        return row["kernel"], row["threads"], row["size"]

    timed, kernels = {_place(row) for row in new["rows"]}, {row["kernel"] for row in new["rows"]}
    kept = [row for row in old["rows"] if _place(row) not in timed]
    lacking = {kernel: why for kernel, why in old.get("lacking", {}).items() if kernel not in kernels}
    return new | {"rows": kept + new["rows"], "lacking": lacking | new["lacking"]}


def write(folder, tuning):
    """Write a tuning into its file.

    Parameters
    ----------
    folder : path of the hostfiles
    tuning : dict

    Returns
    -------
    Path of the file

    Raises
    ------
    Fault : it cannot be written
    """
    file = Path(folder, "tuning", f"{choice.slug(tuning['cpu'])}.json")
    old = None
    if file.exists():
        with contextlib.suppress(BadInput):  # what cannot be read is replaced
            old = choice.record(file)
    atomic.write(file, json.dumps(merged(old, tuning), indent=1) + "\n")
    return file


def show(tuning):
    """Print what was found: a line for each kernel and number of threads.

    Parameters
    ----------
    tuning : dict
    """
    rows = []
    for kernel, threads in dict.fromkeys((row["kernel"], row["threads"]) for row in tuning["rows"]):
        mine = [row for row in tuning["rows"] if (row["kernel"], row["threads"]) == (kernel, threads)]
        largest = max(row["size"] for row in mine)
        rates = {row["backend"]: row for row in mine if row["size"] == largest}
        takes, best = [], {}
        for size in sorted({row["size"] for row in mine}):
            beside = {row["backend"]: row for row in mine if row["size"] == size}
            takes.append(choice.winner(beside, choice.without_measurement(kernel)))
            best = beside.get(takes[-1], {}).get("parameters", {})
        cells = [f"{rates[name]['rate']:.3g}" if name in rates else "-" for name in ("numpy", "numba", "opencl")]
        most = max((row["spread"] for row in rates.values()), default=0)
        takes = takes[:1] if len(set(takes)) == 1 else takes
        rows.append([kernel, str(threads), report.power(largest), *cells, rates[next(iter(rates))]["unit"],
                     f"{100 * most:.0f} %", ", ".join(takes), ", ".join(f"{k} {v}" for k, v in best.items())])
    headings = dict.fromkeys(("kernel", "threads", "size", "numpy", "numba", "opencl", "unit", "spread", "takes",
                              "parameters"), "left")
    table.show(headings | dict.fromkeys(("threads", "size", "numpy", "numba", "opencl", "spread"), "right"), rows)
    for why, kernels in _reasons(tuning["lacking"]).items():
        print(f"{why}: {kernels}")
    if tuning["skipped"]:
        print(f"No time was left for {tuning['skipped']} sizes: give more with --seconds, or fewer --kernels.")


def _reasons(lacking):
    """Reason: the kernels that it holds for."""
    found = {}
    for kernel, reasons in lacking.items():
        for backend, why in reasons.items():
            found.setdefault(f"{backend} was not timed ({why})", []).append(kernel)
    return {why: ", ".join(kernels) if len(kernels) < 6 else f"{len(kernels)} kernels" for why, kernels in
            found.items()}


def main(argv):
    """``brmpi tune``: returns 0, or 1 if a type of processor could not be tuned.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory
    Fault : a tuning cannot be written
    """
    parser = Parser(prog="brmpi tune", description="Time the versions of the kernels (NumPy, Numba, OpenCL) and their "
                    "parameters, on one node of each type of processor, into DIR/tuning/<cpu>.json for --backend auto.")
    parser.add_argument("nodes", metavar="NODE", nargs="*", help="nodes to choose from (all)")
    parser.add_argument("--kernels", metavar="WORD", nargs="*", default=[],
                        help='only kernels whose names begin so, such as gravity or "stencil heat" (all)')
    parser.add_argument("--seconds", metavar="S", type=float, default=SECONDS,
                        help=f"limit of time of a node [s] ({SECONDS:g})")
    parser.add_argument("--here", action="store_true", help="tune this machine, and print JSON")
    inventory.options(parser)
    args = parser.parse_args(argv)
    if not 0 < args.seconds < threading.TIMEOUT_MAX / 2:
        raise BadInput(f"--seconds = {args.seconds:g}: must be > 0 s")
    chosen(args.kernels)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if args.here:
            threading.Thread(target=_beat, daemon=True).start()
            print(json.dumps(here(args.kernels, args.seconds, quiet=True)))
            return 0
        return _all(args, of_each_type(inventory.load(args.hostfiles, args.inventory), args.nodes, args.hostfiles))
    finally:
        signal.signal(signal.SIGTERM, before)


def _all(args, types):
    """Tune one node of each type at once, and write and show each as it comes; returns the exit code."""
    _writable(args.hostfiles)
    mine = next((nodes for nodes in types if inventory.is_local(nodes[0])), None)
    print(f"Tuning {', '.join(nodes[0].name for nodes in types)}: {args.seconds:g} s at most.", file=sys.stderr)
    children, failed = Children(), 0
    with ThreadPoolExecutor(len(types)) as pool:
        try:
            turns = [pool.submit(_first_of, nodes, children, args.kernels, args.seconds) for nodes in types
                     if nodes is not mine]
            if mine:
                _finish(args.hostfiles, mine[0], here(args.kernels, args.seconds))
            for turn in as_completed(turns):
                if turn.result() is None:
                    failed += 1
                else:
                    _finish(args.hostfiles, *turn.result())
        except BaseException:
            children.stop()
            raise
    return 1 if failed else 0


def _writable(folder):
    """Refuse a folder before a minute is spent on what could not be written there."""
    tuning = Path(folder, "tuning")
    with contextlib.suppress(OSError):
        tuning.mkdir(parents=True, exist_ok=True)
    if not os.access(tuning, os.W_OK):
        raise BadInput(f"{tuning}: cannot be written")


def _finish(folder, node, tuning):
    file = write(folder, tuning)
    print(f"\n{tuning['cpu']} ({node.name}), {tuning['seconds']:.0f} s, in {file}:\n")
    show(tuning)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

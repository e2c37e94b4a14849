"""Which version of a kernel runs here: the one measured to be the fastest, else Numba's; and a record of what ran.

A tuning is what ``brmpi tune`` found for one type of processor, ``<hostfiles>/tuning/<cpu>.json``: ``schema``, ``cpu``
and ``rows``, one for each kernel, size, number of threads and version:

    kernel      "<module> <variant>", as "gravity float64"
    size        how much work a call was: pairs, cells, samples, sites or products
    threads     that the process had
    backend     "numpy", "numba" or "opencl"; ``device`` names the latter's device, ``processor`` says if it is one
    parameters  the fastest ones found: a tile, a work group, the width of a vector
    rate        median over repeats [1/s], and ``spread``, the distance of its quartiles as a fraction of it

Versions of the kernels in ``EXACT`` agree bit for bit, so that each host takes what is the fastest there. Of the others
all who compute together take one version, which ``agreed`` finds: else a result would depend on who computed it.
"""

import functools
import importlib
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

from brmpi.errors import BadInput
from brmpi.kernels import BACKENDS, has_numba, opencl, threads

SCHEMA = 1
EXACT = ("philox", "ising", "clusters", "transport", "percolation", "fixedpoint", "descent")  # agree bit for bit


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value):
    return _number(value) and value > 0


# keys of a row, and what their values must be
ROW = {"kernel": lambda value: isinstance(value, str), "size": _positive, "threads": _positive,
       "backend": lambda value: value in BACKENDS[1:], "parameters": lambda value: isinstance(value, dict),
       "rate": _positive, "spread": lambda value: _number(value) and value >= 0}


class Choice(NamedTuple):
    """What was chosen for a kernel."""

    backend: str
    parameters: dict  # keyword arguments of the version
    why: str


class _Here:
    """What this process knows: its tuning, what was agreed on, what failed, what ran."""

    rows = {}  # kernel: list of rows
    agreed = None  # kernel: backend, for all who compute together
    work = {}  # kernel: size of the whole problem
    lost = {}  # kernel: why OpenCL is not taken any more
    ran = {}  # (kernel, backend): Choice
    told = None  # function of a sentence, for people


def use(tuning=None):
    """Take a tuning, and forget what was agreed on, what failed and what ran before.

    Parameters
    ----------
    tuning : dict as described above, or None
    """
    _Here.rows, _Here.agreed, _Here.work, _Here.lost, _Here.ran, _Here.told = {}, None, {}, {}, {}, None
    for row in (tuning or {}).get("rows", ()):
        _Here.rows.setdefault(row["kernel"], []).append(row)
    choose.cache_clear()


def agree(agreed, work, told=None):
    """Take what all who compute together agreed on.

    Parameters
    ----------
    agreed : dict of kernel to backend, from ``agreed``; kernels that it does not hold and that are not ``EXACT`` take
        Numba
    work : dict of kernel to the size of the whole problem, which the parameters are chosen by
    told : function of a sentence, called where OpenCL fails from now on
    """
    _Here.agreed, _Here.work, _Here.told = agreed, work, told
    choose.cache_clear()


def check(backend):
    """Refuse a backend that nobody knows.

    Parameters
    ----------
    backend : str

    Raises
    ------
    ValueError
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r}: known are {', '.join(BACKENDS)}")


@functools.lru_cache(1024)
def choose(kernel, size, backend="auto"):
    """The version to take, and its parameters.

    A version is taken instead of Numba's where it is faster by more than both spreads, at the size nearest to the one
    given of those that Numba was measured at; an accelerator not below half the smallest of them.

    Parameters
    ----------
    kernel : str, "<module> <variant>"
    size : int >= 0, how much work the call is
    backend : "auto", or one that is wanted, of which only the parameters are chosen

    Returns
    -------
    Choice
    """
    size = size if exact(kernel) else _Here.work.get(kernel, size)
    if backend != "auto":
        rows = _nearest(_Here.rows.get(kernel, ()), size, threads(), backend)
        return Choice(backend, _fitting(kernel, rows, backend), "asked for")
    usual = without_measurement(kernel)
    rows = _nearest(_Here.rows.get(kernel, ()), size, threads(), usual)
    if kernel in _Here.lost:
        backend, why = usual, f"OpenCL was chosen and failed: {_Here.lost[kernel]}"
    elif _Here.agreed is not None and not exact(kernel):
        backend, why = _Here.agreed.get(kernel, usual), "agreed on by all"
    else:
        backend, why = _fastest(rows, usual)
    if backend == "opencl" and (other := other_device(kernel, size)):
        lose(kernel, other)
        return choose(kernel, size)
    return Choice(backend, _fitting(kernel, rows, backend), why)


def without_measurement(kernel):
    """The version that is taken where nothing was measured.

    Parameters
    ----------
    kernel : str

    Returns
    -------
    "numba", which for products is BLAS; "numpy" where Numba is not installed
    """
    return "numba" if has_numba() or kernel.partition(" ")[0] == "product" else "numpy"


def run(kernel, size, backend, reference, loop, *arguments):
    """Run a version of a kernel. Under "auto", where OpenCL cannot do it, Numba does.

    Parameters
    ----------
    kernel : str, "<module> <variant>"
    size : int > 0, how much work the call is
    backend : one of ``kernels.BACKENDS``
    reference : function, NumPy's version
    loop : str, name of the other versions in ``<module>_numba`` and ``<module>_opencl``
    *arguments : of all versions; what was tuned is added by name

    Returns
    -------
    what the version returns

    Raises
    ------
    ValueError : unknown backend
    brmpi.kernels.opencl.Unavailable : OpenCL is asked for and cannot do it
    """
    check(backend)
    chosen = choose(kernel, size, backend)
    try:
        answer = _version(kernel, chosen.backend, reference, loop)(*arguments, **chosen.parameters)
    except opencl.Unavailable as reason:
        if backend != "auto":
            raise
        lose(kernel, str(reason))
        if _Here.told:
            _Here.told(f"{kernel}: OpenCL was chosen and failed: {reason}; Numba runs it from here on")
        return run(kernel, size, backend, reference, loop, *arguments)
    _Here.ran.setdefault((kernel, chosen.backend), chosen)
    return answer


def lose(kernel, why):
    """Take no OpenCL for a kernel from now on, unless it is asked for.

    Parameters
    ----------
    kernel : str
    why : str
    """
    _Here.lost[kernel] = why
    choose.cache_clear()


def lost():
    """Kernels for which OpenCL failed here.

    Returns
    -------
    dict of kernel to reason
    """
    return dict(_Here.lost)


def forget():
    """Forget what ran so far, as when it was but a trial."""
    _Here.ran = {}


def ran():
    """What ran in this process.

    Returns
    -------
    dict of kernel to list of dict: ``backend``, ``parameters``, ``why``
    """
    found = {}
    for (kernel, _), chosen in _Here.ran.items():
        found.setdefault(kernel, []).append(chosen._asdict())
    return found


def rates(work, sharing=1):
    """How fast each version of some kernels is here, as it was measured.

    Parameters
    ----------
    work : dict of kernel to size
    sharing : int, processes on this host, which share an accelerator

    Returns
    -------
    dict of kernel to dict of backend to (rate, spread)
    """
    found = {}
    for kernel, size in work.items():
        usual = without_measurement(kernel)
        rows = _nearest(_Here.rows.get(kernel, ()), size, threads(), usual)
        if winner(rows, usual) == "opencl" and (other := other_device(kernel, size)):
            lose(kernel, other)
        if kernel in _Here.lost:
            rows.pop("opencl", None)
        found[kernel] = {backend: (row["rate"] / (1 if row.get("processor", True) else sharing), row["spread"])
                         for backend, row in rows.items()}
    return found


def other_device(kernel, size):
    """Why OpenCL's device here is not the one that a kernel was timed on.

    Parameters
    ----------
    kernel : str
    size : int

    Returns
    -------
    str; empty where it is, or the tuning does not tell
    """
    try:
        here = opencl.device().name
    except opencl.Unavailable as reason:
        return str(reason)
    row = _nearest(_Here.rows.get(kernel, ()), size, threads(), "opencl").get("opencl", {})
    tuned = row.get("device", here)
    return "" if tuned == here else f"{tuned} was tuned, and here is {here}"


def agreed(everyone, usual="numba"):
    """The version of each kernel that all who compute together take: the one of the highest summed rate.

    Parameters
    ----------
    everyone : sequence, from ``rates`` of each process, of the same kernels
    usual : "numba", or "numpy" where somebody has no Numba

    Returns
    -------
    dict of kernel to backend. Only what all measured is taken, and only where it wins by more than the spreads
    """
    chosen = {}
    for kernel in everyone[0]:
        if exact(kernel):
            continue
        common = set.intersection(*(set(one[kernel]) for one in everyone))
        sums = {backend: {"rate": sum(one[kernel][backend][0] for one in everyone),
                          "spread": max(one[kernel][backend][1] for one in everyone)} for backend in sorted(common)}
        chosen[kernel] = winner(sums, usual)
    return chosen


def parameters(kernel, backend):
    """What can be tuned in a version of a kernel.

    Parameters
    ----------
    kernel, backend : str

    Returns
    -------
    dict of name to tuple of values, the default first
    """
    module, _, variant = kernel.partition(" ")
    if backend == "numpy":
        return {}
    table = getattr(_module(module, backend), "PARAMETERS", {})
    each = any(isinstance(values, dict) for values in table.values())  # variants differ
    return table.get(variant.split(" ")[0], {}) if each else table


def slug(cpu):
    """A processor's name as a file's: "AMD Ryzen 7" is "amd-ryzen-7".

    Parameters
    ----------
    cpu : str

    Returns
    -------
    str
    """
    return re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-") or "unknown"


def read(folder, cpus):
    """The tunings of some processors.

    Parameters
    ----------
    folder : path of the hostfiles
    cpus : sequence of str, their names

    Returns
    -------
    dict of cpu to tuning, for those that have one

    Raises
    ------
    BadInput : a file that is no tuning
    """
    found = {}
    for cpu in sorted(set(cpus)):
        file = Path(folder, "tuning", f"{slug(cpu)}.json")
        if file.exists():
            tuning = record(file)
            if tuning["cpu"] == cpu:
                found[cpu] = tuning
    return found


def record(file):
    """One tuning.

    Parameters
    ----------
    file : Path

    Returns
    -------
    dict

    Raises
    ------
    BadInput : it cannot be read, or is no tuning; the sentence names file and key
    """
    again = "run brmpi tune again, or remove it"
    try:
        tuning = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file}: is not JSON ({error}): {again}") from error
    if not isinstance(tuning, dict) or tuning.get("schema") != SCHEMA:
        version = tuning.get("schema") if isinstance(tuning, dict) else None
        raise BadInput(f"{file}: schema = {version!r}, but {SCHEMA} is known: {again}")
    for key, kind in (("cpu", str), ("rows", list)):
        if not isinstance(tuning.get(key), kind):
            raise BadInput(f"{file}: {key} = {tuning.get(key)!r}: must be a {kind.__name__}: {again}")
    for number, row in enumerate(tuning["rows"]):
        for key, fits in ROW.items():
            value = row.get(key) if isinstance(row, dict) else None
            if not fits(value):
                raise BadInput(f"{file}: rows[{number}].{key} = {value!r}: is not what a tuning holds: {again}")
    return tuning


def exact(kernel):
    """Whether a kernel's versions agree bit for bit.

    Parameters
    ----------
    kernel : str

    Returns
    -------
    bool
    """
    return kernel.partition(" ")[0] in EXACT


def _nearest(rows, size, threads, usual):
    """The rows, by backend, of the nearest number of threads and size that the usual version was measured with."""
    def far(a, b):
        return abs(math.log(max(a, 1) / max(b, 1)))

    measured = [(row["threads"], row["size"]) for row in rows if row["backend"] == usual]
    if not measured:
        return {}
    here = min(measured, key=lambda place: (far(place[0], threads), far(place[1], size)))
    found = {row["backend"]: row for row in rows if (row["threads"], row["size"]) == here}
    smallest = min(least for count, least in measured if count == here[0])
    accelerators = [name for name, row in found.items() if not row.get("processor", True)]
    if size < smallest / 2 and usual not in accelerators:
        for name in accelerators:
            del found[name]
    return found


def _fastest(rows, usual):
    """The version that wins, and why."""
    backend = winner(rows, usual)
    if not rows:
        return usual, "not tuned"
    if backend == usual:
        return usual, "no other is faster by more than the spread"
    return backend, f"{rows[backend]['rate'] / rows[usual]['rate']:.2f} times as fast as {usual}"


def winner(rows, usual):
    """The backend of the highest rate, where that is above the usual one's by more than both spreads.

    Parameters
    ----------
    rows : dict of backend to dict with ``rate`` and ``spread``
    usual : str, backend

    Returns
    -------
    str
    """
    if usual not in rows:
        return usual
    base = rows[usual]
    better = [name for name, row in rows.items()
              if row["rate"] > base["rate"] * (1 + row["spread"] + base["spread"])]
    return max(better, key=lambda name: rows[name]["rate"], default=usual)


def _fitting(kernel, rows, backend):
    """The tuned parameters of a version, those that it still has."""
    told = rows.get(backend, {}).get("parameters", {})
    if not told:
        return {}
    known = parameters(kernel, backend)
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return {name: value for name, value in told.items() if value in known.get(name, ())}


def _version(kernel, backend, reference, loop):
    if backend == "numpy":
        return reference
    return getattr(_module(kernel.partition(" ")[0], backend), loop)


def _module(name, backend):
    return importlib.import_module(f"brmpi.kernels.{name}_{backend}")

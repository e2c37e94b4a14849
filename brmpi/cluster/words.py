"""A node in words: what hostfiles and tables say of a probe."""

import re
from datetime import UTC, datetime

from brmpi import speeds

# kind of work: (what a probe's value is divided by, the unit then)
UNITS = {"compute": (1, "GFLOP/s"), "memory": (1, "GB/s"),
         "gravity": (1e9, "Ginteractions/s"), "events": (1, "events/s")}


def model(probe):
    """What the computer is: a board's name, else the processor's.

    Parameters
    ----------
    probe : dict

    Returns
    -------
    str
    """
    board = probe.get("board") or ""
    if board.startswith("Raspberry Pi"):
        return re.sub(r"( Model \w+)?( Rev [\d.]+)?$", "", board)
    cpu = re.sub(r"\((R|TM)\)|\bCPU\b|@.*|\d+-Core Processor", "", probe.get("cpu") or "")
    return " ".join(cpu.split()) or board or "unknown"


def mpi(probe):
    """Name and version of a node's MPI, "none" without.

    Parameters
    ----------
    probe : dict
    """
    known = probe.get("mpi") or {}
    return f"{known['name']} {known['version']}" if known else "none"


def number(value):
    """A measured value to about three digits.

    Parameters
    ----------
    value : float
    """
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def rate(probe, kind, unit=True):
    """A speed with its unit; a dash where it was not measured.

    Parameters
    ----------
    probe : dict
    kind : str, one of ``UNITS``
    unit : bool, whether to name the unit
    """
    value = speeds.value(probe, kind)
    scale, name = UNITS[kind]
    if value is None:
        return "-"
    return f"{number(value / scale)} {name}" if unit else number(value / scale)


def age(probe, now=None):
    """Time since the probe, to the largest unit.

    Parameters
    ----------
    probe : dict
    now : datetime with time zone, optional
    """
    try:
        taken = datetime.fromisoformat(probe.get("time"))
    except (TypeError, ValueError):
        return "-"
    seconds = max(((now or datetime.now(UTC)) - taken).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def accelerators(probe):
    """Names of the devices, other than processors, that OpenCL can compute on.

    Parameters
    ----------
    probe : dict
    """
    return [device["name"] for device in probe.get("opencl") or [] if set((device.get("type") or "").split(" | ")) -
            {"CPU", "DEFAULT", "ALL", ""}]

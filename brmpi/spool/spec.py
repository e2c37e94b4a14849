"""What a job is: its words, what it needs, and where it would rather run. Pure."""

import json
import os
import re
import shlex
from pathlib import Path

from brmpi.errors import BadInput

PRIORITIES = {"low": -100, "normal": 0, "high": 100, "urgent": 500}
SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
TAG = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
LONGEST = 10_000  # jobs of an array
WORDS = 100_000  # bytes of a job's words


def size(text, option="--memory"):
    """Bytes, of a text such as 2G.

    Parameters
    ----------
    text : str
    option : str, for the message

    Returns
    -------
    int

    Raises
    ------
    BadInput : it is none
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.I)
    if not match or not float(match[1]):
        raise BadInput(f"{option} {text}: must be a size such as 500M or 2G, more than 0")
    return int(float(match[1]) * SIZES[match[2].upper()])


def seconds(text, option="--time"):
    """Seconds, of a text such as 90, 15m, 2h, 1d or 1:30:00.

    Parameters
    ----------
    text : str
    option : str, for the message

    Returns
    -------
    float

    Raises
    ------
    BadInput : it is none
    """
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip()):
        found = float(match[1]) * units[match[2]]
    elif match := re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d)", text.strip()):
        found = 3600 * int(match[1] or 0) + 60 * int(match[2]) + int(match[3])
    else:
        found = 0
    if not 0 < found < 1e9:
        raise BadInput(f"{option} {text}: must be a time such as 90, 15m, 2h or 1:30:00, more than 0")
    return found


def indices(text):
    """How many jobs an array has, of a text such as 0-99.

    Parameters
    ----------
    text : str

    Returns
    -------
    int

    Raises
    ------
    BadInput : it is none, does not begin at 0, or is too long
    """
    match = re.fullmatch(r"0-(\d+)", text.strip())
    if not match or int(match[1]) >= LONGEST:
        raise BadInput(f"--array {text}: must be 0-N, N < {LONGEST}")
    return int(match[1]) + 1


def priority(text):
    """A priority as a number.

    Parameters
    ----------
    text : str, a name of ``PRIORITIES`` or a number from -999 to 999

    Returns
    -------
    int

    Raises
    ------
    BadInput : it is neither
    """
    if text in PRIORITIES:
        return PRIORITIES[text]
    if re.fullmatch(r"-?\d{1,3}", text):
        return int(text)
    raise BadInput(f"--priority {text}: must be {', '.join(PRIORITIES)} or a number from -999 to 999")


def needs(ranks, threads=1, memory=0, tags=(), nodes=(), prefer=(), limit=0.0):
    """What a job needs, in the one form by which jobs alike are known.

    Parameters
    ----------
    ranks, threads : int >= 1, threads of each rank
    memory : int, of each rank [bytes], 0 if it is not counted
    tags : sequence of str, that each of its nodes has
    nodes : sequence of str, names or tags, one of which each of its nodes has; all nodes if empty
    prefer : sequence of str, tags of nodes that it would rather have, in order
    limit : float, of its running time [s]; 0: none

    Returns
    -------
    str, JSON

    Raises
    ------
    BadInput : a number or a word that cannot be
    """
    for option, value, most in (("-n", ranks, 10**6), ("--threads", threads, 10**4)):
        if not 1 <= value <= most:
            raise BadInput(f"{option} {value}: must be from 1 to {most}")
    for word in (*tags, *nodes, *prefer):
        if not TAG.fullmatch(word):
            raise BadInput(f"{word!r}: must be a node, role, architecture or tag: letters, digits, -, _, . and +")
    megabytes = -(-memory // 2**20)
    tags = sorted({ARCHITECTURES.get(tag, tag) for tag in tags})
    return json.dumps(
        {
            "ranks": ranks,
            "threads": threads,
            "memory": megabytes,
            "tags": tags,
            "nodes": sorted(set(nodes)),
            "prefer": list(prefer),
            "limit": limit,
        },
        separators=(",", ":"),
    )


def record(argv, need, *, name=None, folder=None, priority=0, retries=0, cap=5, after=(), count=0, key=None, out=None):
    """A job as ``Store.submit`` takes it.

    Parameters
    ----------
    argv : list of str, the words for ``brmpi run``: a program and its arguments; ``{index}`` is a job's number in its
        array
    need : str, from ``needs``
    name : str, for people; the program's if not given
    folder : path, where it runs; the current one if not given
    priority : int
    retries : int >= 0, new starts after a failure
    cap : int >= 0, new starts after a lost node or exit code 75
    after : sequence of str, jobs that are to be done before
    count : int, jobs of an array, 0 for a single one
    key : str, by which a second submission is known to be the same
    out : str, the name of its run's folder without the id, where the program writes one

    Returns
    -------
    dict

    Raises
    ------
    BadInput : words that cannot be
    """
    if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise BadInput("a job needs a program, and words without a zero sign")
    if sum(len(word.encode()) for word in argv) > WORDS:
        raise BadInput(f"the words of a job: may have {WORDS:,} bytes together; put them into a file")
    for option, value in (("--retries", retries), ("--losses", cap)):
        if not 0 <= value <= 1000:
            raise BadInput(f"{option} {value}: must be from 0 to 1000")
    name = name or next((Path(word).name for word in argv if word != "--"), "?")
    spec = {"argv": list(argv), "folder": str(Path(folder or ".").absolute()), "out": out, "umask": _umask()}
    found = {"spec": json.dumps(spec, ensure_ascii=False), "class": need, "limit": json.loads(need)["limit"],
             "priority": priority, "retries": retries, "cap": cap, "name": label(name), "count": count,
             "after": list(after)}
    return found | ({"key": key} if key else {})


def label(text):
    """A name that fits on a line.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:60]


def _umask():
    before = os.umask(0o077)
    os.umask(before)
    return before


def words(spec, id, index=""):
    """The words of one job, its number filled in.

    Parameters
    ----------
    spec : dict, from ``record``
    id : str
    index : str, its number in an array

    Returns
    -------
    list of str
    """
    return [word.replace("{index}", index).replace("{id}", id) if index != "" else word for word in spec["argv"]]


def named(argv):
    """The folder that a program's words name for its run.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    str or None
    """
    for at, word in enumerate(argv):
        if word.startswith("--out="):
            return word.partition("=")[2]
        if word == "--out" and at + 1 < len(argv):
            return argv[at + 1]
    return None


def folder_of(spec, id):
    """The folder of a job's run, seen from the job's own folder; None where its program writes none.

    Parameters
    ----------
    spec : dict, from ``record``
    id : str

    Returns
    -------
    str or None
    """
    if not spec.get("out"):
        return None
    index = id.partition("-")[2]
    return named(words(spec, id, index)) or f"results/{Path(spec['out']).name}-{id}"


def shown(spec):
    """A job's words, as typed.

    Parameters
    ----------
    spec : dict, from ``record``

    Returns
    -------
    str
    """
    return shlex.join(spec["argv"])


def counted(number, word):
    """So many of something.

    Parameters
    ----------
    number : int or str
    word : str, of one

    Returns
    -------
    str, such as 1 rank or 3 ranks
    """
    return f"{number} {word}" + ("" if str(number) == "1" else "s")


def spoken(seconds):
    """A time for people.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str, such as 12 s, 3:05 min or 2:00 h
    """
    seconds = max(0, round(seconds))
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 6000:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"

"""``brmpi show``: what a run was, how long it took, and what was conserved."""

import os
import shlex
import socket
import sys
import textwrap
from pathlib import Path

from brmpi.arguments import Parser
from brmpi.results import conservation, diagnostics, disk, folder

WIDTH = 100


def main(argv):
    """Print what is known of a run.

    Parameters
    ----------
    argv : list of str, the words after ``brmpi show``

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : not a run
    """
    parser = Parser(prog="brmpi show", description="Say what a run was, how long it took and what was conserved.")
    parser.add_argument("run", type=Path, metavar="RUN", nargs="?",
                        help="the folder of a run; without it, the newest in results/")
    path = parser.parse_args(argv).run or folder.newest()
    if path.name == "run.json":
        path = path.parent
    about = folder.about(path)
    table, columns = _diagnostics(path)
    paragraphs = [_what(path, about, table), _estimates(about), _sections(about), _conserved(table, columns),
                  _files(path, table)]
    print("\n\n".join("\n".join(lines) for lines in paragraphs if lines))
    return 0


def status(path, about):
    """How a run ended, or that it goes on, or that it was killed and how to go on with it.

    Parameters
    ----------
    path : Path, the folder
    about : dict, its ``run.json``

    Returns
    -------
    str
    """
    told = str(about.get("status", "unknown"))
    if told == "stopped":
        return f"stopped; go on with: {_restart(path, about)}"
    if told != "running":
        return told
    host, pid = about.get("host"), about.get("pid")
    if host != socket.gethostname() or not isinstance(pid, int):
        return f"running on {host or 'an unknown host'}, as far as can be seen from {socket.gethostname()}"
    if _alive(pid, (Path(path) / "run.json").stat().st_mtime):
        return f"running (process {pid})"
    return f"killed; go on with: {_restart(path, about)}"


def _alive(pid, written):
    """Whether the process that wrote ``run.json`` at a time is there; a later one may have got its number."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines()
                    if line.startswith("btime"))
    except OSError:
        return False
    started = int(boot.split()[1]) + int(words[19]) / os.sysconf("SC_CLK_TCK")
    return words[0] != "Z" and started < written + 2


def _restart(path, about):
    """The command that goes on with a run: its program again, which finds the case in the folder."""
    words = shlex.split(about.get("command", ""))
    program = words[: words.index("-m") + 2] if "-m" in words else words[:2]
    return shlex.join([*program, "--restart", "--out", str(path)])


def _diagnostics(path):
    """The table of a run and its columns; empty where there is none that can be read."""
    try:
        return diagnostics.read(path / "diagnostics.h5"), diagnostics.columns(path / "diagnostics.h5")
    except OSError:
        return {}, {}


def _span(seconds):
    """A time as a person says it."""
    seconds = float(seconds)
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _value(value):
    """A value of a case as its file would have it, short."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _line(key, text):
    """Key and text, wrapped under each other, but for commands, which are there to be copied."""
    width = sys.maxsize if key in ("status", "command") else WIDTH
    return textwrap.wrap(str(text), width, initial_indent=f"  {key:<11}", subsequent_indent=" " * 13,
                         break_long_words=False, break_on_hyphens=False)


def _pairs(table):
    """A table in one line: what is empty is left out, tables in it are counted."""
    words = []
    for key, value in table.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            words.append(f"{key}: {len(value)}")
        elif value not in ("", [], {}, None):
            words.append(f"{key} = {_value(value)}")
    return ", ".join(words)


def _steps(about, table):
    """How far the run came."""
    unit = about.get("units", {}).get("time", "")
    step, steps = about.get("step"), about.get("steps")
    if len(table.get("step", ())):
        step = max(step or 0, int(table["step"][-1]))
    words = [f"{step} of {steps}" if steps is not None else f"{step}"] if step is not None else []
    if len(table.get("time", ())):
        words.append(f"time {table['time'][-1]:g} {unit}".strip())
    if "dt" in about.get("case", {}):
        words.append(f"dt = {_value(about['case']['dt'])} {unit}".strip())
    return ", ".join(words)


def _what(path, about, table):
    """What the run was."""
    hosts = ", ".join(f"{host} ({count})" for host, count in about.get("hosts", {}).items())
    ranks = about.get("ranks")
    speeds, versions = about.get("speeds") or {}, about.get("versions") or {}
    version = about.get("version") or versions.get("brmpi", "unknown")
    case_name, case_file = about.get("case_name", ""), about.get("case_file")
    rows = (
        ("program", f"{about.get('program', 'unknown')}, brmpi {version}"
         + (f", commit {about['commit'][:12]}" if about.get("commit") else "")),
        ("status", status(path, about)),
        ("case", f"{case_name} ({case_file})" if case_file else case_name),
        ("", _pairs(about.get("case", {}))),
        ("set", _pairs(about.get("overrides") or {})),
        ("steps", _steps(about, table)),
        ("seed", about.get("seed")),
        ("command", about.get("command")),
        ("ranks", f"{ranks} on {hosts}" if hosts else ranks),
        ("shares", ", ".join(map(str, about.get("shares") or ()))),
        ("speeds", f"{speeds.get('kind', '')}: {', '.join(map(_value, speeds['values']))}"
         if speeds.get("values") else None),
        ("backend", about.get("backend")),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("started", about.get("started")),
        ("ended", about.get("ended")),
        ("restarts", len(about.get("restarts") or ()) or None),
        ("took", _span(about["seconds"]) if about.get("seconds") is not None else None),
    )
    return [str(path), *(line for key, text in rows if text not in (None, "") for line in _line(key, text))]


def _sections(about):
    """How long each section took: over the ranks, and as a share of the wall time."""
    wall, total = about.get("wall") or {}, about.get("seconds")
    if not wall:
        return []
    lines = [f"{'section':<16}{'min s':>10}{'mean s':>10}{'max s':>10}{'share':>8}"]
    for name, times in sorted(wall.items(), key=lambda item: -item[1].get("mean", 0)):
        share = f"{100 * times['mean'] / total:7.1f}%" if total else ""
        lines.append(f"{name:<16}" + "".join(f"{times[key]:10.3f}" for key in ("min", "mean", "max")) + share)
    return lines


def _estimates(about):
    """What was sampled: each quantity with its standard error, and its exact value where that is known."""
    found, exact = about.get("estimates") or {}, about.get("exact") or {}
    if not found:
        return []
    lines = [f"{'estimate':<26}{'value':>16}{'error':>12}" + (f"{'exact':>16}" if exact else "")]
    for name, one in found.items():
        line = f"{name:<26}{one['value']:16.9g}{one['error']:12.2e}"
        lines.append(f"{line}{exact[name]:16.9g}" if name in exact else line + f"  {one.get('unit', '')}".rstrip())
    return lines


def _conserved(table, columns):
    """The change of each conserved quantity: at the end and at its largest."""
    found = conservation.changes(table, columns)
    if not found:
        return []
    lines = [f"{'conserved':<26}{'change':>10}{'largest':>12}"]
    for change in found:
        kind = "relative" if change.relative else change.unit or "absolute"
        lines.append(f"{change.name:<26}{change.values[-1]:10.2e}{max(change.values):12.2e}  {kind}")
    return lines


def _files(path, table):
    """What is in the folder."""
    lines = [f"{'files':<24}"]
    if (path / "diagnostics.h5").exists():
        room = disk.size((path / "diagnostics.h5").stat().st_size)
        lines.append(f"{'diagnostics.h5':<24}{len(table.get('step', ()))} rows, {room}")
    for name in ("snapshots", "checkpoints"):
        files = sorted((path / name).glob("*_[0-9]*.h5"))
        if files:
            steps = [int(file.stem.rpartition("_")[2]) for file in files]
            span = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
            room = disk.size(sum(file.stat().st_size for file in files))
            lines.append(f"{f'{name}/':<24}{len(files)} of {span}, {room}")
    for name in folder.PICTURES:
        if (path / name).exists():
            lines.append(f"{name:<24}{disk.size((path / name).stat().st_size)}")
    return lines if len(lines) > 1 else []

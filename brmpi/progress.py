"""How far a run has come, on the root: a bar on a terminal, elsewhere a line every ten seconds."""

import contextlib
import os
import sys
import time
from pathlib import Path

from brmpi.mpi import say

LINES = 10.0  # seconds between lines where there is no terminal
REDRAW = 0.2  # seconds between looks of the bar


class Silent:
    """No progress at all: ranks other than the root, and ``--quiet``."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def show(self, step, text):
        """Say how far the run is.

        Parameters
        ----------
        step : int, steps done
        text : str, what else there is to say
        """


class Lines(Silent):
    """A line every ten seconds.

    Parameters
    ----------
    name : str, the program
    first, steps : int, steps done at the start and at the end
    unit : str, what is counted; nothing where only the part of the whole has a meaning
    """

    def __init__(self, name, first, steps, unit="step"):
        self.name, self.first, self.steps, self.unit = name, first, steps, unit
        self.start = self.said = time.monotonic()

    def show(self, step, text):
        """Say how far the run is, if it is time to.

        Parameters
        ----------
        step : int, steps done
        text : str, what else there is to say
        """
        now = time.monotonic()
        if now - self.said < LINES or step == self.first:
            return
        self.said = now
        gone = now - self.start
        left = gone / (step - self.first) * (self.steps - step)
        percent = f"{100 * step / self.steps:.0f} %"
        done = f"{self.unit} {step} of {self.steps} ({percent})" if self.unit else percent
        say(f"{self.name}: {done}, {text}, "
            f"{clock(gone)} gone, about {clock(left)} to go")


class Bar(Silent):
    """A bar that is redrawn in place.

    Parameters
    ----------
    name : str, the program
    first, steps : int, steps done at the start and at the end
    unit : str, as ``Lines`` has it
    """

    def __init__(self, name, first, steps, unit="step"):
        from rich import progress as columns
        from rich.console import Console

        console = Console(force_terminal=True, width=_width())
        done = columns.MofNCompleteColumn() if unit else columns.TaskProgressColumn()
        self.bar = columns.Progress(columns.TextColumn(name), columns.BarColumn(), done,
                                    columns.TextColumn("{task.fields[text]}"), columns.TimeRemainingColumn(),
                                    console=console, auto_refresh=False, transient=True)
        self.task = self.bar.add_task(name, total=steps, completed=first, text="")
        self.drawn = 0.0

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.bar.stop()

    def show(self, step, text):
        """Redraw the bar, if it is time to.

        Parameters
        ----------
        step : int, steps done
        text : str, what else there is to say
        """
        now = time.monotonic()
        if now - self.drawn >= REDRAW:
            self.drawn = now
            with contextlib.suppress(OSError):  # the terminal was closed
                self.bar.update(self.task, completed=step, text=text, refresh=True)


def progress(root, name, first, steps, quiet=False, unit="step"):
    """The right kind of progress for this process.

    Parameters
    ----------
    root : bool, whether this is the rank that speaks
    name : str, the program
    first, steps : int, steps done at the start and at the end
    quiet : bool
    unit : str, what is counted; nothing where only the part of the whole has a meaning

    Returns
    -------
    context manager with ``show(step, text)``
    """
    if quiet or not root:
        return Silent()
    return (Bar if _terminal() is not None else Lines)(name, first, steps, unit)


def clock(seconds):
    """Seconds as people read them: ``0:07``, ``12:34``, ``3:00:00``.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _terminal():
    """The terminal that a person sees this process on, or None.

    mpirun gives each rank a terminal of its own, wherever its own output goes: ask where the parent's goes.
    """
    if not sys.stdout.isatty():
        return None
    if not any(name.startswith(("OMPI_COMM_WORLD", "PMI_RANK")) for name in os.environ):
        return Path("/dev/stdout")
    try:
        target = (Path("/proc") / str(os.getppid()) / "fd" / "1").readlink()
    except OSError:
        return None
    return target if str(target).startswith(("/dev/pts/", "/dev/tty")) else None


def _width():
    try:
        with _terminal().open() as terminal:
            return os.get_terminal_size(terminal.fileno()).columns or 80
    except OSError:
        return 80

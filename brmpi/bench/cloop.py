"""The C loops of ``bench/c`` that kernels are held against."""

import contextlib
import subprocess
from pathlib import Path

from brmpi.errors import Fault

BUILD = Path("bench/c/build")


class CLoop:
    """A C loop in a process of its own: its -ffast-math would change the arithmetic of this one.

    Parameters
    ----------
    name : str, of its source
    *arguments : of the program

    Raises
    ------
    Fault : it is not built, or was not vectorised
    """

    def __init__(self, name, *arguments):
        notes = BUILD / f"{name}.vectorised"
        if not notes.exists():
            raise Fault(f"{BUILD / name} is not there: make bench builds it")
        if "loop vectorized" not in notes.read_text(encoding="utf-8"):
            raise Fault(f"{notes}: gcc did not vectorise the loop, so it proves nothing")
        command = [BUILD / name, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self):
        """Seconds of one call.

        Raises
        ------
        Fault : the process is gone
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise Fault(f"{' '.join(map(str, self.process.args))} ended with exit code {self.process.wait()}")
        return float(said.split()[0])

    def close(self):
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()

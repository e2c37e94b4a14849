"""What a job prints, passed on byte by byte, and what of it is needed again when the job fails."""

import contextlib
import fcntl
import os
import pty
import re
import select
import sys
import termios
import threading
import time
import tty
from collections import defaultdict, deque

LAST = 8  # lines of a rank that are said again at the end
# What MPI, its daemons and ssh print, be it in a rank's name: framed paragraphs about such things, and single lines
RULE = re.compile(rb"(-{40,}|={40,})[ \r]*\n")
THINGS = re.compile(rb"MPI|PMI|PRTE|ORTE|OPAL|mpirun|prterun|daemon|[Jj]ob |slots|BAD TERMINATION")
LINE = re.compile(rb"\[\S+:\d+\]|\[\S+\]\[\[\d+,\d+\],\d+\]\[")
STARTS = (b"-----", b"=====", b"[")
# and what only those print that mpirun gives no tag to
UNTAGGED = re.compile(rb"mpirun|prterun|\[(mpiexec|proxy\S*)@|ssh: |Timeout, server|Connection (to|closed)|client_loop|"
                      rb"\S+@\S+: Perm")
OTHERS = (b"mpirun", b"prterun", b"ssh: ", b"Timeout, server", b"Connection ", b"client_loop")
NOISE = b"setpgid"  # a quarrel of Open MPI with itself, of no consequence
LONGEST = 40  # bytes of a tag
FRAME = 60  # lines of a framed paragraph of MPI's; what has no end by then is a rank's own
QUIET = 1.0  # s after which what could not be told yet is taken for what it looks like
LATE = 2**20  # bytes, more than a pipe holds: who prints more after mpirun has ended, outlives it


class Screen:
    """Stands between mpirun and this process's own standard output and error.

    Parameters
    ----------
    tag : re.Pattern or None, what mpirun puts before the output of each rank; its group is the rank
    """

    def __init__(self, tag):
        self.tag = tag
        self.said = b""  # by mpirun itself
        self.told = 0  # how much of that a person has seen
        self.since = None  # time of the first of it that nobody has seen
        self.lines = defaultdict(lambda: deque(maxlen=LAST))  # last lines by rank; by None where ranks are not known
        self._threads, self._terminal, self._size, self._over = [], None, None, False
        self._lock = threading.Lock()

    def doors(self):
        """Files for mpirun's standard output and error.

        Returns
        -------
        out, err : int
        """
        err_here, err = os.pipe()
        self._follow(err_here, 2)
        if sys.stdout.isatty():  # programs ask their mpirun whether a person is watching
            here, out = pty.openpty()
            tty.setraw(out)
            self._terminal = here
            self.resize()
        else:
            here, out = os.pipe()
        self._follow(here, 1)
        return out, err

    def resize(self):
        """Keep the job's terminal as large as the person's."""
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8))
                if size != self._size:
                    fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
                    self._size = size

    def tell(self, older=0.0):
        """Show what mpirun itself said, if it is older than so many seconds.

        Parameters
        ----------
        older : float [s]
        """
        with self._lock:
            if self.since is not None and time.monotonic() - self.since >= older:
                text, self.told, self.since = self.said[self.told:], len(self.said), None
                _write(2, text)

    def close(self):
        """Pass on the last of the output, however slowly it is read; who outlives mpirun is not waited for."""
        self._over = True
        for thread in self._threads:
            thread.join()

    def last(self, rank=None):
        """Last lines of a rank; of the whole job where that is not known.

        Parameters
        ----------
        rank : int, optional

        Returns
        -------
        list of str
        """
        if rank is not None and self.tag is not None:
            found = list(self.lines[rank])
        else:
            found = sorted(pair for lines in list(self.lines.values()) for pair in list(lines))[-LAST:]
        return [line for _, line in found]

    def _follow(self, source, target):
        thread = threading.Thread(target=self._listen, args=(source, target), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, source, target):
        """Read to the end of a stream."""
        parts, line = _Parts(self.tag), defaultdict(bytes)
        sieves = defaultdict(lambda: _Sieve(self.tag is not None))
        for data in self._pieces(source):
            found = parts.split(data)
            if target == 2:
                found = [pair for rank, text in found for pair in sieves[rank].sift(rank, text)]
                if not data:
                    found += [pair for rank, sieve in sieves.items() for pair in sieve.sift(rank, b"", end=True)]
            for rank, text in found:
                if rank == "mpirun":
                    self._own(text)
                else:
                    line[rank] = self._keep(rank, line[rank] + text)
            _write(target, b"".join(text for rank, text in found if rank != "mpirun"))
        for rank, rest in line.items():
            self._keep(rank, rest + b"\n")
        with contextlib.suppress(OSError):
            os.close(source)

    def _pieces(self, source):
        """What a stream brings; empty where it pauses, and at its end."""
        late = 0
        while True:
            ready, _, _ = select.select([source], [], [], QUIET)
            try:
                data = os.read(source, 1 << 16) if ready else b""
            except OSError:  # a terminal ends with an error
                data = b""
            yield data
            late += len(data) if self._over else 0
            if (not data and (ready or self._over)) or late > LATE:
                yield b""
                return

    def _own(self, text):
        if NOISE not in text:
            with self._lock:
                self.said += text
                self.since = self.since or time.monotonic()

    def _keep(self, rank, text):
        """Keep whole lines, as a person saw them; returns what is not whole yet."""
        *whole, rest = text.split(b"\n")
        for line in whole:
            seen = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line.rstrip(b"\r").rpartition(b"\r")[2]).rstrip(b" \t\0")
            if seen:
                self.lines[rank].append((time.monotonic(), seen.decode(errors="replace")))
        return rest[-4096:]


class _Parts:
    """Cuts a stream into what each rank and what mpirun itself printed, by its tags."""

    def __init__(self, tag):
        self.tag, self.left, self.rank = tag, b"", None
        self.fresh = True  # at the beginning of a line

    def split(self, data):
        """(rank or "mpirun", text) of what can be told so far; the end of the stream is empty data."""
        if self.tag is None:
            return [(None, data)] if data else []
        text, end, found = self.left + data, not data, []
        while text and (size := self._size(text, end)):
            match = self.tag.match(text)
            if match:
                self.rank = int(match.group(1))
            found.append(("mpirun" if self.fresh and not match else self.rank, text[match.end() if match else 0:size]))
            self.fresh, text = text[:size].endswith(b"\n"), text[size:]
        self.left = text
        return found

    def _size(self, text, end):
        """How much from the beginning is by one and the same; 0 if that cannot be told yet."""
        stop = text.find(b"\n") + 1 or len(text)
        whole = text[stop - 1:stop] == b"\n" or end
        match = self.tag.match(text)
        begin = match.end() if match else 0
        if self.fresh and not match:
            return stop if whole else 0
        if later := self.tag.search(text, begin, stop):
            return later.start()
        bracket = -1 if whole else text.rfind(b"[", max(begin, len(text) - LONGEST))
        return stop if bracket < 0 else bracket


class _Sieve:
    """Tells what one rank printed from what MPI printed in its name; without tags, from what mpirun did."""

    def __init__(self, tagged):
        self.left, self.fresh = b"", True
        self.starts = STARTS if tagged else STARTS + OTHERS
        self.lines = (LINE,) if tagged else (LINE, UNTAGGED)
        self.table = False  # within a long frame of the rank's own

    def sift(self, rank, data, end=False):
        """(rank or "mpirun", text) of what can be told so far; of all at the end of the stream."""
        if rank == "mpirun":
            return [(rank, data)]
        text, found = self.left + data, []
        while text:
            stop = text.find(b"\n") + 1 or len(text)
            whole, who = text[stop - 1:stop] == b"\n", rank
            if self.fresh and not whole and not end and any(text.startswith(word[:len(text)]) for word in self.starts):
                break
            if self.fresh and self.table and RULE.match(text):
                self.table = False
            elif self.fresh and RULE.match(text):
                lines = text.splitlines(True)
                close = next((place for place, line in enumerate(lines[1:], 1) if RULE.match(line)), None)
                about = THINGS.search(b"".join(lines[1:close]))
                if not end and close is None and len(lines) < (FRAME if about else 4):
                    break
                who, self.table = "mpirun" if about and close else rank, close is None
                if close:
                    stop = sum(map(len, lines[:close + 1]))
            elif self.fresh and any(line.match(text.lstrip(b" ")) for line in self.lines):
                who = "mpirun"
            found.append((who, text[:stop]))
            self.fresh, text = text[:stop].endswith(b"\n"), text[stop:]
        self.left = text
        return found


def _write(target, text):
    """All of it; nothing once nobody reads any more."""
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(target, text):]

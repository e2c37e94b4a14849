"""Processes started here, each in a group of its own, so that it ends with all that it started."""

import os
import signal
import subprocess
import threading


class Children:
    """Processes started and not yet ended. Threads may share it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._alive = set()
        self._stopped = False

    def run(self, command, given, seconds):
        """Run a command to its end or its limit of time.

        Parameters
        ----------
        command : list of str
        given : bytes, for its standard input
        seconds : float [s]

        Returns
        -------
        code : int
        out, err : str

        Raises
        ------
        OSError : it cannot be started
        subprocess.TimeoutExpired : it took longer, and was ended
        """
        process = self.start(command)
        try:
            out, err = process.communicate(given, timeout=max(seconds, 0))
        finally:
            self.end(process)
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def start(self, command):
        """Start a command with pipes for all its files.

        Parameters
        ----------
        command : list of str

        Returns
        -------
        subprocess.Popen

        Raises
        ------
        OSError : it cannot be started
        """
        with self._lock:
            if self._stopped:
                raise InterruptedError(0, "stopped", command[0])
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, bufsize=0, start_new_session=True)
            self._alive.add(process)
        return process

    def end(self, process):
        """End a process and all it started, if it still runs.

        Parameters
        ----------
        process : subprocess.Popen from ``start``
        """
        self.kill(process)
        process.wait()
        with self._lock:
            self._alive.discard(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()

    def kill(self, process):
        """Kill a process and all it started, if it still runs.

        Parameters
        ----------
        process : subprocess.Popen from ``start``
        """
        with self._lock:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def stop(self):
        """Kill all processes; none can be started after."""
        with self._lock:
            self._stopped = True
            alive = tuple(self._alive)
        for process in alive:
            self.kill(process)

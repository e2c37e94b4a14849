"""Timing of kernels in processes of their own: one for each version and number of threads, which may crash or hang.

As a program this is such a process: it reads questions, a line of JSON each, and answers them.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from statistics import median, quantiles

from brmpi.bench.workloads import WORKLOADS
from brmpi.kernels import choice, opencl

MARK = "@trial "  # before an answer: libraries may print, too
REPEAT = 2e-3  # s, least time of a repeat
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG: the signal that comes when the process that started this one ends
PATIENCE = 60.0  # s, for an answer


class Ended(Exception):
    """A process that gave no answer; the message is the reason."""


class Timer:
    """A process that times one version of kernels.

    Parameters
    ----------
    backend : "numpy", "numba" or "opencl"
    threads : int
    """

    def __init__(self, backend, threads):
        self.backend = backend
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POCL_MAX_PTHREAD_COUNT")
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen([sys.executable, "-m", "brmpi.bench.trials"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._words, bufsize=0, start_new_session=True,
                                         env={**os.environ, **dict.fromkeys(variables, str(threads))})

    def ask(self, kernel, size, parameters, repeats, seconds):
        """Time one version at one size.

        Parameters
        ----------
        kernel, size, parameters : as in a row of a tuning
        repeats : int
        seconds : float, after which no further repeat begins [s]

        Returns
        -------
        dict: ``rates``, not empty; and ``device``, ``processor`` of OpenCL. Or ``lacking``, why it cannot be done

        Raises
        ------
        Ended : the process is gone
        """
        question = {"kernel": kernel, "size": size, "backend": self.backend, "parameters": parameters,
                    "repeats": repeats, "seconds": seconds}
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            raise self._ended() from None
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            line, end = b"", time.monotonic() + PATIENCE + 2 * seconds
            while not line.endswith(b"\n") or not line.startswith(MARK.encode()):
                line = b"" if line.endswith(b"\n") else line
                if not ready.select(max(end - time.monotonic(), 0)):
                    self._process.kill()
                    raise Ended(f"no answer within {PATIENCE + 2 * seconds:.0f} s")
                part = self._process.stdout.read(1)
                if not part:
                    raise self._ended()
                line += part
        return json.loads(line[len(MARK):])

    def _ended(self):
        code = self._process.wait()
        self._words.seek(0)
        said = [line.strip() for line in self._words if line.strip()]
        how = f"died of signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Ended(f"its process {how}" + (f": {said[-1][:200]}" if said else ""))

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._words.close()


def spread(rates):
    """Distance of the quartiles, as a fraction of the median.

    Parameters
    ----------
    rates : sequence of float, not empty

    Returns
    -------
    float; 0 for a single rate
    """
    if len(rates) == 1:
        return 0.0
    low, _, high = quantiles(rates, n=4, method="inclusive")
    return (high - low) / median(rates)


class _Server:
    """Answers questions; the data of the last one stay."""

    def __init__(self):
        self.kernels = {work.kernel: work for work in WORKLOADS}
        self.held = None, None, None

    def answer(self, kernel, size, backend, parameters, repeats, seconds):
        """What ``Timer.ask`` returns."""
        if self.held[0] != (kernel, size):
            self.held = (kernel, size), *self.kernels[kernel].make(size)
        _, work, call = self.held
        row = {"kernel": kernel, "size": size, "threads": 1, "backend": backend, "parameters": parameters}
        choice.use({"rows": [row]})
        try:
            call(backend)  # compiles
            begin = time.perf_counter()
            call(backend)
            once = time.perf_counter() - begin
        except (opencl.Unavailable, MemoryError) as reason:
            return {"lacking": str(reason) or type(reason).__name__}
        calls, rates, end = max(1, round(REPEAT / once)), [], time.perf_counter() + seconds
        while len(rates) < repeats and (not rates or time.perf_counter() < end):
            begin = time.perf_counter()
            for _ in range(calls):
                call(backend)
            rates.append(calls * work / (time.perf_counter() - begin))
        told = {}
        if backend == "opencl":
            device = opencl.device()
            told = {"device": device.name, "processor": device.shares_memory}
        return {"rates": rates, **told}


def main():
    """Answer questions until there are no more."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)  # also where a kernel hangs
    server = _Server()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(MARK + json.dumps(server.answer(**json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

"""``make test-streams``: dieharder's tests on the random numbers of ``brmpi.streams``, as programs use them.

Each battery reads 32-bit halves of words: of one stream in order; of neighbouring seeds in turns; of several purposes
in turns; of words a long way apart. dieharder calls a p-value weak below 0.005 or above 0.995, and failed beyond 1e-6;
among as many tests a weak one in a while is chance, and is repeated with another seed. (TestU01 and PractRand, which
test harder, are in neither Debian's free part nor PyPI.)

Source: Brown, Eddelbuettel & Bauer, "dieharder: a random number test suite", https://webhome.phy.duke.edu/~rgb.
"""

import contextlib
import shutil
import subprocess
import sys

import numpy as np

from brmpi.errors import Fault
from brmpi.streams import Stream

# birthdays, ranks of matrices, bitstream, counts of ones, parking lot, spheres, runs, craps, bits, serial, lagged sums
TESTS = (0, 2, 3, 4, 8, 10, 12, 15, 16, 100, 101, 102, 203, 204, 205, 206, 207, 208)
WEAK = 0.005
BATCH = 2**16  # words at a time
STRIDE = 2**32  # words between those a long way apart
SOURCES = ("one stream", "16 neighbouring seeds in turns", "16 purposes in turns", "words 2^32 apart")


def words(source, seed):
    """Words without end.

    Parameters
    ----------
    source : one of ``SOURCES``
    seed : int

    Yields
    ------
    (n,) uint64
    """
    streams = {"one stream": [Stream(seed, "test")], "words 2^32 apart": [Stream(seed, "test")],
               "16 neighbouring seeds in turns": [Stream(seed + number, "test") for number in range(16)],
               "16 purposes in turns": [Stream(seed, f"test {number}") for number in range(16)]}[source]
    first = 0
    while True:
        if source == "words 2^32 apart":  # four words of a block each
            yield np.concatenate([streams[0].words((first + place) * STRIDE, 4) for place in range(BATCH // 64)])
            first += BATCH // 64
        else:
            count = BATCH // len(streams)
            yield np.column_stack([stream.words(first, count) for stream in streams]).ravel()
            first += count


def battery(source, seed):
    """What dieharder finds.

    Parameters
    ----------
    source : one of ``SOURCES``
    seed : int

    Returns
    -------
    list of (str, float), name and p-value of each test

    Raises
    ------
    Fault : dieharder is not here, or a test ended otherwise
    """
    if not shutil.which("dieharder"):
        raise Fault("dieharder is not here: apt-get install dieharder")
    found, endless = [], words(source, seed)
    for test in TESTS:
        command = ["dieharder", "-g", "200", "-d", str(test), "-D", "test_name", "-D", "ntuple", "-D", "pvalues"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError):
            for batch in endless:
                process.stdin.write(batch.tobytes())
        said = process.stdout.read().decode()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        lines = [line.split("|") for line in said.splitlines()]
        results = [(f"{name.strip()} {size.strip()}", float(value)) for name, size, value in
                   (line[:3] for line in lines if len(line) >= 3 and line[2].strip()[:1].isdigit())]
        if process.wait() or not results:
            raise Fault(f"{' '.join(command)} ended with exit code {process.returncode}: {said[-500:]}")
        found += results
    return found


def main():
    """Run all batteries, or those of the sources named; returns 1 where a test is weak twice."""
    wrong = False
    for source in sys.argv[1:] or SOURCES:
        found = battery(source, 1)
        weak = {name: value for name, value in found if not WEAK < value < 1 - WEAK}
        told = ", ".join(f"{name} p = {value:.4f}" for name, value in weak.items()) or "none"
        print(f"{source}: {len(found)} p-values, beyond {WEAK} of 0 or 1: {told}", flush=True)
        if weak:
            again = {name for name, value in battery(source, 1001) if not WEAK < value < 1 - WEAK} & set(weak)
            print(f"{source}, with another seed, the same once more: {', '.join(again) or 'none'}", flush=True)
            wrong = wrong or bool(again)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

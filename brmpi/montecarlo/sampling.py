"""An estimate from blocks of samples: the same bits on any number of ranks, however the blocks were dealt out.

A sample is known by its index, and a block of samples by its number. What is known of a block is a row of float64 that
adds up: counts, sums, sums of squares, histograms. Rows are sent to the root, which samples too, and are added up there
in the order of blocks, whatever order they come in. Whether an error is small enough is asked after blocks of certain
numbers only, and what was sampled past the block that was the last is forgotten: so no answer depends on who was fast.
"""

import time

import numpy as np

from brmpi.montecarlo.dealing import CLOSED, Dealer

ROWS, END = 7301, 7302  # tags
LETTER = 0.1  # seconds of rows in a message
LOOK = 0.02  # seconds between two looks of the root at its messages: over Ethernet a look takes long
NAP = 2e-4  # seconds between looks while the root has nothing else to do


def checked(number, parts=32):
    """The next block count after this one at which a run may end, ``parts`` to ``2 * parts`` of them an octave.

    Parameters
    ----------
    number : int >= 0
    parts : int, a power of two

    Returns
    -------
    int > number
    """
    step = max(1, (1 << (number + 1).bit_length() - 1) // parts)
    return (number // step + 1) * step


class Sums:
    """Rows of blocks added up in the order of blocks.

    Parameters
    ----------
    total : (width,) float64, of all blocks before ``number``
    number : int, blocks that are in it
    whole : int, blocks that all have their full size
    last : int, block after the last that may count: ``whole`` or one more

    Attributes
    ----------
    full : (int, (width,) float64), number and total, without the block that is cut short: what can be gone on from
    """

    def __init__(self, total, number, whole, last):
        self.total, self.number, self.whole, self.last = total, number, whole, last
        self.full = number, total
        self.waiting = {}

    def add(self, first, rows):
        """Take rows of blocks ``first`` and on; what they allow is then in ``checks``.

        Parameters
        ----------
        first : int
        rows : (n, width) float64
        """
        self.waiting[first] = rows

    def checks(self):
        """Go on through the blocks that are here, and stop at each at which something may be decided.

        Yields
        ------
        int, number of blocks that are in ``total``
        """
        while self.number in self.waiting:
            start, rows = self.number, self.waiting.pop(self.number)
            sums = np.cumsum(np.vstack([self.total, rows]), axis=0)  # one after the other, whoever sent them
            end = start + len(rows)
            while self.number < end:
                stops = checked(self.number), end, self.whole if self.number < self.whole else self.last
                self.number = min(stops)
                self.total = sums[self.number - start]
                if self.number <= self.whole:
                    self.full = self.number, self.total
                if self.number == self.last or self.number == checked(self.number - 1):
                    yield self.number


class Sampling:
    """One rank's part in the sampling of an estimator; the root's is to collect as well.

    Parameters
    ----------
    comm : communicator
    estimator : with ``width``, and ``block(first, count)``, the (width,) float64 row of some samples
    samples : int, most samples to take; 0 where only ``watch`` decides
    size : int >= 1, samples of a block
    speeds : (ranks,) float64 > 0
    dynamic : bool, as ``Dealer`` has it
    number : int, blocks sampled already
    total : (width,) float64, their sum; None for none

    Attributes
    ----------
    sums : Sums, on the root while it runs
    busy : float, seconds that this rank sampled
    blocks : int, that it sampled
    """

    def __init__(self, comm, estimator, samples, size, speeds, dynamic=True, number=0, total=None):
        multiple = getattr(estimator, "multiple", 1)
        if size < 1 or size % multiple:
            raise ValueError(f"size = {size}: must be a multiple of {multiple}, and > 0")
        if samples < 0 or len(speeds) != comm.size:
            raise ValueError(f"samples = {samples}, {len(speeds)} speeds: must be >= 0, and one for each of "
                             f"{comm.size} ranks")
        self.comm, self.estimator, self.size = comm, estimator, size
        self.samples = samples
        whole, last = (samples // size, -(-samples // size)) if samples else (CLOSED, CLOSED)
        total = np.zeros(estimator.width) if total is None else np.asarray(total, dtype=float)
        self.sums = Sums(total, number, whole, last)
        self.dealer = Dealer(comm, number, last, speeds, dynamic)
        self.letters, self.open, self.enough = [], comm.size - 1, False
        self.pace, self.busy, self.blocks, self.looked = 0.0, 0.0, 0, 0.0

    def run(self, watch, asked=lambda: False):
        """Sample until there is enough. Collective.

        Parameters
        ----------
        watch : callable of ``Sums`` and a bool, on the root: whether to end. With True after certain blocks, where what
            it returns may depend on the sums alone; with False now and then, for the clock
        asked : callable, on any rank: whether this rank was asked to stop

        Returns
        -------
        bool, whether a rank was asked to stop before there was enough; ``sums`` is the same on every rank after it
        """
        stopped = False
        sums = self.sums
        if self.comm.rank == 0 and sums.number and sums.number == checked(sums.number - 1) and watch(sums, True):
            self.enough = True  # a run that had ended is gone on with
            self.dealer.close()
        while blocks := self.dealer.claim():
            stopped = self._sample(blocks, watch, asked) or stopped
        if self.comm.rank:
            self.comm.send(stopped, 0, END)
            self._posted(all_of_them=True)
        else:
            while self.open:
                stopped = self._collect(watch, asked) or stopped
                time.sleep(NAP)
            self._ripe(watch)
        self.dealer.free()
        sums.number, sums.total, sums.full, stopped = self.comm.bcast(
            (sums.number, sums.total, sums.full, stopped and not self.enough))
        return stopped

    def _sample(self, blocks, watch, asked):
        """Sample a claim; returns whether this rank, or another that told the root, was asked to stop."""
        rows, first = [], blocks.start
        began = sent = time.perf_counter()
        for block in blocks:
            if 2 * (block - blocks.start) >= len(blocks) - 1:  # half of it is left to do while that comes
                self.dealer.ask(self.pace)
            count = min(self.size, self.samples - block * self.size) if self.samples else self.size
            start = time.perf_counter()
            rows.append(self.estimator.block(block * self.size, count))
            now = time.perf_counter()
            self.busy += now - start
            self.blocks += 1
            self.pace = (now - began) / (block + 1 - blocks.start)
            last = block == blocks[-1]
            looks = self.comm.rank == 0 and (last or now - self.looked > LOOK)
            if last or looks or now - sent > LETTER:
                self._post(first, rows)
                first, rows, sent = block + 1, [], now
            if looks:
                stopped = self._collect(watch, asked)
                self.looked = time.perf_counter()
            else:
                stopped = asked()
            if stopped or self.enough:
                self._post(first, rows)
                self.dealer.close()
                return stopped
        return False

    def _post(self, first, rows):
        """Let the root have some rows."""
        if not rows:
            return
        if self.comm.rank == 0:
            self.sums.add(first, np.array(rows))
            return
        letter = np.concatenate([[first], *rows])
        self.letters.append((self.comm.Isend(letter, 0, ROWS), letter))
        self._posted()

    def _posted(self, all_of_them=False):
        """Let go of messages that have left."""
        while self.letters and (all_of_them or self.letters[0][0].Test()):
            self.letters.pop(0)[0].Wait()

    def _collect(self, watch, asked):
        """What the root does between two blocks; returns whether somebody was asked to stop."""
        from mpi4py import MPI

        status, stopped = MPI.Status(), False
        self.dealer.serve()
        while self.comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            if status.tag == END:
                stopped = self.comm.recv(None, status.source, END) or stopped
                self.open -= 1
                continue
            letter = np.empty(status.Get_count(MPI.DOUBLE))
            self.comm.Recv(letter, status.source, ROWS)
            self.sums.add(int(letter[0]), letter[1:].reshape(-1, self.estimator.width))
        self._ripe(watch)
        stopped = stopped or asked()
        if not self.dealer.closed and (stopped or watch(self.sums, False)):
            self.dealer.close(keep=not stopped)
        return stopped

    def _ripe(self, watch):
        """Add up what is here, as far as it goes, unless there is enough."""
        if self.enough:
            return
        for number in self.sums.checks():
            if watch(self.sums, True) or number == self.sums.last:
                self.enough = True
                self.dealer.close()
                break

"""What every training program shares: samples, steps, tests, and what a run writes of them.

A program is a subclass of ``Training`` with ``name``, ``Case`` (a subclass of ``keys.Case``) and ``sizes()``, the
further arguments of the function of ``nets`` that has its name; and ``program.main(Program)`` under
``if __name__ == "__main__"``, where ``program`` is brmpi's.
"""

import time

import numpy as np

from brmpi import partition
from brmpi.errors import BadInput
from brmpi.results import folder, pieces
from brmpi.results.diagnostics import Column
from brmpi.results.snapshots import Mesh
from brmpi.train import batches, buckets, cost, data, layers, nets, optimizers, restart, wires
from brmpi.train.allreduce import GradientAllreduce
from brmpi.train.local import Outer
from brmpi.train.model import TILE, Model
from brmpi.train.pace import Pace

FIRST = 4096  # samples that the first row's loss is of
GRAIN = 2.0**32  # losses are added up in integers of this part
MOST = 2**31  # the largest loss of some samples that is told from others
LARGE = 1e300  # a loss that any is better than
MISTAKES = 60  # that are kept
CHUNK = 32  # samples that are computed together where sums are not fixed
TRIAL = 0.05  # seconds of micro-batches that tell how fast a rank is


class Training:
    """A classifier in training.

    Parameters
    ----------
    case : keys.Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    room = "train"
    shortcuts = ("comm",)
    time_unit = "epochs"
    cure = "a smaller rate may help"
    chunk = CHUNK

    def __init__(self, case, comm, timers, backend):
        self.comm, self.timers, self.backend = comm, timers, backend
        self.samples = data.load(comm, case.data, case.inputs, case.labels, case.memory)
        self.training, self.testing = data.split(self.samples.labels, case.test, case.split_seed)
        kept, aside = data.split(self.samples.labels[self.training], case.validation, case.split_seed, "validation")
        self.training, self.validating = self.training[kept], self.training[aside]
        if not len(self.training):
            raise BadInput(f"data = {case.data!r}: has {len(self.samples)} samples, and none is left to train on")
        if case.patience and not len(self.validating):
            raise BadInput(f"validation = {case.validation:g}: leaves none of the {len(self.training)} samples to look "
                           f"at, which patience = {case.patience} needs")
        self._images(case)
        scale = case.scale
        if scale == "auto":
            scale = "whole" if len(self.samples.shape) > 1 else "standard"
        mean, deviation = data.scaling(comm, self.samples, self.training, scale)
        self.order = batches.Order(self.training, case.batch, case.seed)
        self.case = case = case.paced(self.order.steps)
        self.augment = batches.Augment(case.augment, case.reach, case.noise, case.seed)
        self.real = np.dtype(case.precision)
        shape, classes = self.samples.shape, self.samples.classes
        size = getattr(nets, self.name)(shape, len(classes), **self.sizes()).size
        self.w = np.zeros(size, self.real)
        self.model = Model(self.name, shape, classes, self.sizes(), self.w, mean, 1 / deviation)
        self.net, self.parameters = self.model.net, self.model.parameters
        self.w[:] = self.net.initial(case.seed, self.real)
        self.optimizer = optimizers.optimizer(case.optimizer, case.momentum, case.decay)
        rates = self._rates()
        self.compute = min(case.batch, len(self.training)) / rates.sum()
        self.speeds, self.kind = (rates, "samples/s") if case.shares == "speed" else (np.ones(comm.size), "equal")
        self._agree()
        if case.zero and self.method not in ("fixed", "plain"):
            raise BadInput(f"zero = true: gradients must be averaged by fixed or plain, not {self.method}")
        ends = partition.offsets(partition.shares(size, self.speeds))
        self.part = slice(int(ends[comm.rank]), int(ends[comm.rank + 1])) if case.zero else slice(0, size)
        self.parts = ends
        self.state = {name: np.zeros(self.part.stop - self.part.start, self.real) for name in self.optimizer.names}
        self.outer = None
        if self.method == "local":
            self.outer = Outer(comm, self.w, case.outer_rate, case.outer_momentum)
        self.taken, self.tally = 0, np.zeros(4, np.int64)
        self.pace = Pace(comm, self.speeds, (case.shares, case.balance) == ("speed", "measured"))
        self.best, self.waited, self.chosen = LARGE, 0, self.w.copy() if case.patience else None
        self.row, self.spent = {}, np.zeros(3)  # the last row, and seconds of sections up to it
        self.columns = self._columns()

    def sizes(self):
        """Further arguments of the network.

        Returns
        -------
        dict of str to list of int
        """
        return {}

    def _images(self, case):
        """Refuse what only images can be."""
        if {"shift", "flip"} & set(case.augment) and len(self.samples.shape) < 2:
            raise BadInput(f"augment = {list(case.augment)}: samples of {case.data} have shape {self.samples.shape}: "
                           "only images can be moved or turned")

    def _columns(self):
        names = ["step", "time", "loss", "accuracy"]
        for part, places in (("validation", self.validating), ("test", self.testing)):
            names += [f"{part}_loss", f"{part}_accuracy"] if len(places) else []
        return {name: Column() for name in [*names, "rate"]}

    # ---- how gradients are averaged ------------------------------------------------------------------------------

    def _agree(self):
        """The method, by measured latency and bandwidth where it is to be chosen. Collective."""
        case, comm, size = self.case, self.comm, self.net.size
        self.link = cost.measured(comm)
        names = ["fixed", "plain"]
        if not case.zero and case.precision == "float32":
            names += ["float16", "powersgd", "local"]
        names += [case.comm] if case.comm not in ("auto", *names) else []
        thin = wires.Power(comm, self.w, self.net.shapes, self.net.places, case.rank, lambda _, count: np.zeros(count))
        more = {"topk": {"fraction": case.top}, "local": {"every": case.local}, "powersgd": {"sent": thin.words()[0]}}
        messages = len(buckets.edges([place.stop for place in self.net.places[::-1]],
                                     case.bucket or buckets.size(self.link), self.real.itemsize))
        self.costs = {name: cost.predicted(self.link, name, size, self.real.itemsize, messages, comm.size,
                                           **more.get(name, {})) for name in names}
        chosen = case.kept if case.kept in self.costs else cost.choose(self.costs, self.compute)
        self.method = comm.bcast(chosen if case.comm == "auto" else case.comm)
        together, method = comm, self.method
        if method == "local":  # gradients stay where they are
            from mpi4py import MPI

            together, method = MPI.COMM_SELF, "plain"
        self.reduce = GradientAllreduce(together, self.parameters, method, case.bucket, self.link, case.top, case.rank,
                                        case.seed)

    def _rates(self):
        """Samples per second of each rank, by some micro-batches. Collective."""
        places = self.training[:max(1, min(max(self.case.micro, self.chunk), len(self.training)))]
        x, gradients = self.samples.rows(places), nets.views(np.empty_like(self.w), self.net.shapes)
        count, begin = 0, time.perf_counter()
        while True:  # the first one is not counted
            self.net.gradient(self.model.scaled(x), self.samples.labels[places], self.parameters, gradients)
            spent = time.perf_counter() - begin
            if count and spent > TRIAL:
                break
            if not count:
                begin = time.perf_counter()
            count += 1
        return np.array(self.comm.allgather(count * len(places) / spent))

    # ---- a step --------------------------------------------------------------------------------------------------

    def work(self):
        """Numbers of a gradient, for the kernels that add them up."""
        return {"fixedpoint add": self.net.size, "fixedpoint scaled": self.net.size} if self.method == "fixed" else {}

    def warm(self):
        """Compile the kernels. Not collective."""
        if self.method == "fixed":
            from brmpi.kernels import fixedpoint

            few, sums = np.zeros(4, self.real), np.zeros(4, f"i{self.real.itemsize}")
            fixedpoint.add(few, 1.0, 1.0, sums, self.backend)
            fixedpoint.scaled(sums, 1.0, few, self.backend)
        few = {name: np.zeros(4, self.real) for name in ("w", "g", *self.optimizer.names)}
        self.optimizer.update(few["w"], few["g"], few, 0.0, 0)

    def step(self):
        """Take one step. Collective."""
        places, first = self.order.of(self.taken)
        mine, whole = self._mine(places)
        count = sum(piece.stop - piece.start for piece in mine) if self.outer else len(places)
        scale, after = (1.0, 1 / count) if self.reduce.exact else (1 / max(count, 1), 1.0)
        fits, begin = False, self._busy()
        while not fits:
            self.reduce.start(parts=len(mine), whole=whole, scale=after)
            with self.timers("gradient"):
                tally = self._gradient(places, first, mine, scale)
            with self.timers("communication"):
                fits = self.reduce.finish()
        if count:
            with self.timers("update"):
                self._update()
        with self.timers("communication"):
            self._meet(count)
        self.tally += tally
        self.taken += 1
        self.speeds = self.pace(int(tally[3]), self._busy() - begin)
        if self.case.patience and self.taken % self.order.steps == 0:
            self._consider()

    def _busy(self):
        """Seconds of this rank's own work, whatever its samples were: shares are to end at the same time."""
        return self.timers.seconds.get("gradient", 0.0) + self.timers.seconds.get("update", 0.0)

    def _mine(self, places):
        """This rank's part of a step's samples, as slices of what is computed together; and how many all have."""
        if self.method == "fixed":
            every = batches.tiles(len(places), self.case.micro)
            ends = self._ends(len(every))
            return every[ends[0]:ends[1]], len(every)
        first, last = self._ends(len(places))
        return [slice(i, min(i + self.chunk, last)) for i in range(first, last, self.chunk)], 0

    def _ends(self, count):
        """Where this rank's share of some things begins and ends, by speed."""
        ends = partition.offsets(partition.shares(count, self.speeds))
        return int(ends[self.comm.rank]), int(ends[self.comm.rank + 1])

    def _gradient(self, places, first, mine, scale):
        """Gradients of this rank's pieces, one after the other; returns what was seen of them."""
        tally = np.zeros(4, np.int64)
        for piece in mine:
            some, start = places[piece], first + piece.start
            x = self.augment.raw(self.samples.rows(some), start)
            x = self.augment.scaled(self.model.scaled(x), start)
            losses, right = self.net.gradient(x, self.samples.labels[some], self.parameters, self.reduce.gradients,
                                              scale, self._ready)
            tally += (*_grains(losses), right, len(some))
        return tally

    def _ready(self, number):
        """Hand a gradient on, which may send it."""
        with self.timers("communication"):
            self.reduce.ready(number)

    def _update(self):
        """Let this rank's part of the parameters follow the gradient."""
        case = self.case
        rate = optimizers.rate(case.schedule, case.rate, (self.taken + 0.5) * case.dt, case.epochs, case.warmup)
        self.optimizer.update(self.w[self.part], self.reduce.flat[self.part], self.state, rate, self.taken)

    def _meet(self, count):
        """Parameters of all ranks, where each has only its own so far."""
        if self.case.zero and self.comm.size > 1:
            from mpi4py import MPI

            kind = MPI.FLOAT if self.real.itemsize == 4 else MPI.DOUBLE
            self.comm.Allgatherv(MPI.IN_PLACE, [self.w, np.diff(self.parts), kind])
        if self.outer:
            self.outer.took(count)
            if (self.taken + 1) % self.case.local == 0 or self.taken + 1 == self.case.steps:
                self.outer.meet(self.w)

    def close(self):
        """After the last step: take what is still under way. Collective."""
        self.pace.close()

    # ---- early stopping ------------------------------------------------------------------------------------------

    def _consider(self):
        """After an epoch: keep the best parameters so far, and end where they have not got better for long."""
        if self.outer:
            self.outer.meet(self.w)
        loss, _ = self.evaluate(self.validating)
        if loss < self.best:
            self.best, self.waited = loss, 0
            self.chosen[:] = self.w
        else:
            self.waited += 1
        if self.waited >= self.case.patience:
            self.case.take(self.taken, self.case.dt)
        if self.taken == self.case.steps:
            self.w[:] = self.chosen
            if self.outer:
                self.outer.whole[:] = self.chosen

    # ---- output --------------------------------------------------------------------------------------------------

    def evaluate(self, places, answers=None):
        """Mean loss and accuracy on some samples. Collective.

        Parameters
        ----------
        places : (n,) int array, n > 0
        answers : (n,) int array, filled with the class that each is taken for, or None

        Returns
        -------
        loss, accuracy : float, the same bits on any number of ranks; of local, where ranks met last
        """
        if self.outer and not np.array_equal(self.w, self.outer.whole):
            return self._apart(places, answers)
        with self.timers("test"):
            every = batches.tiles(len(places), TILE)
            first, last = self._ends(len(every))
            found = np.zeros(3 + (0 if answers is None else len(places)), np.int64)
            for tile in every[first:last]:
                some = places[tile]
                logits, labels = self.model.logits(self.samples.rows(some)), self.samples.labels[some]
                losses, _ = layers.cross_entropy(logits, labels)
                taken = logits.argmax(axis=1)
                found[:3] += (*_grains(losses), np.count_nonzero(taken == labels))
                if answers is not None:
                    found[3:][tile] = taken
            total = self.total(found)
            if answers is not None:
                answers[:] = total[3:]
        return _loss(*total[:2]) / len(places), float(total[2] / len(places))

    def _apart(self, places, answers):
        """``evaluate`` of the parameters that the ranks met at, while each is on its own way."""
        own = self.w.copy()
        self.w[:] = self.outer.whole
        try:
            return self.evaluate(places, answers)
        finally:
            self.w[:] = own

    def total(self, values):
        """The sum over all ranks. Collective.

        Parameters
        ----------
        values : array

        Returns
        -------
        array of the same shape
        """
        total = np.empty_like(values)
        self.comm.Allreduce(values, total)
        return total

    def sample(self):
        """Loss and accuracy: of the steps since the last row, and on samples that are not trained on. Collective."""
        high, low, right, count = self.total(self.tally)
        self.tally[:] = 0
        if count:
            row = {"loss": _loss(high, low) / int(count), "accuracy": float(right / count)}
        else:
            row = dict(zip(("loss", "accuracy"), self.evaluate(self.training[:FIRST])))
        for part, places in (("validation", self.validating), ("test", self.testing)):
            if len(places):
                row |= dict(zip((f"{part}_loss", f"{part}_accuracy"), self.evaluate(places)))
        case = self.case
        row["rate"] = optimizers.rate(case.schedule, case.rate, self.taken * case.dt, case.epochs, case.warmup)
        self.row = row
        spent = [self.timers.seconds.get(section, 0.0) for section in ("gradient", "update", "communication")]
        self.spent = self.total(np.array(spent)) / self.comm.size
        return row

    def fields(self):
        """Which classes are taken for which, and samples that were mistaken, for a snapshot. Collective."""
        if not len(self.testing):
            return {}
        answers = np.empty(len(self.testing), np.int64)
        self.evaluate(self.testing, answers)
        labels, classes = self.samples.labels[self.testing], len(self.samples.classes)
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (labels, answers), 1)
        self.table = table
        meshes = [self._mesh("confusion", table, ("label", "answer"))]
        wrong = np.flatnonzero(answers != labels)[:MISTAKES]
        if len(wrong):
            pictures = self.samples.rows(self.testing[wrong]).astype(np.float64)
            if pictures.ndim == 4:
                pictures = pictures.mean(axis=3)
            elif pictures.ndim > 4:
                pictures = pictures.reshape(len(pictures), -1)
            axes = ("sample", "y", "x") if pictures.ndim == 3 else ("sample", "input")
            told = np.stack([self.testing[wrong], labels[wrong], answers[wrong]], axis=1)
            meshes += [self._mesh("mistakes", pictures, axes), self._mesh("mistaken", told, ("sample", "told"))]
        return {"meshes": meshes}

    def _mesh(self, name, values, axes):
        """An array that all ranks have, as one that the root writes."""
        few = values if self.comm.rank == 0 else values[:0]
        piece = pieces.rows(few, 0 if self.comm.rank == 0 else len(values), len(values))
        return Mesh(name, piece, axes, (1.0,) * len(axes), (0.0,) * len(axes))

    def deposit(self, path):
        """Write the network by itself into the run's folder. Root only.

        Parameters
        ----------
        path : Path
        """
        w = self.outer.whole if self.outer else self.w
        model = self.model
        kept = Model(model.kind, model.shape, model.classes, model.sizes, w, model.mean, model.factor)
        kept.save(path / folder.MODEL)

    def about(self):
        """What run.json says of the shares, of the samples and of the communication."""
        return {"speeds": {"kind": self.kind, "values": self.speeds}, "units": {"time": "epochs"},
                "classes": self.samples.classes, "parameters": self.net.size,
                "samples": {"training": len(self.training), "validation": len(self.validating),
                            "test": len(self.testing)},
                "communication": {"method": self.method, "buckets": len(self.reduce.buckets),
                                  "latency": self.link.latency, "bandwidth": self.link.bandwidth,
                                  "predicted": self.costs, "computing": self.compute}}

    def told(self, steps):
        """Lines for people at the end.

        Parameters
        ----------
        steps : int, taken in this run

        Returns
        -------
        list of str
        """
        row, lines = self.row, []
        told = [f"{part.replace('_', ' ')} {row[f'{part}accuracy']:.2%} right, loss {row[f'{part}loss']:.4f}"
                for part in ("", "validation_", "test_") if f"{part}accuracy" in row]
        if told:
            lines.append("; ".join(["training" + told[0], *told[1:]]))
        if steps and self.comm.size > 1:
            gradient, update, communication = self.spent / steps
            others = ", ".join(f"{name} {1e3 * seconds:.2g}" for name, seconds in self.costs.items()
                               if name != self.method)
            lines.append(
                f"communication: {self.method}{' (auto)' if self.case.comm == 'auto' else ''}, "
                f"{len(self.reduce.buckets)} bucket{'s' * (len(self.reduce.buckets) > 1)}; predicted "
                f"{1e3 * self.costs[self.method]:.2g} ms a step, took {1e3 * communication:.2g} ms with waiting; "
                f"predicted others: {others} ms")
            lines.append(f"computing {1e3 * (gradient + update):.3g} ms a step (predicted {1e3 * self.compute:.3g}); "
                         f"efficiency {(gradient + update) / (gradient + update + communication):.0%}")
        return lines

    def rate(self, steps, seconds):
        """The figure of merit.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time

        Returns
        -------
        str
        """
        count = self.order.samples(self.taken) - self.order.samples(self.taken - steps)
        return f"{count / seconds:.3g} samples/s"

    # ---- restart -------------------------------------------------------------------------------------------------

    def arrays(self):
        """All that a restart needs. Collective."""
        return restart.arrays(self)

    def block(self, name, shape):
        """Which part of a state array this rank wants.

        Parameters
        ----------
        name : str
        shape : tuple of int

        Returns
        -------
        (offset, shape)
        """
        return restart.block(self, name, shape)

    def restore(self, arrays):
        """Take over a state, also one of another number of ranks.

        Parameters
        ----------
        arrays : dict of str to array, as ``block`` says
        """
        restart.restore(self, arrays)


def _grains(losses):
    """The sum of some losses, in whole numbers and grains; what is not finite is told as something very large."""
    total = float(losses.sum())
    return divmod(round(total * GRAIN), int(GRAIN)) if abs(total) < MOST else (MOST, 0)


def _loss(high, low):
    """Sums of ``_grains`` as a number."""
    return float(int(high) + int(low) / GRAIN)

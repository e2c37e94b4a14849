"""The keys of a training case."""

import dataclasses
from dataclasses import dataclass

from brmpi.case import key
from brmpi.train.allreduce import METHODS
from brmpi.train.batches import AUGMENTATIONS
from brmpi.train.data import SCALES
from brmpi.train.optimizers import OPTIMIZERS, SCHEDULES


@dataclass(frozen=True)
class Case:
    """What all training programs can be told."""

    data: str = key("digits", "digits, breast-cancer, wine, or an HDF5 or npz file")
    inputs: str = key("x", "dataset of inputs in the file, (samples, ...)")
    labels: str = key("y", "dataset of labels in the file, (samples,)")
    memory: float = key(256.0, "largest set that every rank keeps in memory; a larger one is read by rows", "MB",
                        above=0, free=True)
    test: float = key(0.2, "part of the samples that is never trained on, as many of each class", at_least=0,
                      at_most=0.9)
    validation: float = key(0.0, "part of the rest that decides when to stop early", at_least=0, at_most=0.9)
    split: int = key(-1, "seed of that choice; -1: seed", at_least=-1, at_most=2**63)
    scale: str = key("auto", "inputs to mean 0 and deviation 1: each number by itself (standard), all together "
                     "(whole); auto is whole for images", choices=("auto", *SCALES))
    augment: tuple[str, ...] = key((), "changes of inputs, drawn anew in each epoch", choices=AUGMENTATIONS)
    reach: int = key(1, "of shift", "pixels", at_least=1, at_most=64)
    noise: float = key(0.1, "deviation of noise", at_least=0)
    epochs: int = key(20, "times that every sample is taken", at_least=0, at_most=10**7, free=True)
    batch: int = key(64, "samples of a step, on all ranks together", at_least=1, at_most=2**31)
    micro: int = key(8, "samples of a micro-batch, which one rank computes: fixed sums are over those", at_least=1)
    optimizer: str = key("adam", "how parameters follow gradients", choices=OPTIMIZERS)
    rate: float = key(1e-3, "learning rate", above=0)
    momentum: float = key(0.9, "of sgd and nesterov", at_least=0, at_most=0.9999)
    decay: float = key(0.0, "weight decay", at_least=0)
    schedule: str = key("cosine", "of the learning rate over the epochs", choices=SCHEDULES)
    warmup: float = key(0.0, "in which the rate rises from 0", "epochs", at_least=0)
    patience: int = key(0, "epochs without a better validation loss after which to stop; 0: none", at_least=0)
    precision: str = key("float32", "of parameters and gradients", choices=("float32", "float64"))
    comm: str = key("fixed", "how gradients are averaged: fixed has the same bits on any number of ranks; auto chooses "
                    "by measured latency and bandwidth", choices=("auto", *METHODS))
    bucket: int = key(0, "of gradients that are sent at once; 0: by latency and bandwidth", "bytes", at_least=0)
    zero: bool = key(False, "each rank keeps and updates its part of the optimizer's state (ZeRO-1)")
    top: float = key(0.01, "part of the numbers that topk sends", above=0, at_most=1)
    rank: int = key(4, "of powersgd's matrices", at_least=1, at_most=4096)
    local: int = key(32, "steps between two meetings of local", at_least=1)
    outer_rate: float = key(0.8, "of local's meetings", above=0)
    outer_momentum: float = key(0.5, "of local's meetings", at_least=0, at_most=0.9999)
    every: int = key(0, "steps between snapshots; 0: only the first and the last state", at_least=0)
    sample: int = key(0, "steps between rows of diagnostics; 0: one each epoch", at_least=0, free=True)
    checkpoint: float = key(60.0, "running time between checkpoints", "s", at_least=0, free=True)
    seed: int = key(1, "seed of all random numbers", at_least=0, at_most=2**63)
    shares: str = key("speed", "samples of each rank by measured speed, or equal", choices=("speed", "equal"),
                      free=True)
    balance: str = key("measured", "shares anew where ranks' times differ, or static", choices=("measured", "static"),
                       free=True)
    io: str = key("root", "files are written by the root, or by all ranks", choices=("root", "mpio"), free=True)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if self.test + self.validation > 0.9:
            return f"validation = {self.validation:g}: with test = {self.test:g} leaves less than a tenth to train on"
        if self.patience and not self.validation:
            return f"patience = {self.patience}: needs validation > 0, a part of the samples to look at"
        if self.zero and self.comm not in ("fixed", "plain", "auto"):
            return f"zero = true: gradients must be averaged by fixed or plain, not {self.comm}"
        if self.comm in ("float16", "bfloat16", "topk", "powersgd") and self.precision == "float64":
            return f"comm = {self.comm}: sends fewer bits than precision = float64 has"
        return None

    kept = None  # the method that a run had chosen before its restart

    def resumed(self, about):
        """The same keys, for going on with a run.

        Parameters
        ----------
        about : dict, the run's run.json

        Returns
        -------
        Case, which keeps the way of communication that was chosen then
        """
        object.__setattr__(self, "kept", (about.get("communication") or {}).get("method"))
        return self

    def paced(self, steps):
        """The same keys, and how long the run is in steps.

        Parameters
        ----------
        steps : int, of an epoch

        Returns
        -------
        Case, with ``steps`` of the whole run and ``dt``, epochs a step
        """
        made = dataclasses.replace(self, sample=self.sample or steps)
        made.take(self.epochs * steps, 1 / steps)
        object.__setattr__(made, "kept", self.kept)
        return made

    def take(self, steps, dt):
        """Set the length of a run: no keys, as they follow from the number of samples.

        Parameters
        ----------
        steps : int, of the whole run
        dt : float, epochs a step
        """
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "dt", dt)

    @property
    def split_seed(self):
        """Seed of the choice of samples for tests."""
        return self.seed if self.split < 0 else self.split

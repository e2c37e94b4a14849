"""What of a training is kept for a restart, and how another number of ranks takes it over."""

import numpy as np

from brmpi.errors import BadInput
from brmpi.results import pieces


def arrays(training):
    """All that a restart needs. Collective.

    Parameters
    ----------
    training : program.Training

    Returns
    -------
    dict of str to pieces.Piece: what all ranks have alike, of the root; ``own …``, a row of each rank
    """
    total = training.total(training.tally)
    training.tally[:] = total if training.comm.rank == 0 else 0
    root = training.comm.rank == 0
    every = {"w": training.outer.whole if training.outer else training.w, "tally": total,
             "progress": np.array([training.taken, training.waited, training.best])}
    shared, own = training.reduce.state()
    every |= {f"reduce {name}": values for name, values in shared.items()}
    if training.chosen is not None:
        every["chosen"] = training.chosen
    if training.outer:
        every["outer velocity"] = training.outer.velocity
        own = {"w": training.w, "samples": np.array([training.outer.samples]), **training.state}
    found = {name: pieces.rows(values if root else values[:0], 0 if root else len(values), len(values))
             for name, values in every.items()}
    if not training.outer:
        for name, values in training.state.items():
            mine = values if training.case.zero or root else values[:0]
            found[name] = pieces.rows(mine, training.part.start if training.case.zero or root else training.net.size,
                                      training.net.size)
    for name, values in own.items():
        found[f"own {name}"] = pieces.rows(values[None], training.comm.rank, training.comm.size)
    return found


def block(training, name, shape):
    """Which part of a state array this rank wants: all of what is the same everywhere, its own of the rest.

    Parameters
    ----------
    training : program.Training
    name : str
    shape : tuple of int

    Returns
    -------
    (offset, shape)

    Raises
    ------
    BadInput : a state of another network; on every rank alike
    """
    if name == "w" and shape != training.w.shape:
        raise BadInput(f"data = {training.case.data!r}: the network has {training.net.size} parameters with it, and "
                       f"the checkpoint {shape[0]}: the samples are not those that the run began with")
    if name.startswith("own "):
        training.rows = shape[0]
    if name.startswith("own ") and shape[0] == training.comm.size:
        return (training.comm.rank, *(0,) * (len(shape) - 1)), (1, *shape[1:])
    if name in training.state and training.case.zero:
        return (training.part.start,), (training.part.stop - training.part.start,)
    return (0,) * len(shape), shape


def restore(training, arrays):
    """Take over a state, also one of another number of ranks.

    Parameters
    ----------
    training : program.Training
    arrays : dict of str to array, as ``block`` says
    """
    training.w[:] = arrays["w"]
    training.tally[:] = arrays["tally"] if training.comm.rank == 0 else 0
    taken, waited, training.best = arrays["progress"]
    training.taken, training.waited = int(taken), int(waited)
    shared, own = training.reduce.state()
    for name, values in shared.items():
        if f"reduce {name}" in arrays:
            values[:] = arrays[f"reduce {name}"]
    if training.chosen is not None and "chosen" in arrays:
        training.chosen[:] = arrays["chosen"]
    for name, values in training.state.items():
        if name in arrays:
            values[:] = arrays[name]
    for name, values in own.items():  # what is left to be sent: its sum over ranks matters
        if f"own {name}" in arrays:
            rows = arrays[f"own {name}"]
            values[:] = rows[0] if training.rows == training.comm.size else rows.sum(axis=0) / training.comm.size
    if training.outer and "outer velocity" in arrays:
        training.outer.whole[:], training.outer.velocity[:] = arrays["w"], arrays["outer velocity"]
        rows = {name: arrays[f"own {name}"] for name in ("w", "samples", *training.state)}
        training.w[:] = rows["w"].mean(axis=0)  # one row, or those of other ranks
        training.outer.samples = float(rows["samples"].mean())
        for name in training.state:
            training.state[name][:] = rows[name].mean(axis=0)
    if training.case.patience and training.waited >= training.case.patience:
        training.case.take(training.taken, training.case.dt)

"""Classify the samples of a file with a trained network, on all ranks.

    mpirun -hostfile hostfiles/all python -m brmpi.train.predict results/mlp-digits digits
"""

import sys
import time
from pathlib import Path

import numpy as np

from brmpi import mpi, partition, speeds
from brmpi.arguments import Parser
from brmpi.errors import BadInput
from brmpi.results import disk, pieces
from brmpi.train import data, model
from brmpi.train.model import TILE

FORMAT = "brmpi predictions 1"


def parsed(argv=None):
    """The command line.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    namespace

    Raises
    ------
    BadInput : a word that cannot be
    """
    parser = Parser(prog="python -m brmpi.train.predict", description=__doc__.partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="folder of a training run, or its model.h5")
    parser.add_argument("data", metavar="DATA", help="HDF5 or npz file, or digits, breast-cancer, wine")
    parser.add_argument("--inputs", default="x", metavar="NAME", help="dataset of inputs in it (default x)")
    parser.add_argument("--labels", default="y", metavar="NAME",
                        help="dataset of labels, if there is one: how many are right is told then (default y)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="HDF5 file for answers and probabilities")
    parser.add_argument("--memory", type=float, default=256.0, metavar="MB",
                        help="largest set that is sent round; a larger HDF5 file is read by each rank (default 256)")
    parser.add_argument("--overwrite", action="store_true", help="let --out replace a file")
    found = parser.parse_args(argv)
    if not found.memory > 0:
        raise BadInput(f"--memory {found.memory:g}: must be > 0")
    return found


def _begun(options):
    """The network, if there is a place for the answers. Root only, which writes them."""
    out = options.out
    if out and out.exists() and not options.overwrite:
        raise BadInput(f"--out {out}: is there already: name another file, or add --overwrite")
    if out and not out.absolute().parent.is_dir():
        raise BadInput(f"--out {out}: {out.absolute().parent} is no folder")
    return model.load(options.run)


def known(classes, samples):
    """Labels as numbers of the network's classes.

    Parameters
    ----------
    classes : list of str, of the network
    samples : data.Samples

    Returns
    -------
    (n,) int64, -1 for classes that the network does not know; None without labels
    """
    if samples.labels is None:
        return None
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers.get(name, -1) for name in samples.classes], np.int64)[samples.labels]


def run(comm, argv=None):
    """Classify, say how it went, and write what is asked for. Collective.

    Parameters
    ----------
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : no such run or file, or samples of another shape; on every rank alike
    Fault : the disk is full
    """
    options = parsed(argv)
    net = mpi.on_root(comm, _begun, options)
    samples = data.load(comm, options.data, options.inputs, options.labels, options.memory, labelled=False)
    if samples.shape != net.shape and int(np.prod(samples.shape)) != int(np.prod(net.shape)):
        raise BadInput(f"{samples.source}: samples have shape {samples.shape}: the network of {options.run} takes "
                       f"{net.shape}")
    tiles = -(-len(samples) // TILE)
    ends = partition.offsets(partition.shares(tiles, speeds.speeds(comm, "compute"))) * TILE
    first, last = (min(int(end), len(samples)) for end in ends[comm.rank:comm.rank + 2])
    comm.Barrier()
    begin = time.perf_counter()
    found = [net.probabilities(samples.rows(np.arange(i, min(i + TILE, last))).reshape(-1, *net.shape))
             for i in range(first, last, TILE)]
    mine = np.concatenate(found) if found else np.empty((0, len(net.classes)), net.w.dtype)
    comm.Barrier()
    seconds = time.perf_counter() - begin
    answers, labels = mine.argmax(axis=1), known(net.classes, samples)
    right = comm.allreduce(0 if labels is None else int(np.count_nonzero(answers == labels[first:last])))
    broken = comm.allreduce(int(np.count_nonzero(~np.isfinite(mine).all(axis=1))))
    if broken:
        raise BadInput(f"{samples.source}: {broken} samples hold numbers that are not finite, or too large")
    if options.out:
        _write(comm, options.out, net, answers, mine, first, len(samples))
    if comm.rank == 0:
        told = f"; {right} right ({right / len(samples):.2%})" if labels is not None else ""
        mpi.say(f"predict: {len(samples)} samples in {seconds:.3g} s on {comm.size} rank{'s' * (comm.size > 1)}, "
                f"{len(samples) / seconds:.3g} samples/s{told}"
                + (f"\nanswers and probabilities: {options.out}" if options.out else ""))
    return 0


def _write(comm, path, net, answers, probabilities, first, total):
    """The file of answers, in the order of samples."""
    found = {"answer": pieces.rows(answers.astype(np.int64), first, total),
             "probability": pieces.rows(probabilities, first, total)}
    mpi.on_root(comm, disk.demand, path, total * (8 + probabilities.itemsize * len(net.classes)))
    pieces.write(comm, path, found, {"/": {"format": FORMAT, "classes": net.classes}})


if __name__ == "__main__":
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        parsed()
    mpi.run(run)

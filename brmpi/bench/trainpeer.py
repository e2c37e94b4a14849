"""One rank of what ``bench.train`` times: sums of gradients and training steps, brmpi's and those of PyTorch.

    allreduce SIZE…      seconds of GradientAllreduce, as the C program prints them
    gloo SIZE…           the same of torch.distributed's gloo
    mlp METHOD           samples/s of brmpi's own perceptron
    adapter, ddp         samples/s of PyTorch's perceptron under brmpi.train.ddp, or under PyTorch's wrapper with gloo
"""

import os
import statistics
import sys
import time

import numpy as np

BATCH, WIDTH, HIDDEN, CLASSES = 256, 64, 512, 10  # of a rank
BATCHES, STEPS, ROUNDS = 20, 50, 5


def mpi_world():
    """Communicator, rank, number of ranks, barrier."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    return comm, comm.rank, comm.size, comm.Barrier


def gloo_world():
    """As ``mpi_world``, by torch.distributed with gloo."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return dist, dist.get_rank(), dist.get_world_size(), dist.barrier


def timed(call, calls, barrier, slowest):
    """The median over calls of the slowest rank's seconds.

    Parameters
    ----------
    call, calls, barrier, slowest : as there
    """
    times = []
    for number in range(-3, calls):
        barrier()
        begin = time.perf_counter()
        call()
        spent = slowest(time.perf_counter() - begin)
        if number >= 0:
            times.append(spent)
    return statistics.median(times)


def sums(sizes):
    """Sums of one gradient of each size by ``GradientAllreduce``.

    Parameters
    ----------
    sizes : as there
    """
    from mpi4py import MPI

    from brmpi.train.allreduce import GradientAllreduce

    comm, rank, _, barrier = mpi_world()
    for size in sizes:
        reduce = GradientAllreduce(comm, [np.zeros(size, np.float32)])

        def _sum(reduce=reduce):
            reduce.start()
            reduce.ready(0)
            reduce.finish()

        spent = timed(_sum, 200 if size < 10**6 else 30, barrier, lambda mine: comm.allreduce(mine, MPI.MAX))
        reduce.free()
        if rank == 0:
            print(size, f"{spent:.9f}", flush=True)


def gloo(sizes):
    """The same by gloo.

    Parameters
    ----------
    sizes : as there
    """
    import torch

    dist, rank, _, barrier = gloo_world()

    def _slowest(mine):
        told = torch.tensor(mine, dtype=torch.float64)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return float(told)

    for size in sizes:
        values = torch.zeros(size)
        spent = timed(lambda values=values: dist.all_reduce(values), 100 if size < 10**6 else 15, barrier, _slowest)
        if rank == 0:
            print(size, f"{spent:.9f}", flush=True)


def rate(step, size, barrier):
    """Samples per second of all ranks, the median of some rounds.

    Parameters
    ----------
    step, size, barrier : as there
    """
    for i in range(BATCHES):
        step(i)
    found = []
    for _ in range(ROUNDS):
        barrier()
        begin = time.perf_counter()
        for i in range(STEPS):
            step(i)
        barrier()
        found.append(BATCH * size * STEPS / (time.perf_counter() - begin))
    return statistics.median(found)


def mlp(method):
    """brmpi's own perceptron, on random samples.

    Parameters
    ----------
    method : as there
    """
    import tempfile
    from pathlib import Path

    from brmpi import case, mpi
    from brmpi.train import mlp

    comm, rank, size, barrier = mpi_world()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.npz"
        if rank == 0:
            rng = np.random.default_rng(0)
            count = BATCH * size * BATCHES
            np.savez(file, x=rng.standard_normal((count, WIDTH), np.float32), y=rng.integers(0, CLASSES, count))
        keys = {"data": comm.bcast(str(file)), "test": 0.0, "hidden": f"[{HIDDEN}, {HIDDEN}]", "batch": BATCH * size,
                "optimizer": "sgd", "comm": method, "micro": 64}
        told = case.load(mlp.Case, None, [(key, str(value)) for key, value in keys.items()])
        made = mlp.Mlp(told, comm, mpi.Timers(), "auto")
        barrier()
    return rate(lambda i: made.step(), size, barrier), rank


def perceptron(wrap, size):
    """PyTorch's perceptron under a wrapper: a step of SGD.

    Parameters
    ----------
    wrap, size : as there
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = torch.nn.Linear(WIDTH, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU()
    model = wrap(torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN, CLASSES)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.randn(BATCH * BATCHES, WIDTH), torch.randint(0, CLASSES, (BATCH * BATCHES,))
    loss = torch.nn.CrossEntropyLoss()

    def _step(i):
        part = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
        optimizer.zero_grad()
        loss(model(x[part]), y[part]).backward()
        optimizer.step()

    return _step


def adapter():
    """PyTorch's perceptron under brmpi's wrapper."""
    from brmpi.train.ddp import DistributedDataParallel

    _, rank, size, barrier = mpi_world()
    return rate(perceptron(DistributedDataParallel, size), size, barrier), rank


def ddp():
    """PyTorch's perceptron under PyTorch's wrapper."""
    import torch

    _, rank, size, barrier = gloo_world()
    return rate(perceptron(torch.nn.parallel.DistributedDataParallel, size), size, barrier), rank


def main(words):
    """Be one rank.

    Parameters
    ----------
    words : list of str
    """
    what, *rest = words
    if "RANK" in os.environ:  # as mpirun does for others
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["RANK"])]})
    if what in ("allreduce", "gloo"):
        (sums if what == "allreduce" else gloo)(list(map(int, rest)))
    else:
        found, rank = {"mlp": mlp, "adapter": adapter, "ddp": ddp}[what](*rest)
        if rank == 0:
            print(f"{found:.1f}", flush=True)
    if what in ("gloo", "ddp"):
        os._exit(0)  # gloo's threads would end the process in disorder


if __name__ == "__main__":
    main(sys.argv[1:])

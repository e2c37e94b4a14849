"""PyTorch models trained on all ranks: wrap the model, train as before.

    model = brmpi.train.ddp.DistributedDataParallel(model)
    for x, y in batches:                      # this rank's samples, as many as it is fast
        optimizer.zero_grad()
        loss(model(x), y).backward()          # gradients are averaged over all samples of all ranks when this returns
        optimizer.step()

Under mpirun, without a process group. Where PyTorch's own wrapper takes the mean of the ranks' means, this one takes
the mean over samples: ranks may have batches of different sizes.
"""

import functools

import numpy as np

from brmpi.train.allreduce import GradientAllreduce

try:
    import torch
except ImportError as error:
    raise ImportError("brmpi.train.ddp needs PyTorch >= 2.1: pip install brmpi[torch]") from error


class DistributedDataParallel(torch.nn.Module):
    """A model whose gradients are averaged over all ranks while its backward pass goes on. Collective to make.

    Parameters and buffers begin as those of rank 0. Gradients live in one flat vector: after ``zero_grad`` with
    ``set_to_none=False`` they are computed there, else they are copied to it once.

    Parameters
    ----------
    module : torch.nn.Module on the CPU, its trained parameters all float32 or all float64
    comm : communicator; all ranks, if None
    samples : int, of this rank's batches; the length of the first tensor that ``forward`` is given, if None
    **options : further ones of ``GradientAllreduce``: method, bucket, link, fraction, rank, seed

    Attributes
    ----------
    reduce : GradientAllreduce

    Raises
    ------
    ValueError : parameters that are not on the CPU, or of several types
    """

    def __init__(self, module, comm=None, samples=None, **options):
        super().__init__()
        if comm is None:
            from mpi4py import MPI

            comm = MPI.COMM_WORLD
        self.module, self.comm, self.samples = module, comm, samples
        self.trained = [one for one in module.parameters() if one.requires_grad]
        if any(one.device.type != "cpu" for one in self.trained):
            raise ValueError("parameters must be on the CPU")
        with torch.no_grad():
            for one in [*module.parameters(), *module.buffers()]:
                told = np.ascontiguousarray(one.detach().numpy())
                comm.Bcast(told.reshape(-1).view(np.uint8), 0)
                one.copy_(torch.from_numpy(told).reshape(one.shape))
        self.reduce = GradientAllreduce(comm, [one.detach().numpy() for one in self.trained], **options)
        self.views = [torch.from_numpy(view) for view in self.reduce.gradients]
        self.averages, self.under_way, self.count = True, False, 0
        for number, one in enumerate(self.trained):
            one.register_post_accumulate_grad_hook(functools.partial(self._ready, number))

    def forward(self, *inputs, **named):
        """As the model's own.

        Parameters
        ----------
        *inputs, **named : what the model takes
        """
        if self.averages and torch.is_grad_enabled():
            first = next((one for one in [*inputs, *named.values()] if isinstance(one, torch.Tensor)), None)
            self.count = self.samples if self.samples is not None else len(first)
        return self.module(*inputs, **named)

    def no_sync(self):
        """A with-block whose backward passes only add up this rank's gradients.

        Returns
        -------
        context manager
        """
        return _Alone(self)

    def idle(self):
        """Take part in a step without samples, as where this rank has come to the end of its own. Collective."""
        self.reduce.start(0)
        self._finish()

    def _ready(self, number, parameter):
        """After a parameter's gradient is there: hand it on; at the first one of a backward pass begin."""
        if not self.averages:
            return
        if not self.under_way:
            self.under_way, self.seen = True, set()
            self.reduce.start(self.count)
            torch.autograd.Variable._execution_engine.queue_callback(self._end)
        if self.count:
            self._hand_on(number)

    def _hand_on(self, number):
        parameter, view = self.trained[number], self.views[number]
        self.seen.add(number)
        if parameter.grad is None:
            view.zero_()
        elif parameter.grad.data_ptr() != view.data_ptr():
            view.copy_(parameter.grad)
            parameter.grad = view
        self.reduce.ready(number)

    def _end(self):
        """At the end of a backward pass: parameters that took no part have gradient 0, and all is averaged."""
        if self.count:
            for number in reversed(range(len(self.trained))):
                if number not in self.seen:
                    self._hand_on(number)
        self._finish()

    def _finish(self):
        if not self.reduce.finish():
            self.reduce.again()
        for parameter, view in zip(self.trained, self.views):
            parameter.grad = view
        self.under_way = False


class _Alone:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.before, self.model.averages = self.model.averages, False

    def __exit__(self, *_):
        self.model.averages = self.before

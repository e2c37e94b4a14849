"""PyTorch models on all ranks: the same training as on one rank, whatever the shares, methods and shapes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.1", reason="PyTorch is not installed: make test-torch installs it")
pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def model(seed=1, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).to(dtype)


def samples(dtype=torch.float32):
    rng = np.random.default_rng(2)
    return torch.tensor(rng.standard_normal((60, 6)), dtype=dtype), torch.tensor(rng.integers(0, 3, 60))


def mine(comm, equal=False):
    """This rank's samples: more for higher ranks."""
    weights = np.ones(comm.size) if equal else np.arange(comm.size) + 1.0
    ends = np.concatenate([[0], np.cumsum(weights / weights.sum() * 60).round().astype(int)])
    return slice(ends[comm.rank], ends[comm.rank + 1])


def step(net, optimizer, x, y, none=True):
    optimizer.zero_grad(set_to_none=none)
    torch.nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()


def apart(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one.parameters(), other.parameters()))


@pytest.mark.parametrize(("method", "dtype", "close"), [
    ("plain", torch.float32, 1e-6), ("plain", torch.float64, 1e-14), ("fixed", torch.float32, 1e-6),
    ("float16", torch.float32, 1e-3), ("bfloat16", torch.float32, 5e-3), ("powersgd", torch.float32, 1e-6)])
def test_training_is_that_of_one_rank(comm, assert_all, method, dtype, close):
    from brmpi.train.ddp import DistributedDataParallel

    whole = model(dtype=dtype)
    wrapped = DistributedDataParallel(model(seed=comm.rank + 1, dtype=dtype), comm, method=method, bucket=128, rank=16)
    first, second = (torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (whole, wrapped))
    (x, y), here = samples(dtype), mine(comm)
    for i in range(8):
        step(whole, first, x, y)
        step(wrapped, second, x[here], y[here], none=bool(i % 2))
    with torch.no_grad():
        assert_all(apart(whole, wrapped) < close, apart(whole, wrapped))
        told = np.concatenate([one.detach().numpy().ravel() for one in wrapped.parameters()])
        assert_all(np.array_equal(told, comm.bcast(told)), "ranks differ")


def test_a_rank_without_samples_takes_part(comm, assert_all):
    from brmpi.train.ddp import DistributedDataParallel

    whole, wrapped = model(), DistributedDataParallel(model(), comm)
    first, second = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (whole, wrapped))
    x, y = samples()
    for _ in range(3):
        step(whole, first, x[:20], y[:20])
        if comm.rank == 0:
            step(wrapped, second, x[:20], y[:20])
        else:
            wrapped.idle()
            second.step()
    with torch.no_grad():
        assert_all(apart(whole, wrapped) < 1e-6, apart(whole, wrapped))


def test_gradients_of_several_backward_passes_add_up(comm, assert_all):
    from brmpi.train.ddp import DistributedDataParallel

    whole, wrapped = model(), DistributedDataParallel(model(), comm)
    x, y = samples()
    here = mine(comm, equal=True)
    loss = torch.nn.functional.cross_entropy
    for _ in range(2):
        (loss(whole(x), y)).backward()
    with wrapped.no_sync():
        loss(wrapped(x[here]), y[here]).backward()
    loss(wrapped(x[here]), y[here]).backward()
    off = max(float((a.grad - b.grad).abs().max()) for a, b in zip(whole.parameters(), wrapped.parameters()))
    assert_all(off < 1e-6, off)


def test_buffers_of_a_normalization_begin_alike(comm, assert_all):
    from brmpi.train.ddp import DistributedDataParallel

    torch.manual_seed(comm.rank)
    net = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), comm)
    net(torch.randn(5, 3)).sum().backward()
    told = [one.detach().numpy().copy() for one in net.parameters()]
    assert_all(all(np.array_equal(one, other) for one, other in zip(told, comm.bcast(told))))


def test_parameters_that_take_no_part_and_frozen_ones(comm, assert_all):
    from brmpi.train.ddp import DistributedDataParallel

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.frozen = (torch.nn.Linear(6, 3) for _ in range(3))
            for one in self.frozen.parameters():
                one.requires_grad_(False)
            self.register_buffer("offset", torch.full((3,), float(comm.rank)))

        def forward(self, x):
            return self.used(x) + self.frozen(x) + self.offset

    torch.manual_seed(comm.rank)
    wrapped = DistributedDataParallel(Two(), comm)
    before = [one.detach().clone() for one in wrapped.module.frozen.parameters()]
    x, y = samples()
    step(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.1), x[mine(comm)], y[mine(comm)])
    assert_all(not any(one.grad.any() for one in wrapped.module.idle.parameters()))
    assert_all(all(torch.equal(a, b) for a, b in zip(before, wrapped.module.frozen.parameters())))
    assert_all(float(wrapped.module.offset[0]) == 0 and "module.used.weight" in wrapped.state_dict())
    with torch.no_grad():
        wrapped(x[:1])  # no gradient, no step
    assert_all(not wrapped.reduce.open)


def test_what_cannot_be_wrapped_is_refused(comm):
    from brmpi.train.ddp import DistributedDataParallel

    mixed = model()
    mixed[0].to(torch.float64)
    with pytest.raises(ValueError, match="all float32 or all float64"):
        DistributedDataParallel(mixed, comm)
    with pytest.raises(ValueError, match="known are"):
        DistributedDataParallel(model(), comm, method="fast")

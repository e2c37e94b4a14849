"""Networks and optimizers: gradients beside finite differences, updates beside the formulas, shapes, classes."""

import math
from itertools import pairwise

import numpy as np
import pytest

from brmpi.kernels import descent
from brmpi.train import layers, nets, optimizers

NETS = [
    (lambda: nets.softmax((5,), 3), (5,), 3), (lambda: nets.mlp((4, 3), 4, [7, 6]), (4, 3), 4),
    (lambda: nets.conv((5, 6), 3, [2, 3], [7]), (5, 6), 3),
    (lambda: nets.conv((4, 4, 2), 2, [3, 2, 4], []), (4, 4, 2), 2),
    (lambda: nets.conv((1, 3), 2, [2, 2], [3]), (1, 3), 2),
]


def problem(make, shape, classes, count=6, seed=3):
    rng = np.random.default_rng(seed)
    net = make()
    w = net.initial(seed, np.float64) + 0.1 * rng.standard_normal(net.size)
    return net, w, rng.standard_normal((count, *shape)), rng.integers(0, classes, count)


@pytest.mark.parametrize(("make", "shape", "classes"), NETS)
def test_gradients_are_those_of_finite_differences(make, shape, classes):
    net, w, x, y = problem(make, shape, classes)
    gradients = nets.views(flat := np.full(net.size, np.nan), net.shapes)
    order = []
    losses, right = net.gradient(x.copy(), y, nets.views(w, net.shapes), gradients, 0.25, order.append)
    assert order == list(reversed(range(len(net.shapes)))) and np.isfinite(flat).all() and 0 <= right <= len(y)

    def loss(w):
        return 0.25 * layers.cross_entropy(net.logits(x.copy(), nets.views(w, net.shapes)), y)[0].sum()

    assert loss(w) == pytest.approx(0.25 * losses.sum(), rel=1e-13)
    step = 1e-5
    for place in np.random.default_rng(1).choice(net.size, min(net.size, 60), replace=False):
        shift = np.zeros(net.size)
        shift[place] = step
        slope = (loss(w + shift) - loss(w - shift)) / (2 * step)
        assert flat[place] == pytest.approx(slope, rel=2e-5, abs=2e-8), place


def test_the_last_parameter_is_first_in_the_flat_vector():
    net = nets.mlp((4,), 3, [5])
    assert [place.start for place in net.places] == [23, 18, 3, 0] and net.size == 43
    flat = np.arange(net.size)
    assert nets.views(flat, net.shapes)[0].shape == (4, 5) and nets.views(flat, net.shapes)[3].tolist() == [0, 1, 2]


def test_initial_parameters_have_the_variance_that_rectifiers_need():
    net = nets.mlp((400,), 10, [300])
    w = net.initial(7, np.float32)
    assert w.dtype == np.float32 and np.array_equal(w, net.initial(7, np.float32))
    assert not np.array_equal(w, net.initial(8, np.float32))
    first, bias = w[net.places[0]], w[net.places[1]]
    assert np.var(first) == pytest.approx(2 / 400, rel=0.02) and abs(first.mean()) < 1e-3 and not bias.any()


def test_softmax_and_cross_entropy_do_not_overflow():
    logits = np.array([[1e4, 0, -1e4], [3.0, 3.0, 3.0]])
    losses, gradient = layers.cross_entropy(logits, np.array([0, 2]))
    assert losses == pytest.approx([0, math.log(3)]) and layers.softmax(logits)[1] == pytest.approx([1 / 3] * 3)
    assert gradient[0] == pytest.approx([0, 0, 0], abs=1e-12) and gradient[1] == pytest.approx([1 / 3, 1 / 3, -2 / 3])


def test_pool_gives_the_gradient_to_one_of_equal_pixels():
    pool = layers.Pool((5, 4, 1))
    x = np.ones((1, 5, 4, 1))
    y, kept = pool.forward(x, ())
    assert y.shape == (1, 2, 2, 1)
    dx = pool.backward(np.full(y.shape, 3.0), kept, (), (), True)
    assert dx.sum() == 12 and np.count_nonzero(dx) == 4 and not dx[0, 4].any()


def reference(name, w, gradients, rate, momentum, decay):
    """The papers' formulas, one number at a time."""
    w = list(map(float, w))
    v, m, s = [0.0] * len(w), [0.0] * len(w), [0.0] * len(w)
    for t, gradient in enumerate(gradients, 1):
        for i, g in enumerate(map(float, gradient)):
            if name != "adamw":
                g += decay * w[i]
            if name in ("sgd", "nesterov"):
                v[i] = momentum * v[i] + g
                w[i] -= rate * (g + momentum * v[i] if name == "nesterov" else v[i])
                continue
            if name == "adamw":
                w[i] *= 1 - rate * decay
            m[i], s[i] = 0.9 * m[i] + 0.1 * g, 0.999 * s[i] + 0.001 * g * g
            w[i] -= rate * (m[i] / (1 - 0.9**t)) / (math.sqrt(s[i] / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_optimizers_follow_their_formulas_and_slices_do_as_the_whole(name, decay):
    rng = np.random.default_rng(5)
    start, gradients = rng.standard_normal(9), rng.standard_normal((4, 9))
    found = []
    for cuts in ([0, 9], [0, 2, 2, 7, 9]):
        w = start.copy()
        for a, b in pairwise(cuts):
            one = optimizers.optimizer(name, 0.8, decay)
            state = {key: np.zeros(b - a) for key in one.names}
            for step, gradient in enumerate(gradients):
                one.update(w[a:b], gradient[a:b], state, 0.05, step)
        found.append(w)
    assert np.array_equal(*found)
    assert found[0] == pytest.approx(reference(name, start, gradients, 0.05, 0.8, decay), rel=1e-12)


def test_without_momentum_there_is_no_state():
    one = optimizers.optimizer("sgd", 0.0, 0.0)
    w = np.array([1.0, 2.0], np.float32)
    one.update(w, np.array([1.0, -1.0], np.float32), {}, 0.5, 0)
    assert one.names == () and w.tolist() == [0.5, 2.5]


def test_long_vectors_are_updated_whole():
    n = 2 * descent.CHUNK + 5
    w, g = np.zeros(n, np.float32), np.ones(n, np.float32)
    one = optimizers.optimizer("adam", 0, 0)
    one.update(w, g, {name: np.zeros(n, np.float32) for name in one.names}, 0.1, 0)
    assert np.allclose(w, -0.1, rtol=1e-5) and len(set(w.tolist())) == 1


@pytest.mark.parametrize(("schedule", "half", "end"), [("constant", 1, 1), ("cosine", 0.5, 0), ("linear", 0.5, 0),
                                                       ("step", 0.1, 0.01)])
def test_schedules(schedule, half, end):
    def rate(epoch, warmup=0.0):
        return optimizers.rate(schedule, 2.0, epoch, 10.0, warmup)

    assert rate(0) == 2.0 and rate(5) == pytest.approx(2 * half) and rate(10) == pytest.approx(2 * end, abs=1e-12)
    assert rate(1, warmup=2.0) == 1.0 and rate(2, warmup=2.0) == 2.0 and 0 < rate(0, warmup=2.0) < 0.01


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_versions_of_a_step_agree_bit_for_bit(real, decay):
    rng = np.random.default_rng(9)
    w, g, m, v = rng.standard_normal((4, 1003)).astype(real)
    found = []
    for backend in ("numpy", "numba"):
        one = [w.copy(), m.copy(), np.abs(v)]
        descent.adam(one[0], g, one[1], one[2], 1e-3, 0.9, 0.999, 1.7, 1e-8, decay, 1 - decay, backend)
        two = [w.copy(), m.copy()]
        descent.sgd(two[0], g, two[1], 0.1, 0.9, decay, bool(decay), backend)
        found.append([values.tobytes() for values in one + two])
    assert found[0] == found[1]

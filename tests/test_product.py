"""The matrix product: exact answers, extended precision, versions within the bound, all orders and odd shapes."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import blas

from brmpi.kernels import opencl
from brmpi.kernels.product import product


def lack():
    try:
        opencl.devices()
    except opencl.Unavailable as reason:
        return str(reason)
    return ""


BACKENDS = ["numpy", "numba", pytest.param("opencl", marks=pytest.mark.skipif(bool(lack()), reason=lack() or "-"))]
DTYPES = [np.float32, np.float64]
SIZE = st.one_of(st.sampled_from([0, 1, 2, 31, 32, 33, 65, 129]), st.integers(0, 80))


def matrices(m, k, n, dtype, orders="CCC", seed=1):
    rng = np.random.default_rng(seed)
    shapes = (m, k), (k, n), (m, n)
    return [np.asarray(rng.normal(size=shape), dtype, order=order) for shape, order in zip(shapes, orders)]


def bound(a, b, c, alpha, beta):
    """What the docstring promises."""
    sizes = abs(alpha) * (abs(a).astype(float) @ abs(b)) + abs(beta) * abs(c)
    return (a.shape[1] + 4) * np.finfo(c.dtype).eps * sizes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(m=SIZE, k=SIZE, n=SIZE, orders=st.text("CF", min_size=3, max_size=3),
       factors=st.sampled_from([(1.0, 0.0), (1.5, -0.5), (0.0, 1.0), (-2.0, 3.0)]))
def test_against_extended_precision(backend, dtype, m, k, n, orders, factors):
    a, b, c = matrices(m, k, n, dtype, orders, seed=m + k + n)
    found = c.copy(order="K")
    product(a, b, found, *factors, backend)
    exact = factors[0] * np.einsum("il,lj->ij", *(x.astype(np.longdouble) for x in (a, b))) + factors[1] * c
    assert (abs(found - exact) <= bound(a, b, c, *factors)).all()


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), [(500, 700, 300), (1, 3000, 1), (257, 1, 129), (1000, 3, 5)])
def test_versions_agree(backend, dtype, m, k, n):
    a, b, c = matrices(m, k, n, dtype)
    one, two = c.copy(), c.copy()
    product(a, b, one, 0.7, 0.3, backend)
    product(a, b, two, 0.7, 0.3, "numpy")
    assert (abs(one - two) <= bound(a, b, c, 0.7, 0.3)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_are_exact(backend, dtype):
    rng = np.random.default_rng(3)
    a, b, c = (rng.integers(-9, 10, shape) for shape in ((70, 90), (90, 50), (70, 50)))
    found = c.astype(dtype)
    product(a.astype(dtype), b.astype(dtype), found, 2.0, -3.0, backend)
    assert found.tolist() == (2 * (a @ b) - 3 * c).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [0, 3])
def test_without_beta_what_was_there_is_not_read(backend, k):
    a, b, c = matrices(5, k, 4, np.float64)
    c[:] = np.nan
    product(a, b, c, backend=backend)
    np.testing.assert_allclose(c, a @ b, rtol=1e-12)
    product(a, b, c, 0.0, 2.0, backend)
    np.testing.assert_allclose(c, 2 * (a @ b), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS[2:])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 90), max_size=3), columns=st.lists(st.integers(0, 70), max_size=3))
def test_cutting_rows_and_columns_changes_no_bit_of_opencl(backend, dtype, rows, columns):
    a, b, c = matrices(90, 101, 70, dtype)
    whole = c.copy()
    product(a, b, whole, 1.1, 0.9, backend)
    rows, columns = (sorted({0, end, *cuts}) for cuts, end in ((rows, 90), (columns, 70)))
    for top, bottom in zip(rows, rows[1:]):  # noqa: RUF007
        for left, right in zip(columns, columns[1:]):  # noqa: RUF007
            part = c[top:bottom, left:right].copy()
            product(a[top:bottom], b[:, left:right].copy(), part, 1.1, 0.9, backend)
            assert part.tobytes() == whole[top:bottom, left:right].tobytes()


@pytest.mark.parametrize("backend", BACKENDS[2:])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("orders", ["CCC", "FCC", "CFC", "FFC"])
@pytest.mark.parametrize("width", [1, 8])
def test_the_tiles_of_an_accelerator_give_the_same_bits(backend, dtype, orders, width, monkeypatch):
    from brmpi.kernels import product_opencl

    a, b, c = matrices(70, 90, 150, dtype, orders)
    one, two = c.copy(), c.copy()
    product(a, b, one, 1.1, 0.9, backend)
    monkeypatch.setattr(product_opencl, "PROCESSOR", product_opencl.ACCELERATOR)
    monkeypatch.setattr(opencl.device(), "width", lambda dtype: width)
    product(a, b, two, 1.1, 0.9, backend)
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("backend", BACKENDS[2:])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_parameters_give_the_same_bits(backend, dtype):
    from brmpi.kernels import product_opencl

    a, b, c = matrices(157, 301, 279, dtype)
    product_opencl.product(a, b, one := c.copy(), 1.1, 0.9)
    assert (abs(one - (1.1 * (a @ b) + 0.9 * c)) <= 2 * bound(a, b, c, 1.1, 0.9)).all()
    for values in itertools.product(*product_opencl.PARAMETERS.values()):
        product_opencl.product(a, b, two := c.copy(), 1.1, 0.9, **dict(zip(product_opencl.PARAMETERS, values)))
        assert one.tobytes() == two.tobytes(), values


@pytest.mark.parametrize("backend", BACKENDS[2:])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize(("m", "k", "n"), [(128, 128, 256), (129, 257, 270), (7, 15, 9)])
def test_opencl_adds_in_the_order_of_l(backend, dtype, orders, m, k, n):
    a, b, c = matrices(m, k, n, dtype, orders + "C")
    product(a, b, c, backend=backend)
    for i, j in ((0, 0), (m - 1, n - 1), (m // 2, n // 2), (m - 1, 0), (0, n - 1)):
        alone = np.empty((1, 1), dtype)
        product(a[i:i + 1].copy(), b[:, j:j + 1].copy(), alone, backend=backend)
        assert alone[0, 0] == c[i, j]
    # the large number swallows what was added before it, and what comes after its opposite stays
    large = 2.0 / np.finfo(dtype).eps
    steps = np.resize([1.0, large, -large, 0.25], k).astype(dtype)
    a[:], b[:] = steps, 1
    product(a, b, c, backend=backend)
    assert (c == functools.reduce(lambda total, step: dtype(total + step), steps, dtype(0))).all()


@pytest.mark.parametrize("backend", BACKENDS[2:])
def test_little_local_memory(backend, monkeypatch):
    from brmpi.kernels import product_opencl

    class Small:
        local_mem_size = 32768  # the least that the standard allows

        def __getattr__(self, name):
            return getattr(whole, name)

    device, programs = opencl.device(), []
    whole, program = device.device, device.program

    def watched(name, **defines):
        programs.append(defines)
        return program(name, **defines)

    monkeypatch.setattr(device, "program", watched)
    a, b, c = matrices(70, 90, 150, np.float64)
    product_opencl.product(a, b, one := c.copy(), 1.1, 0.9)
    monkeypatch.setattr(device, "device", Small())
    product_opencl.product(a, b, two := c.copy(), 1.1, 0.9)
    assert programs[1]["DEPTH"] < programs[0]["DEPTH"]
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("orders", ["CCC", "FFF", "CFC", "FCC", "CCF", "CFF", "FCF", "FFC"])
def test_blas_copies_nothing(orders, monkeypatch):
    a, b, c = matrices(40, 30, 20, np.float64, orders)
    seen, gemm = [], blas.dgemm

    def watched(alpha, left, right, beta, result, *transposed, overwrite_c):
        seen.extend((left, right, result))
        done = gemm(alpha, left, right, beta, result, *transposed, overwrite_c=overwrite_c)
        assert np.shares_memory(done, result)
        return done

    monkeypatch.setattr(blas, "dgemm", watched)
    product(a, b, c)
    assert all(matrix.flags.f_contiguous for matrix in seen)
    assert {matrix.ctypes.data for matrix in seen} == {a.ctypes.data, b.ctypes.data, c.ctypes.data}


def test_wrong_arguments():
    a, b, c = matrices(4, 3, 2, np.float64)
    with pytest.raises(ValueError, match=r"a \(4, 3\), b \(4, 3\)"):
        product(a, a, c)
    with pytest.raises(ValueError, match=r"c \(4, 3\)"):
        product(a, b, np.empty((4, 3)))
    with pytest.raises(ValueError, match="b: float32"):
        product(a, b.astype(np.float32), c)
    with pytest.raises(ValueError, match="int64"):
        product(*(matrix.astype(np.int64) for matrix in (a, b, c)))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        product(a, b[:, 0], c)
    with pytest.raises(ValueError, match="a: strides"):
        product(np.zeros((8, 6))[::2, ::2], b, c)
    with pytest.raises(ValueError, match="shares memory"):
        product(np.eye(3), b, b)
    with pytest.raises(ValueError, match="'cuda'"):
        product(a, b, c, backend="cuda")
    c.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        product(a, b, c)

"""BLAS on views in any order and stride: what NumPy computes, in place, and nothing beside it touched."""

import itertools

import numpy as np
import pytest

from brmpi.linalg import blas

OPS = {"N": lambda x: x, "T": lambda x: x.T, "C": lambda x: x.conj().T}


def view(rng, m, n, dtype, order, pad):
    """A part of a larger array that begins inside it; its surroundings are NaN."""
    whole = np.full((m + 2 * pad, n + 2 * pad), np.nan, dtype=dtype, order=order)
    part = whole[pad: pad + m, pad: pad + n]
    part[...] = rng.standard_normal((m, n))
    if part.dtype.kind == "c":
        part += (1j * rng.standard_normal((m, n))).astype(dtype)
    return whole, part


def untouched(whole, part):
    """Whether all but a part of an array is still NaN."""
    return np.isnan(whole).sum() == whole.size - part.size


@pytest.mark.parametrize("dtype", "fdFD")
def test_gemm(dtype):
    rng, eps = np.random.default_rng(1), np.finfo(dtype).eps
    alpha, beta = (1.5 - 0.5j, -0.5 + 1j) if dtype in "FD" else (1.5, -0.5)
    shapes = (5, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1), (5, 4, 0), (0, 4, 3), (5, 0, 3)
    for orders, ta, tb, (m, n, k) in itertools.product(itertools.product("CF", repeat=3), OPS, OPS, shapes):
        _, a = view(rng, *((m, k) if ta == "N" else (k, m)), dtype, orders[0], 2)
        _, b = view(rng, *((k, n) if tb == "N" else (n, k)), dtype, orders[1], 1)
        around, c = view(rng, m, n, dtype, orders[2], 3)
        x, y, z = OPS[ta](a), OPS[tb](b), c.copy()
        bound = 8 * (k + 2) * eps * (abs(alpha) * abs(x) @ abs(y) + abs(beta) * abs(z))
        blas.gemm(alpha, a, b, beta, c, ta, tb)
        assert (abs(c - (alpha * x @ y + beta * z)) <= bound).all(), (orders, ta, tb, m, n, k)
        assert untouched(around, c)


def test_gemm_does_not_look_at_c_where_beta_is_zero():
    c = np.full((3, 2), np.nan)
    blas.gemm(1.0, np.eye(3), np.ones((3, 2)), 0.0, c)
    assert (c == 1).all()
    blas.gemm(np.float32(2), np.ones((3, 0)), np.ones((0, 2)), 0, c)
    assert (c == 0).all()


@pytest.mark.parametrize("dtype", "fdFD")
def test_triangles(dtype):
    rng, eps = np.random.default_rng(2), np.finfo(dtype).eps
    cases = itertools.product("CF", "CF", "LR", "LU", OPS, "UN", ((5, 4), (1, 3), (4, 1), (0, 3), (3, 0)))
    for order, other, side, uplo, ta, diag, (m, n) in cases:
        q = m if side == "L" else n
        _, a = view(rng, q, q, dtype, order, 2)
        a += 4 * np.eye(q, dtype=dtype)
        t = np.tril(a, -1) if uplo == "L" else np.triu(a, 1)
        t = OPS[ta](t + (np.eye(q) if diag == "U" else np.diag(np.diag(a))))
        a[np.triu_indices(q, 1) if uplo == "L" else np.tril_indices(q, -1)] = np.nan  # not looked at
        if diag == "U":
            np.fill_diagonal(a, np.nan)
        beside, b = view(rng, m, n, dtype, other, 1)
        x, what = b.copy(), (order, other, side, uplo, ta, diag, m, n)

        def _product(y, t=t, side=side):
            return (t @ y, abs(t) @ abs(y)) if side == "L" else (y @ t, abs(y) @ abs(t))

        blas.trsm(side, uplo, ta, diag, 2.0, a, b)
        found, size = _product(b)
        assert (abs(found - 2 * x) <= 16 * (q + 2) * eps * (size + abs(x))).all(), what
        b[...] = x
        blas.trmm(side, uplo, ta, diag, 2.0, a, b)
        found, size = _product(x)
        assert (abs(b - 2 * found) <= 16 * (q + 2) * eps * size).all(), what
        assert untouched(beside, b)


def test_any_routine_by_name():
    a = np.array([[4.0, 0, 0], [2, 5, 0], [1, 3, 6]])
    full, info = a @ a.T, blas.c_int()
    blas.call(blas.lapack("potrf", full.dtype), "U", 3, full, 3, info)  # the upper triangle, column by column
    assert info.value == 0 and abs(np.tril(full) - a).max() <= 8 * np.finfo(float).eps * 6
    x = np.arange(4.0)
    blas.call(blas.routine("scal", np.float64), 2, np.array([3.0]), x[1:], 2)
    assert x.tolist() == [0, 3, 2, 9]


@pytest.mark.parametrize("a", [np.zeros((6, 6))[::2, ::2], np.zeros((4, 4))[:, ::-1], np.zeros((4, 4))[::-1],
                               np.broadcast_to(np.zeros(4), (4, 4))])
def test_strides_that_blas_has_not(a):
    with pytest.raises(ValueError, match="one dimension must be contiguous"):
        blas.gemm(1.0, a, np.zeros((a.shape[1], 2)), 0.0, np.zeros((a.shape[0], 2)))


def test_addresses_where_python_keeps_them_elsewhere():
    for a in (np.ones(3), np.ones((4, 4))[1:, 2:], np.ones((3, 3), order="F").T[1:]):
        assert blas._pointer(a).value == blas._told(a).value == a.__array_interface__["data"][0]

"""Product of the lower part of a matrix, whose rows end at steps of a staircase, with a vector from either side, read
once. Imported when it is first used: Numba takes long to load."""

from brmpi.kernels.compiled import compiled


@compiled
def both(a, first, ends, right, left, low, high):
    """``low = a right`` and ``high = a^T left``, where row i of a is ``a[i, first: ends[i]]`` and zeros.

    Parameters
    ----------
    a : (m, n) ndarray, C order
    first : int
    ends : (m,) int64, not descending
    right : (n - first,) ndarray
    left : (m,) ndarray
    low : (m,) ndarray, which is filled
    high : (n - first,) ndarray, to which is added
    """
    m = len(a)
    fours = m // 4 * 4
    for i in range(0, fours, 4):  # four rows at once: high is read and written once for them
        a0, a1, a2, a3 = a[i, first:], a[i + 1, first:], a[i + 2, first:], a[i + 3, first:]
        l0, l1, l2, l3 = left[i], left[i + 1], left[i + 2], left[i + 3]
        s0 = s1 = s2 = s3 = 0 * l0
        for j in range(ends[i] - first):
            v = right[j]
            s0 += a0[j] * v
            s1 += a1[j] * v
            s2 += a2[j] * v
            s3 += a3[j] * v
            high[j] += (a0[j] * l0 + a1[j] * l1) + (a2[j] * l2 + a3[j] * l3)
        low[i], low[i + 1], low[i + 2], low[i + 3] = s0, s1, s2, s3
        for k in range(i + 1, i + 4):
            rest = 0 * l0
            for j in range(max(ends[i] - first, 0), ends[k] - first):
                rest += a[k, first + j] * right[j]
                high[j] += a[k, first + j] * left[k]
            low[k] += rest
    for i in range(fours, m):
        low[i] = 0
        for j in range(ends[i] - first):
            low[i] += a[i, first + j] * right[j]
            high[j] += a[i, first + j] * left[i]

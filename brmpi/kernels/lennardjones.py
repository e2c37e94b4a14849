"""Forces of Lennard-Jones atoms from neighbour lists built with cells, in reduced units (sigma = epsilon = mass = 1).

    u(r) = 4 (r^-12 - r^-6) - s  for 0 < r < rc, else 0        f_i = sum_j 48 (r^-12 - r^-6 / 2) (x_i - x_j) / r^2
    e_i = sum_j u(r_ij) / 2        w_i = sum_j r_ij . f_ij / 2        pressure = (2 kinetic + sum_i w_i) / (3 volume)

Shifted, s = 4 (rc^-12 - rc^-6): the energy goes to 0 at the cutoff and is conserved but for the force's step there;
unshifted, s = 0: for comparison with tables, to which the tail beyond rc is added. Forces are the same in both.
A pair at distance 0 adds nothing.

The first atoms are the caller's own, the rest ghosts, whose forces somebody else computes. An own atom's list holds all
its neighbours, in the order of their ids: its sum has the same terms in the same order whichever atoms are own, however
atoms are stored and cut into calls. So results are the same bits on any decomposition, given lists made at the same
step and images of atoms taken one way everywhere: (x_j + L) - x_i and (x_j - x_i) + L round differently. Either ghosts
across the box's boundary are given with shifted positions in every dimension, on one rank, too; or all ghosts are given
where their atoms are, and ``periodic`` takes the nearest image on any number of ranks.
Source of the method: Allen & Tildesley, Computer Simulation of Liquids (2017), ch. 5.
"""

from typing import NamedTuple

import numpy as np

from brmpi.kernels import choice

PAD = 8  # rows of a list are filled up to a multiple of this with the atom itself: no rest for the vector loop
CROWD = 4  # cells for an atom at most: in a thin gas they are larger than asked for
MARGIN = 1e-9  # relative, by which cells are larger: rounding puts no neighbour two cells away
NOWHERE = (False, False, False)


class Cells(NamedTuple):
    """Atoms sorted by cells; cell (i, j, k) has number (i shape[1] + j) shape[2] + k."""

    order: np.ndarray  # (n,) uint32, atoms cell by cell, in a cell as they were
    starts: np.ndarray  # (cells + 1,) int64, where each cell begins in ``order``
    shape: tuple  # cells in each dimension
    low: np.ndarray  # (3,) lower corner of the first cell
    width: np.ndarray  # (3,) edges of a cell


class Neighbours(NamedTuple):
    """Neighbours of each own atom, by id: i's are index[starts[i] : starts[i + 1]], filled up with i itself."""

    starts: np.ndarray  # (own + 1,) int64, multiples of PAD
    index: np.ndarray  # uint32
    atoms: int  # own and ghosts
    reach: float  # distance below which atoms are listed
    period: tuple  # of nearest images in each dimension, 0 for none


def cells(pos, low, high, size, periodic=NOWHERE, backend="auto"):
    """Sort atoms into cells, by counting: atoms of a cell stay in the order they have.

    Atoms outside of the box count for the nearest cell, in a periodic dimension for that of their image within.

    Parameters
    ----------
    pos : (3, n) float64, C-contiguous, positions [sigma]
    low, high : (3,) float, corners of the box [sigma]
    size : float > 0, what a cell's edges measure at least [sigma]; the box's edge, where that is shorter
    periodic : (3,) bool
    backend : one of ``kernels.BACKENDS``; OpenCL sorts with Numba. The same result

    Returns
    -------
    Cells

    Raises
    ------
    ValueError : bad shape or type, a position that is not finite, high not above low, size not above 0, unknown backend
    """
    choice.check(backend)
    low, high = _box(pos, low, high, size)
    return _cells(pos, low, high, size, periodic, _lister(backend))


def neighbours(pos, own, ids, reach, low, high, periodic=NOWHERE, backend="auto"):
    """List all atoms nearer than ``reach`` to each own atom, in the order of their ids.

    With reach = rc + skin the list serves until an atom has moved by skin / 2. Atoms of one id, as are the images that
    a small box gives as ghosts, come in the order of their positions, x first.

    Parameters
    ----------
    pos : (3, n) float64, C-contiguous, positions [sigma]
    own : int, the first so many are the caller's own
    ids : (n,) int64, a key of each atom that is the same on every rank
    reach : float > 0 [sigma]
    low, high : (3,) float, corners of the box [sigma]; where it is periodic, their distance is the period. Elsewhere
        only speed depends on them
    periodic : (3,) bool, whether to take nearest images; positions should not be many periods off the box
    backend : one of ``kernels.BACKENDS``: NumPy takes time that grows with n * own, OpenCL lists with Numba. The same
        list

    Returns
    -------
    Neighbours

    Raises
    ------
    ValueError : bad shape or type, a position that is not finite, high not above low, reach not above 0 or, in a
        periodic dimension, above half the period; n >= 2**32; unknown backend
    """
    choice.check(backend)
    low, high = _box(pos, low, high, reach)
    n = pos.shape[1]
    _check_atoms(pos, own, ids)
    period = tuple(float(b - a) if wraps else 0.0 for a, b, wraps in zip(low, high, periodic))
    for length in period:
        if length and reach > length / 2:
            raise ValueError(f"reach = {reach}: must be at most half the period, {length / 2}")
    sequence = _by_id(pos, ids)
    if _lister(backend) == "numpy":
        starts, index = _neighbours(pos, own, sequence, reach, period)
    else:
        starts, index = _with_cells(pos, own, sequence, reach, low, high, periodic, period)
    return Neighbours(starts, index, n, float(reach), period)


def cell_width(edges, reach, atoms):
    """Edges of cells for ``by_cells`` that fill a box: half the reach where there are atoms enough.

    Parameters
    ----------
    edges : (3,) float > 0, of the box [sigma]
    reach : float > 0 [sigma]
    atoms : int >= 0, in the box

    Returns
    -------
    (3,) float64 [sigma]
    """
    edges = np.asarray(edges, np.float64)
    return edges / _shape(edges, reach / 2, max(1, CROWD * atoms))


def by_cells(pos, own, ids, reach, width, backend="auto"):
    """List all atoms nearer than ``reach`` to each own atom, in the order of cells by z, x, y, in a cell by id.

    Cells lie on a lattice that all ranks share, one corner at 0, so that a list has the same order on every rank. There
    are no nearest images: those that are wanted are among the ghosts. Many times as fast as ``neighbours`` where own
    atoms with cells alike in x and y follow each other, as ``in_cells`` sorts them.

    Parameters
    ----------
    pos : (3, n) float64, C-contiguous, positions [sigma]
    own : int, the first so many are the caller's own
    ids : (n,) int64, a key of each atom that is the same on every rank; no two alike in a cell
    reach : float > 0 [sigma]
    width : (3,) float > 0, edges of a cell [sigma], as from ``cell_width``; cells from the first atom to the last in
        each dimension take 8 bytes each
    backend : as for ``neighbours``

    Returns
    -------
    Neighbours

    Raises
    ------
    ValueError : as ``neighbours``; width not above 0
    """
    choice.check(backend)
    width = np.asarray(width, np.float64)
    _box(pos, np.zeros(3), width, reach)
    _check_atoms(pos, own, ids)
    home = _lattice(pos, width)
    if _lister(backend) == "numpy":
        starts, index = _neighbours(pos, own, np.lexsort((ids, home[1], home[0], home[2])), reach, (0.0,) * 3)
    elif not own:
        starts, index = np.zeros(1, np.int64), np.zeros(0, np.uint32)
    else:
        shape = _counted(home)
        span = np.ceil(reach * (1 + MARGIN) / width).astype(np.int64)
        starts, index = _lists().listed(pos, own, ids, home, shape, span, float(reach) ** 2, PAD)
    return Neighbours(starts, index, pos.shape[1], float(reach), (0.0,) * 3)


def in_cells(pos, ids, width, backend="auto"):
    """The order of atoms cell by cell, by x, y, z, in a cell by id.

    Parameters
    ----------
    pos : (3, n) float64, positions [sigma]
    ids : (n,) int64
    width : (3,) float > 0, edges of a cell [sigma]
    backend : as for ``neighbours``

    Returns
    -------
    (n,) int64
    """
    home = _lattice(pos, np.asarray(width, np.float64))
    if _lister(backend) == "numpy" or not ids.size:
        return np.lexsort((ids, *home[::-1]))
    shape = _counted(home)
    order, starts = _compiled().sort((home[0] * shape[1] + home[1]) * shape[2] + home[2], int(shape.prod()))
    _lists().order_ids(order, starts, ids)
    return order.astype(np.int64)


def forces(pos, near, rc, out, shifted=True, first=0, last=None, backend="auto"):
    """Forces on own atoms, with half of each pair's energy and virial for either atom.

    Versions agree within 1e-14 of the sum of the magnitudes of a row's terms, the energy's and the virial's as the
    force's: r^-12 and r^-6 count apart there, since they cancel. An atom's values are a sum in the order of its list,
    in vector lanes, so that sums over atoms in a fixed order are the same bits on any decomposition, too.

    Parameters
    ----------
    pos : (3, n) float64, C-contiguous, positions [sigma] of the atoms that the list was made of, in that order
    near : Neighbours
    rc : float, cutoff [sigma], 0 < rc <= near.reach
    out : (5, own) float64, C-contiguous, is written: force x, y, z [epsilon / sigma], energy, virial [epsilon]
    shifted : bool, whether the energy is 0 at the cutoff
    first, last : int, only these of the own atoms, from first to last - 1, and only their columns of ``out``; so may
        those be done first that need no ghosts
    backend : one of ``kernels.BACKENDS``

    Raises
    ------
    ValueError : bad shape or type, rc out of range, unknown backend
    brmpi.kernels.opencl.Unavailable : OpenCL cannot do it here
    """
    choice.check(backend)
    _check(pos, "pos", 3)
    _check(out, "out", 5)
    own = near.starts.size - 1
    last = own if last is None else last
    if out.shape[1] != own or pos.shape[1] != near.atoms:
        raise ValueError(f"out of {out.shape[1]} atoms, pos of {pos.shape[1]}: the list is of {own} among {near.atoms}")
    if not 0 < rc <= near.reach:
        raise ValueError(f"rc = {rc}: must be above 0 and at most {near.reach}, which the list reaches")
    if not 0 <= first <= last <= own:
        raise ValueError(f"first = {first}, last = {last}: must be 0 <= first <= last <= {own}")
    if first == last:
        return
    shift = float(4 * (rc**-12.0 - rc**-6.0)) if shifted else 0.0
    pairs = int(near.starts[last] - near.starts[first])
    choice.run("lennardjones forces", max(pairs, 1), backend, _forces, "forces", pos, near.starts, near.index,
               _turns(near.period), float(rc) ** 2, shift, first, last, out)


def _check(array, name, rows):
    if array.ndim != 2 or array.shape[0] != rows or array.dtype != np.float64 or not array.flags.c_contiguous:
        raise ValueError(f"{name}: {array.shape} of {array.dtype}, must be ({rows}, n) of float64, C-contiguous")


def _check_atoms(pos, own, ids):
    n = pos.shape[1]
    if not 0 <= own <= n or n >= 2**32:
        raise ValueError(f"own = {own} of n = {n}: must be 0 <= own <= n < 2**32")
    if ids.shape != (n,) or ids.dtype != np.int64:
        raise ValueError(f"ids: {ids.shape} of {ids.dtype}, must be ({n},) of int64")


def _box(pos, low, high, size):
    _check(pos, "pos", 3)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if low.shape != (3,) or high.shape != (3,) or not (low < high).all() or not np.isfinite(high - low).all():
        raise ValueError(f"low = {low}, high = {high}: must be three finite numbers each, high above low")
    if not 0 < size < np.inf:
        raise ValueError(f"size or reach = {size}: must be finite and above 0")
    if not np.isfinite(pos).all():
        raise ValueError(f"pos of atom {np.flatnonzero(~np.isfinite(pos).all(axis=0))[0]}: must be finite")
    return low, high


def _lister(backend):
    return choice.without_measurement("lennardjones lists") if backend == "auto" else backend


def _compiled():
    from brmpi.kernels import lennardjones_numba

    return lennardjones_numba


def _lists():
    from brmpi.kernels import lennardjones_lists

    return lennardjones_lists


def _cells(pos, low, high, size, periodic, backend):
    shape = _shape(high - low, size, max(1, CROWD * pos.shape[1]))
    width = (high - low) / shape
    home = _home(pos, low, width, shape, periodic)
    cell, count = np.ravel_multi_index(tuple(home), shape), int(shape.prod())
    order, starts = _sorted(cell, count) if backend == "numpy" else _compiled().sort(cell, count)
    return Cells(order, starts, tuple(shape.tolist()), low, width)


def _shape(edges, size, limit):
    """Cells of a box in each dimension, at least so large and at most so many."""
    shape = np.clip(edges / (size * (1 + MARGIN)), 1, limit).astype(np.int64)
    while shape.astype(float).prod() > limit:
        shape[shape.argmax()] = (shape.max() + 1) // 2
    return shape


def _lattice(pos, width):
    """Cell of each atom on the lattice that has a corner at 0, (3, n) int64."""
    return np.floor(pos / width[:, None]).astype(np.int64)


def _counted(home):
    """Count cells from the first one in each dimension, in place; returns how many there are."""
    home -= home.min(axis=1)[:, None]
    return home.max(axis=1) + 1


def _home(pos, low, width, shape, periodic):
    """Cell of each atom, (3, n) int64."""
    home = np.floor((pos - low[:, None]) / width[:, None])
    for row, count, wraps in zip(home, shape, periodic):
        row[:] = row % count if wraps else row.clip(0, count - 1)
    return home.astype(np.int64)


def _sorted(cell, count):
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=count))])
    return np.argsort(cell, kind="stable").astype(np.uint32), starts


def _by_id(pos, ids):
    """Atoms in the order of ids, atoms of one id in that of positions."""
    sequence = np.argsort(ids, kind="stable")
    if (np.diff(ids[sequence]) == 0).any():
        sequence = np.lexsort((*pos[::-1], ids))
    return sequence


def _turns(period):
    """Periods and their inverses, 0 for none; None, where no dimension has one."""
    return (*period, *(1 / length if length else 0.0 for length in period)) if any(period) else None


def _nearest(d, turns):
    """Differences (3, …) to nearest images."""
    if turns is None:
        return d
    return np.stack([x - length * np.rint(x * inverse) for x, length, inverse in zip(d, turns[:3], turns[3:])])


def _neighbours(pos, own, sequence, reach, period, block=64):
    """Definition of the lists: all pairs, in blocks of own atoms."""
    turns, rows, sizes = _turns(period), [], [0]
    for first in range(0, own, block):
        mine = np.arange(first, min(first + block, own))
        d = _nearest(pos[:, mine, None] - pos[:, None, sequence], turns)
        inside = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2 < reach**2) & (sequence != mine[:, None])
        for i, row in zip(mine, inside):
            near = sequence[row]
            rows.append(np.concatenate([near, np.full(-near.size % PAD, i)]))
            sizes.append(rows[-1].size)
    return np.cumsum(sizes), np.concatenate([*rows, []]).astype(np.uint32)


def _with_cells(pos, own, sequence, reach, low, high, periodic, period):
    """Lists by Numba. Atoms, taken by id, enter themselves in the lists of the own atoms in the cells around them."""
    mine = np.ascontiguousarray(pos[:, :own])
    grid = _cells(mine, low, high, reach, periodic, "numba")
    home = _home(pos, low, grid.width, grid.shape, periodic)
    around = _around(grid.shape, periodic)
    packed = np.ascontiguousarray(mine[:, grid.order])  # cell by cell, so that loops over a cell are contiguous
    loops = _compiled()
    found, ends = loops.meet(pos, sequence, home, around, grid.shape, grid.starts, grid.order, packed, _turns(period),
                             reach**2)
    counts = np.bincount(found, minlength=own)
    starts = np.zeros(own + 1, np.int64)
    starts[1 + grid.order.astype(np.int64)] = counts + -counts % PAD
    starts = np.cumsum(starts)
    index = np.empty(starts[-1], np.uint32)
    loops.enter(found, ends, sequence, grid.order, starts, index)
    return starts, index


def _around(shape, periodic):
    """Cells beside each cell and itself in each dimension: (3, cells, 3) int64, -1 for none."""
    table = np.full((3, max(shape), 3), -1)
    for rows, count, wraps in zip(table, shape, periodic):
        for c in range(count):
            beside = [c - 1, c, c + 1]
            beside = {b % count for b in beside} if wraps else {b for b in beside if 0 <= b < count}
            rows[c, : len(beside)] = sorted(beside)
    return table


def _forces(pos, starts, index, turns, rc2, shift, first, last, out, block=1024):
    for a in range(first, last, block):
        b = min(a + block, last)
        i, j = np.repeat(np.arange(a, b), np.diff(starts[a : b + 1])), index[starts[a] : starts[b]]
        d = _nearest(pos[:, i] - pos[:, j], turns)
        r2 = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
        inside = (r2 > 0) & (r2 < rc2)
        i, d, r2 = i[inside] - a, d[:, inside], r2[inside]
        r6 = r2**-3
        virial = 48 * r6 * (r6 - 0.5)
        terms = (*(virial / r2 * d), (4 * r6 * (r6 - 1) - shift) / 2, virial / 2)
        for row, term in zip(out, terms):
            row[a:b] = np.bincount(i, term, minlength=b - a)  # in the list's order

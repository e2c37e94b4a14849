"""Neutral particles of one speed through slabs and spheres in layers: histories by the index of the particle.

Particle i has the Philox blocks whose counters are (n, i % 2**64, i // 2**64, 0), n = 0, 1, ..., which are the words
2**66 i and on of a stream. Block 0 is its source; each event takes two words of the next blocks: the first is the
optical path to the next collision, -log(u), the second decides what comes of the event. Fragments of a particle that
was split take turns, the last one made first. So a history depends on its index alone. All versions agree bit for bit:
they are made of operations that round alike everywhere, in the same order, with the logarithm of ``philox``. Sums are
taken in the order of particles.

A slab is followed in optical depth, where layers differ by nothing but the share of collisions that scatter:

    t' = t + mu tau

A sphere is followed along the chord: h from its middle, q the square of its distance from the centre, r**2 = q + h**2.

Source: Lux & Koblinger, "Monte Carlo Particle Transport Methods: Neutron and Photon Calculations" (1991).
"""

import math
from dataclasses import dataclass

import numpy as np

from brmpi.kernels import choice, philox

SOURCES = {"slab": ("beam", "cosine", "isotropic", "uniform"), "sphere": ("centre", "uniform")}
TALLIES = ("transmission", "reflection", "absorption", "uncollided")
STACK = 64  # groups of fragments that wait; no particle is split while that many do
CUT, KEPT = 0.25, 0.5  # roulette below this weight, in units of what is usual there, and what survivors have
ALL = 2**128  # particles of a key
PIECE = 2048  # histories that NumPy follows at once
ANALOGUE, SLAB, BEAM = 1, 2, 4  # bits of how numbers tell the loops


@dataclass(frozen=True)
class Slab:
    """A slab in layers, from the face where particles enter. Numbers stand for one layer.

    Attributes
    ----------
    thickness : float or tuple of float > 0, of each layer [cm]
    total : float or tuple of float >= 0, total cross section [1 / cm]
    scattering : float or tuple of float in [0, 1], share of collisions that scatter, isotropically
    source : one of ``SOURCES`` of the geometry. beam: along the normal; cosine: an isotropic flux onto the face;
        isotropic: sources on the face, of which the half counts that goes in; uniform: isotropic, in all of the volume;
        centre: a point in the middle of a sphere
    biased : bool, whether collisions take a part of the weight instead of a particle
    surfaces : tuple of float, depths (in a sphere radii) at which particles that go on are split [cm]
    split : int >= 2, into how many; of those that come back one in so many survives
    """

    thickness: float | tuple
    total: float | tuple
    scattering: float | tuple
    source: str = ""
    biased: bool = False
    surfaces: tuple = ()
    split: int = 2
    geometry = "slab"

    def layers(self):
        """Thickness, total and scattering of each layer.

        Returns
        -------
        (3, layers) float64

        Raises
        ------
        ValueError : lists of different lengths, a value out of its range, a source that the geometry has not
        """
        rows = [np.atleast_1d(np.asarray(row, float)) for row in (self.thickness, self.total, self.scattering)]
        if len({row.shape for row in rows}) > 1 or rows[0].ndim != 1 or not rows[0].size:
            raise ValueError(f"thickness, total, scattering have {[row.size for row in rows]} layers: must be alike")
        for name, row, most in (("thickness", rows[0], math.inf), ("total", rows[1], math.inf),
                                ("scattering", rows[2], 1)):
            for value in row:
                if not 0 <= value <= most or value == math.inf or (name == "thickness" and value == 0):
                    least = "> 0" if name == "thickness" else ">= 0"
                    raise ValueError(f"{name} = {value}: must be {least} and "
                                     f"{'<= 1' if most == 1 else 'finite'}")
        if self.origin() not in SOURCES[self.geometry]:
            raise ValueError(f"source = {self.source!r}: a {self.geometry} has {', '.join(SOURCES[self.geometry])}")
        if self.split < 2 or self.split != int(self.split):
            raise ValueError(f"split = {self.split}: must be a whole number >= 2")
        depth = rows[0].sum()
        if any(not 0 < at < depth for at in self.surfaces) or any(np.diff(self.surfaces) <= 0):
            raise ValueError(f"surfaces = {list(self.surfaces)}: must go up, between 0 and {depth:g}")
        return np.array(rows)

    def origin(self):
        """The source, or the geometry's usual one."""
        return self.source or SOURCES[self.geometry][0]


class Sphere(Slab):
    """A sphere in shells, from its centre; otherwise as ``Slab``."""

    geometry = "sphere"


def histories(key, first, count, problem, backend="auto"):
    """Sums over particles of what becomes of them, and of the squares.

    Parameters
    ----------
    key : two ints, each >= 0 and < 2**64
    first : int >= 0, index of the first particle
    count : int >= 0, particles; they all have the same index // 2**64
    problem : Slab or Sphere
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    (2, 4) float64: sums and sums of squares over particles of the weight that is transmitted (that leaves, in a
        sphere), reflected, absorbed, and that leaves without a collision; the same bits in all versions

    Raises
    ------
    ValueError : an argument out of range
    """
    key, first, count = _checked(key, first, count)
    backend = "numba" if backend == "opencl" else backend  # no kernel of its own
    return choice.run("transport histories", max(count, 1), backend, _histories, "histories", key, first, count,
                      *_numbers(problem))


def generation(key, first, places, size, geometry, scattering, born, backend="auto"):
    """One generation of neutrons in a bare, homogeneous body: from where they start to where the next ones are born.

    Parameters
    ----------
    key : two ints, each >= 0 and < 2**64
    first : int >= 0, index of the first neutron
    places : (n,) float64, depth or radius where each starts, isotropically [mean free paths]
    size : float > 0, thickness or radius [mean free paths]
    geometry : "slab" or "sphere"
    scattering : float >= 0 and < 1, share of collisions that scatter
    born : float >= 0, mean number of neutrons that an absorption is to yield
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    ends : (n,) float64, where each was absorbed; of no meaning where it left [mean free paths]
    yields : (n,) int64, neutrons born there
    collisions : (n,) int64, of each neutron

    Raises
    ------
    ValueError : an argument out of range
    """
    places = np.ascontiguousarray(places, np.float64)
    key, first, count = _checked(key, first, len(places))
    if geometry not in SOURCES or not 0 < size < math.inf or not 0 <= scattering < 1 or not 0 <= born < math.inf:
        raise ValueError(f"geometry = {geometry!r}, size = {size}, scattering = {scattering}, born = {born}: must be "
                         "slab or sphere, > 0, >= 0 and < 1, >= 0")
    backend = "numba" if backend == "opencl" else backend
    return choice.run("transport generation", max(count, 1), backend, _generation, "generation", key, first, places,
                      float(size), geometry == "slab", float(scattering), float(born))


def _checked(key, first, count):
    key = tuple(int(half) for half in key)
    if len(key) != 2 or not all(0 <= half < 2**64 for half in key):
        raise ValueError(f"key = {key}: must be two numbers >= 0 and < 2**64")
    if first < 0 or count < 0 or first >= ALL or first % 2**64 + count > 2**64:
        raise ValueError(f"first = {first}, count = {count}: must be >= 0, no particle past a multiple of 2**64")
    return key, int(first), int(count)


def _numbers(problem):
    """A problem as arrays of numbers.

    Returns
    -------
    flags : int
    source : int, place in ``SOURCES``
    split : float
    bounds : (cells + 1,) float64, optical depths or radii between which importance, and in a sphere all, is the same
    importance : (cells,) float64
    edges : (layers + 1,) float64, optical depths of layers of a slab; those of cells in a sphere
    total : (layers,) float64
    ratio : (layers,) float64
    places : (layers + 1,) float64, depths
    """
    thick, total, ratio = problem.layers()
    slab = problem.geometry == "slab"
    places = np.concatenate([[0], np.cumsum(thick)])
    edges = np.concatenate([[0], np.cumsum(thick * total)])
    surfaces = np.asarray(problem.surfaces, float)
    if slab:
        bounds = np.concatenate([[0], np.interp(surfaces, places, edges), edges[-1:]])
        importance = float(problem.split) ** np.arange(len(bounds) - 1)
    else:
        bounds = np.unique(np.concatenate([places, surfaces]))
        importance = float(problem.split) ** np.searchsorted(surfaces, bounds[:-1], side="right")
        here = np.searchsorted(places, bounds[:-1], side="right") - 1
        total, ratio, edges, places = total[here], ratio[here], bounds, bounds
    flags = (not problem.biased) * ANALOGUE + slab * SLAB + (problem.origin() in ("beam", "centre")) * BEAM
    return (flags, SOURCES[problem.geometry].index(problem.origin()), float(problem.split), bounds, importance, edges,
            total, ratio, places)


def _high(a, b):
    """Upper 64 bits of products of uint64."""
    half, mask = np.uint64(32), np.uint64(2**32 - 1)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    middle = a1 * b0 + (a0 * b0 >> half)
    return a1 * b1 + (middle >> half) + ((middle & mask) + a0 * b1 >> half)


def _words(key, block, first, index):
    """Philox blocks of some particles: counters (block, first + index), (4, n) uint64."""
    c = [np.full(len(index), block, np.uint64), np.uint64(first % 2**64) + index.astype(np.uint64),
         np.full(len(index), first >> 64, np.uint64), np.zeros(len(index), np.uint64)]
    a, b = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
    for number in range(10):
        k0 = np.uint64((key[0] + number * 0x9E3779B97F4A7C15) % 2**64)
        k1 = np.uint64((key[1] + number * 0xBB67AE8584CAA73B) % 2**64)
        c = [_high(b, c[2]) ^ c[1] ^ k0, b * c[2], _high(a, c[0]) ^ c[3] ^ k1, a * c[0]]
    return np.array(c)


def _uniform(words):
    """In (0, 1), the middles of 2**52 cells."""
    return ((words >> np.uint64(12)) + 0.5) * 2.0**-52


def _path(u):
    """-log(u) within 6e-16 for 0 < u < 1."""
    return -philox._log(u)


class _Words:
    """Two words an event, of particles that may have had different numbers of events."""

    def __init__(self, key, first, count):
        self.key, self.first, self.event = key, first, 0
        self.kept = np.empty((2, count), np.uint64)

    def __call__(self, index):
        """Optical path and decision of the next event; all particles that are left are at the same one."""
        if self.event % 2 == 0:
            words = _words(self.key, 1 + self.event // 2, self.first, index)
            self.kept[:, index] = words[2:]
            pair = words[:2]
        else:
            pair = self.kept[:, index]
        self.event += 1
        return _path(_uniform(pair[0])), _uniform(pair[1])


def _histories(key, first, count, *numbers):
    scores = [np.zeros((0, 4))]
    for start in range(0, count, PIECE):
        scores.append(_follow(key, first + start, min(PIECE, count - start), *numbers))
    scores = np.concatenate(scores)
    if not count:
        return np.zeros((2, 4))
    return np.array([np.cumsum(scores, axis=0)[-1], np.cumsum(scores * scores, axis=0)[-1]])  # one after the other


def _follow(key, first, count, flags, source, split, bounds, importance, edges, total, ratio, places):
    """Scores of some particles, (count, 4): all that live have one event, then the next."""
    slab, analogue, last = bool(flags & SLAB), bool(flags & ANALOGUE), len(importance) - 1
    scores = np.zeros((count, 4))
    a, b = _source(_uniform(_words(key, 0, first, np.arange(count))), slab, source, bounds, edges, total, places)
    at = a if slab else np.sqrt(b + a * a)
    cell = np.searchsorted(bounds[1:-1], at, side="right")
    weight, fresh = np.ones(count), np.ones(count, bool)
    stack = np.zeros((STACK, 6, count))  # a, b, weight, cell, fresh, copies
    height = np.zeros(count, np.int64)
    draw, live = _Words(key, first, count), np.arange(count)
    while live.size:
        tau, v = draw(live)
        w, k = weight[live], cell[live]
        if slab:
            s = a[live] + b[live] * tau
            up, down = s >= bounds[k + 1], s < bounds[k]
            down &= ~up
            place = np.where(up, bounds[k + 1], np.where(down, bounds[k], s))
            new = k + up - down
            x, y = place, b[live]
        else:
            x, y, new, up, down = _chord(a[live], b[live], k, tau, bounds, total, importance)
        out, back = up & (new > last), down & (new < 0)
        up, down = up & ~out, down & ~back
        hit = ~(up | down | out | back)
        for column, gone in ((0, out), (1, back)):
            scores[live[gone], column] += w[gone]
            scores[live[gone], 3] += np.where(fresh[live[gone]], w[gone], 0.0)
        # across a surface: split on the way in, roulette on the way back
        more = up & (height[live] < STACK)
        w = np.where(more, w / split, w)
        who = live[more]
        stack[height[who], :, who] = np.stack([x[more], y[more], w[more], new[more], fresh[who],
                                               np.full(who.size, split - 1)], axis=1)
        height[who] += 1
        dead = out | back | (down & (v >= 1 / split))
        w = np.where(down, w * split, w)
        # a collision
        fresh[live[hit]] = False
        spot = np.minimum(np.maximum(new, 0), last)
        c = ratio[np.searchsorted(edges[1:-1], x, side="right") if slab else spot]
        if analogue:
            p = c
        else:
            scores[live[hit], 2] += (w * (1 - c))[hit]
            w = np.where(hit, w * c, w)
            low = w * importance[spot] < CUT
            p = np.where(low, w * importance[spot] * (1 / KEPT), 1.0)
            w = np.where(hit & low, KEPT / importance[spot], w)
        lost = hit & (v >= p)
        if analogue:
            scores[live[lost], 2] += w[lost]
        with np.errstate(all="ignore"):
            mu = np.minimum(v * (2 / p) - 1, 1.0)
            if slab:
                y = np.where(hit, mu, y)
            else:
                square = y + x * x
                along = np.sqrt(square) * mu
                x, y = np.where(hit, along, x), np.where(hit, np.maximum(square - along * along, 0.0), y)
        a[live], b[live], weight[live], cell[live] = x, y, w, new
        live = _next(live, dead | lost, stack, height, (a, b, weight, cell, fresh))
    return scores


def _next(live, dead, stack, height, state):
    """Who is left: fragments that wait take the place of those that are dead."""
    ended = live[dead]
    again = ended[height[ended] > 0]
    top = height[again] - 1
    for number, array in enumerate(state):
        array[again] = stack[top, number, again]
    stack[top, 5, again] -= 1
    height[again] -= stack[top, 5, again] == 0
    return np.sort(np.concatenate([live[~dead], again]))


def _source(u, slab, source, bounds, edges, total, places):
    """Where particles start: optical depth and direction in a slab, h and q in a sphere."""
    n = u.shape[1]
    if not slab:
        if source == 0:
            return np.zeros(n), np.zeros(n)
        r = bounds[-1] * np.maximum(np.maximum(u[0], u[1]), u[2])
        h = r * (2 * u[3] - 1)
        return h, np.maximum(r * r - h * h, 0.0)
    if source < 3:
        return np.zeros(n), (np.ones(n), np.sqrt(u[1]), u[1].copy())[source]
    x = u[0] * places[-1]
    layer = np.searchsorted(places[1:-1], x, side="right")
    return edges[layer] + (x - places[layer]) * total[layer], 2 * u[1] - 1


def _chord(h, q, k, tau, radii, total, importance):
    """Go along the chord to a collision, out of the sphere or to a surface."""
    h, k, tau = h.copy(), k.copy(), tau.copy()
    up, down = np.zeros(len(h), bool), np.zeros(len(h), bool)
    going = np.arange(len(h))
    while going.size:
        i, z = going, q[going]
        c = k[i]
        inner = radii[c] * radii[c] - z
        inwards = (c > 0) & (h[i] < 0) & (inner > 0)
        edge = np.where(inwards, -np.sqrt(np.maximum(inner, 0.0)),
                        np.sqrt(np.maximum(radii[c + 1] * radii[c + 1] - z, 0.0)))
        length = np.maximum(edge - h[i], 0.0)
        depth = total[c] * length
        stops = tau[i] < depth
        j = i[stops]
        h[j] += tau[j] / total[c[stops]]
        i, inwards, edge, depth, c = i[~stops], inwards[~stops], edge[~stops], depth[~stops], c[~stops]
        tau[i] -= depth
        h[i] = edge
        k[i] = np.where(inwards, c - 1, c + 1)
        out = k[i] == len(importance)
        surface = importance[np.minimum(k[i], len(importance) - 1)] != importance[c]
        up[i] = (out | surface) & ~inwards
        down[i] = surface & inwards
        going = i[~(out | surface)]
    return h, q.copy(), k, up, down


def _generation(key, first, places, size, slab, scattering, born):
    ends, yields = places.copy(), np.zeros(len(places), np.int64)
    collisions = np.zeros(len(places), np.int64)
    for start in range(0, len(places), PIECE):
        here = slice(start, start + PIECE)
        _neutrons(key, first + start, size, slab, scattering, born, ends[here], yields[here], collisions[here])
    return ends, yields, collisions


def _neutrons(key, first, size, slab, scattering, born, ends, yields, collisions):
    """Follow neutrons to their ends; all that live have one event, then the next."""
    count = len(ends)
    mu = 2 * _uniform(_words(key, 0, first, np.arange(count))[0]) - 1
    draw, live = _Words(key, first, count), np.arange(count)
    while live.size:
        tau, v = draw(live)
        start, direction = ends[live], mu[live]
        if slab:
            s = start + direction * tau
            inside = (s >= 0) & (s < size)
        else:
            h = start * direction
            q = np.maximum(start * start - h * h, 0.0)
            h = h + tau
            s = np.sqrt(q + h * h)
            inside = s < size
        live, v = live[inside], v[inside]
        ends[live] = s[inside]
        collisions[live] += 1
        dead = v >= scattering
        yields[live[dead]] = np.floor(born + (v[dead] - scattering) * (1 / (1 - scattering))).astype(np.int64)
        live, v = live[~dead], v[~dead]
        if live.size:
            mu[live] = np.minimum(v * (2 / scattering) - 1, 1.0)
    return ends

"""The loops of ``transport``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

import numpy as np
from numba import uint64

from brmpi.kernels.philox_numba import block, exact, logarithm, part
from brmpi.kernels.transport import ANALOGUE, BEAM, CUT, KEPT, SLAB, STACK

BATCH = 512  # particles that are followed together


def histories(key, first, count, flags, source, split, bounds, importance, *layers):
    """Sums over particles.

    Parameters
    ----------
    key, first, count : as in ``transport.histories``, checked
    flags, source, split, bounds, importance, *layers : from ``transport._numbers``
    """
    place = _place(key, first)
    if flags & ANALOGUE and flags & SLAB and flags & BEAM and len(importance) == 1:
        edges, _, ratio, _ = layers
        straight, out, back, lost = beam(place, count, edges, ratio)
        sums = np.array([out, back, lost, straight], np.float64)
        return np.array([sums, sums])  # a particle counts once or not at all: its own square
    sums = np.zeros((2, 4))
    if flags & SLAB:
        slab(place, count, bool(flags & ANALOGUE), source, split, bounds, importance, *layers, sums)
    else:
        sphere(place, count, bool(flags & ANALOGUE), source, split, bounds, importance, *layers, sums)
    return sums


def generation(key, first, places, size, in_slab, scattering, born):
    """One generation of neutrons.

    Parameters
    ----------
    key, first, places, size, in_slab, scattering, born : as in ``transport.generation``, checked
    """
    ends, yields, collisions = places.copy(), np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    neutrons(_place(key, first), size, in_slab, scattering, born, ends, yields, collisions)
    return ends, yields, collisions


def _place(key, first):
    return np.array([*key, first % 2**64, first >> 64], np.uint64)


@part
def uniform(word):
    """In (0, 1), the middle of one of 2**52 cells.

    Parameters
    ----------
    word : uint64
    """
    return np.uint64(word >> uint64(12) | uint64(0x3FF0000000000000)).view(np.float64) - (1 - 2.0**-53)


@part
def path(word):
    """The optical path that a word stands for, as ``transport._path``.

    Parameters
    ----------
    word : uint64
    """
    return -logarithm(uniform(word))


@part
def index(bounds, at):
    """Which of the cells something is in.

    Parameters
    ----------
    bounds : (cells + 1,) float64
    at : float
    """
    k = 0
    while k < bounds.size - 2 and at >= bounds[k + 1]:
        k += 1
    return k


@part
def fate(at, thick, decision, ratio):
    """What an event in a slab leads to: 0 to another one, 1 transmission, 2 reflection, 3 absorption.

    Parameters
    ----------
    at, thick : float, optical depths
    decision : float in (0, 1)
    ratio : float, share of collisions that scatter
    """
    end = 3.0 if decision >= ratio else 0.0  # one after the other: as vectors, without a branch
    end = 2.0 if at < 0 else end
    return 1.0 if at >= thick else end


@part
def turned(decision, scale):
    """The direction after a collision.

    Parameters
    ----------
    decision : float in (0, 1)
    scale : float, 2 over the share of collisions that scatter
    """
    mu = decision * scale - 1
    return mu if mu < 1 else 1.0


@exact
def slab(place, count, analogue, source, split, bounds, importance, edges, total, ratio, places, sums):
    """Particles through a slab, one after the other.

    Parameters
    ----------
    place : (4,) uint64: key, index of the first particle
    count : int
    analogue : bool
    source, split, bounds, importance, edges, total, ratio, places : from ``transport._numbers``
    sums : (2, 4) float64, added to
    """
    stack, waiting = np.empty((STACK, 3)), np.empty((STACK, 3), np.int64)
    k0, k1, c1, c2, zero = place[0], place[1], place[2], place[3], uint64(0)
    last, one, none = importance.size - 1, 1 / split, 1 / KEPT
    for i in range(count):
        particle = c1 + uint64(i)
        score0, score1, score2, score3 = 0.0, 0.0, 0.0, 0.0
        t, mu = 0.0, 1.0
        if source:
            w0, w1, w2, w3 = block(k0, k1, zero, particle, c2, zero)
            u = uniform(w1)
            mu = np.sqrt(u) if source == 1 else (u if source == 2 else 2 * u - 1)
            if source == 3:
                x = uniform(w0) * places[-1]
                layer = index(places, x)
                t = edges[layer] + (x - places[layer]) * total[layer]
        k, w, fresh, height, n, event = index(bounds, t), 1.0, True, 0, zero, 0
        w2, w3 = zero, zero
        while True:
            if event == 0:
                n += uint64(1)
                word, decision, w2, w3 = block(k0, k1, n, particle, c2, zero)
            else:
                word, decision = w2, w3
            event = 1 - event
            v = uniform(decision)
            s = t + mu * path(word)
            if s >= bounds[k + 1]:
                dead = k == last
                if dead:
                    score0 += w
                    score3 += w if fresh else 0.0
                else:
                    k += 1
                    t = bounds[k]
                    if height < STACK:
                        w = w / split
                        stack[height, 0], stack[height, 1], stack[height, 2] = t, mu, w
                        waiting[height, 0], waiting[height, 1], waiting[height, 2] = k, fresh, np.int64(split) - 1
                        height += 1
            elif s < bounds[k]:
                if k == 0:
                    score1 += w
                    score3 += w if fresh else 0.0
                    dead = True
                else:
                    t = bounds[k]
                    k -= 1
                    dead = v >= one
                    w = w * split
            else:
                t, fresh, p = s, False, 1.0
                c = ratio[index(edges, t)]
                if analogue:
                    p = c
                else:
                    score2 += w * (1 - c)
                    w = w * c
                    if w * importance[k] < CUT:
                        p = w * importance[k] * none
                        w = KEPT / importance[k]
                dead = v >= p
                if dead:
                    score2 += w if analogue else 0.0
                else:
                    mu = min(v * (2 / p) - 1, 1.0)
            if dead:
                if height == 0:
                    break
                at = height - 1
                t, mu, w = stack[at, 0], stack[at, 1], stack[at, 2]
                k, fresh = waiting[at, 0], waiting[at, 1] > 0
                waiting[at, 2] -= 1
                height -= waiting[at, 2] == 0
        sums[0, 0] += score0
        sums[0, 1] += score1
        sums[0, 2] += score2
        sums[0, 3] += score3
        sums[1, 0] += score0 * score0
        sums[1, 1] += score1 * score1
        sums[1, 2] += score2 * score2
        sums[1, 3] += score3 * score3


@exact
def sphere(place, count, analogue, source, split, bounds, importance, edges, total, ratio, places, sums):
    """Particles out of a sphere, one after the other.

    Parameters
    ----------
    place, count, analogue, source, split, bounds, importance, edges, total, ratio, places, sums : as in ``slab``
    """
    stack, waiting = np.empty((STACK, 3)), np.empty((STACK, 3), np.int64)
    k0, k1, c1, c2, zero = place[0], place[1], place[2], place[3], uint64(0)
    cells, one, none = importance.size, 1 / split, 1 / KEPT
    for i in range(count):
        particle = c1 + uint64(i)
        score0, score2, score3 = 0.0, 0.0, 0.0
        h, q, k = 0.0, 0.0, 0
        if source:
            w0, w1, w2, w3 = block(k0, k1, zero, particle, c2, zero)
            r = bounds[-1] * max(max(uniform(w0), uniform(w1)), uniform(w2))
            h = r * (2 * uniform(w3) - 1)
            q = max(r * r - h * h, 0.0)
            k = index(bounds, np.sqrt(q + h * h))
        w, fresh, height, n, event = 1.0, True, 0, zero, 0
        w2, w3 = zero, zero
        while True:
            if event == 0:
                n += uint64(1)
                word, decision, w2, w3 = block(k0, k1, n, particle, c2, zero)
            else:
                word, decision = w2, w3
            event = 1 - event
            v, tau = uniform(decision), path(word)
            dead = False
            while True:
                inner = bounds[k] * bounds[k] - q
                inwards = k > 0 and h < 0 and inner > 0
                edge = -np.sqrt(inner) if inwards else np.sqrt(max(bounds[k + 1] * bounds[k + 1] - q, 0.0))
                depth = total[k] * max(edge - h, 0.0)
                if tau < depth:
                    h += tau / total[k]
                    fresh, p, c = False, 1.0, ratio[k]
                    if analogue:
                        p = c
                    else:
                        score2 += w * (1 - c)
                        w = w * c
                        if w * importance[k] < CUT:
                            p = w * importance[k] * none
                            w = KEPT / importance[k]
                    dead = v >= p
                    if dead:
                        score2 += w if analogue else 0.0
                    else:
                        square = q + h * h
                        h = np.sqrt(square) * min(v * (2 / p) - 1, 1.0)
                        q = max(square - h * h, 0.0)
                    break
                tau -= depth
                h = edge
                before = importance[k]
                if inwards:
                    k -= 1
                    if importance[k] != before:
                        dead = v >= one
                        w = w * split
                        break
                    continue
                k += 1
                if k == cells:
                    score0 += w
                    score3 += w if fresh else 0.0
                    dead = True
                    break
                if importance[k] != before:
                    if height < STACK:
                        w = w / split
                        stack[height, 0], stack[height, 1], stack[height, 2] = h, q, w
                        waiting[height, 0], waiting[height, 1], waiting[height, 2] = k, fresh, np.int64(split) - 1
                        height += 1
                    break
            if dead:
                if height == 0:
                    break
                at = height - 1
                h, q, w = stack[at, 0], stack[at, 1], stack[at, 2]
                k, fresh = waiting[at, 0], waiting[at, 1] > 0
                waiting[at, 2] -= 1
                height -= waiting[at, 2] == 0
        sums[0, 0] += score0
        sums[0, 2] += score2
        sums[0, 3] += score3
        sums[1, 0] += score0 * score0
        sums[1, 2] += score2 * score2
        sums[1, 3] += score3 * score3


@exact
def beam(place, count, edges, ratio):
    """Particles of a beam through a slab, many at a time, each of which counts whole: two events, then the next two.

    Parameters
    ----------
    place : (4,) uint64: key, index of the first particle
    count : int
    edges, ratio : from ``transport._numbers``

    Returns
    -------
    straight, out, back, lost : int, how many were transmitted without a collision, transmitted in all, reflected,
        absorbed
    """
    k0, k1, c1, c2, zero = place[0], place[1], place[2], place[3], uint64(0)
    thick, layers = edges[-1], ratio.size
    who, depth, mu, end = np.empty(BATCH, np.uint64), np.empty(BATCH), np.empty(BATCH), np.empty(BATCH)
    words, tau0, tau1 = np.empty((4, BATCH), np.uint64), np.empty(BATCH), np.empty(BATCH)
    share, scale = ratio[0], 2 / ratio[0] if ratio[0] > 0 else 0.0
    straight, out, back, lost = 0, 0, 0, 0
    for first in range(0, count, BATCH):
        live = min(BATCH, count - first)
        for j in range(live):
            who[j], depth[j], mu[j] = c1 + uint64(first + j), 0.0, 1.0
        n = zero
        while live:
            n += uint64(1)
            a, b, c, d = words[0], words[1], words[2], words[3]
            for j in range(live):
                a[j], b[j], c[j], d[j] = block(k0, k1, n, who[j], c2, zero)
            for j in range(live):
                tau0[j] = path(a[j])
            for j in range(live):
                tau1[j] = path(c[j])
            if layers == 1:
                for j in range(live):
                    s = depth[j] + mu[j] * tau0[j]
                    v = uniform(b[j])
                    t = s + turned(v, scale) * tau1[j]
                    u = uniform(d[j])
                    early, late = fate(s, thick, v, share), fate(t, thick, u, share)
                    end[j] = early if early > 0 else late
                    depth[j], mu[j] = t, turned(u, scale)
            else:
                for j in range(live):
                    s = depth[j] + mu[j] * tau0[j]
                    v = uniform(b[j])
                    p = ratio[index(edges, s)]
                    t = s + turned(v, 2 / p) * tau1[j]
                    u = uniform(d[j])
                    early, p = fate(s, thick, v, p), ratio[index(edges, t)]
                    late = fate(t, thick, u, p)
                    end[j] = early if early > 0 else late
                    depth[j], mu[j] = t, turned(u, 2 / p)
            if n == 1:
                for j in range(live):
                    straight += tau0[j] >= thick
            left = 0
            for j in range(live):
                who[left], depth[left], mu[left] = who[j], depth[j], mu[j]
                left += end[j] == 0
            for j in range(live):
                out += end[j] == 1
                back += end[j] == 2
                lost += end[j] == 3
            live = left
    return straight, out, back, lost


@exact
def neutrons(place, size, in_slab, scattering, born, ends, yields, collisions):
    """Neutrons from their sources to their ends.

    Parameters
    ----------
    place : (4,) uint64: key, index of the first neutron
    size : float
    in_slab : bool
    scattering, born : float
    ends, yields, collisions : (n,) float64, int64 and int64; ends hold where they start; written
    """
    k0, k1, c1, c2, zero = place[0], place[1], place[2], place[3], uint64(0)
    scale, rest = 2 / scattering if scattering > 0 else 0.0, 1 / (1 - scattering)
    for i in range(ends.size):
        particle = c1 + uint64(i)
        w0, _, w2, w3 = block(k0, k1, zero, particle, c2, zero)
        mu, s, n, event, hits = 2 * uniform(w0) - 1, ends[i], zero, 0, 0
        while True:
            if event == 0:
                n += uint64(1)
                word, decision, w2, w3 = block(k0, k1, n, particle, c2, zero)
            else:
                word, decision = w2, w3
            event = 1 - event
            v = uniform(decision)
            if in_slab:
                t = s + mu * path(word)
                inside = 0 <= t < size
            else:
                h = s * mu
                q = max(s * s - h * h, 0.0)
                h = h + path(word)
                t = np.sqrt(q + h * h)
                inside = t < size
            if not inside:
                break
            s = t
            hits += 1
            if v >= scattering:
                yields[i] = np.int64(np.floor(born + (v - scattering) * rest))
                break
            mu = min(v * scale - 1, 1.0)
        ends[i], collisions[i] = s, hits

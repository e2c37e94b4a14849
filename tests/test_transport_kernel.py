"""Histories of neutral particles: words by index, both versions to the bit, any cut into calls, bad arguments."""

import numpy as np
import pytest

from brmpi.kernels import transport
from brmpi.streams import Stream

KEY = Stream(7, "particles").key
LAYERS = ((1.0, 0.5, 2.0), (1.0, 0.0, 0.7), (0.5, 0.2, 0.9))
DEEP = ((2.0, 3.0), (1.0, 1.5), (0.9, 0.6))
PROBLEMS = {
    "beam": transport.Slab(5.0, 1.0, 0.5),
    "absorber": transport.Slab(3.0, 1.0, 0.0),
    "scatterer": transport.Slab(3.0, 1.0, 1.0),
    "layers": transport.Slab(*LAYERS),
    "biased": transport.Slab(*LAYERS, source="cosine", biased=True),
    "split": transport.Slab(*DEEP, source="isotropic", biased=True, surfaces=(1.0, 2.0, 3.0, 4.0), split=3),
    "inside": transport.Slab(*LAYERS, source="uniform", surfaces=(0.5, 1.2, 3.0)),
    "centre": transport.Sphere(*LAYERS),
    "sphere": transport.Sphere(*LAYERS, source="uniform", biased=True),
    "shells": transport.Sphere(*DEEP, source="uniform", biased=True, surfaces=(1.0, 2.0, 2.5, 4.0), split=3),
    "void": transport.Sphere(2.0, 0.0, 0.0, source="uniform"),
}


def test_words_of_a_particle_are_its_stretch_of_the_stream():
    first = (5 << 64) + 2**64 - 4
    found = transport._words(KEY, 3, first, np.arange(4))
    for i in range(4):
        np.testing.assert_array_equal(found[:, i], Stream(7, "particles").words(2**66 * (first + i) + 4 * 3, 4))


def test_optical_path_is_the_logarithm():
    words = np.concatenate([Stream(3, "words").words(0, 10000), np.array([0, 2**64 - 1, 2**63], np.uint64)])
    u = transport._uniform(words)
    assert u.min() > 0 and u.max() < 1
    np.testing.assert_allclose(transport._path(u), -np.log(u), rtol=6e-16)


@pytest.mark.parametrize("name", PROBLEMS)
def test_both_versions_agree_bit_for_bit(name):
    first = (3 << 64) + 12345
    found = [transport.histories(KEY, first, 2500, PROBLEMS[name], backend) for backend in ("numpy", "numba", "opencl")]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert found[0][0, 0] > 0 and np.isfinite(found[0]).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_history_depends_on_its_index_alone(name):
    each = np.array([transport.histories(KEY, 100 + i, 1, PROBLEMS[name], "numba")[0] for i in range(150)])
    whole = transport.histories(KEY, 100, 150, PROBLEMS[name], "numba")
    np.testing.assert_array_equal(whole, [np.cumsum(each, axis=0)[-1], np.cumsum(each**2, axis=0)[-1]])
    assert len(np.unique(each, axis=0)) > 1 or name == "void"


def test_no_particles_and_particles_of_an_analogue_game_are_neither_lost_nor_made():
    for name in ("beam", "absorber", "scatterer", "layers", "centre"):
        for backend in ("numpy", "numba"):
            assert not transport.histories(KEY, 0, 0, PROBLEMS[name], backend).any()
            assert transport.histories(KEY, 0, 3000, PROBLEMS[name], backend)[0, :3].sum() == 3000


def test_shells_of_one_material_are_one_sphere():
    one = transport.histories(KEY, 0, 20000, transport.Sphere(2.0, 1.3, 0.7, source="uniform"))
    parts = transport.Sphere((0.3, 0.7, 1.0), (1.3,) * 3, (0.7,) * 3, source="uniform")
    np.testing.assert_array_equal(one, transport.histories(KEY, 0, 20000, parts))


@pytest.mark.parametrize("geometry", ["slab", "sphere"])
@pytest.mark.parametrize("scattering", [0.0, 0.69])
def test_generations_of_both_versions_agree_bit_for_bit(geometry, scattering):
    places = Stream(1, "places").uniform(0, 30000) * 1.5
    arguments = (places, 1.5, geometry, scattering, 2.3)
    found = [transport.generation(KEY, (2 << 64) + 5, *arguments, backend) for backend in ("numpy", "numba")]
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)
    ends, yields, collisions = found[0]
    born = yields > 0
    assert set(np.unique(yields)) == {0, 2, 3} and (collisions[born] > 0).all() and (ends[born] <= 1.5).all()
    later = transport.generation(KEY, (2 << 64) + 5 + 1000, places[1000:], *arguments[1:])
    np.testing.assert_array_equal(later[0], ends[1000:])


@pytest.mark.parametrize(("change", "words"), [
    ({"thickness": 0.0}, "thickness = 0.0: must be > 0"), ({"total": -1.0}, "total = -1.0: must be >= 0"),
    ({"scattering": 1.5}, "scattering = 1.5: must be >= 0 and <= 1"), ({"total": (1.0, 2.0)}, r"\[1, 2, 1\] layers"),
    ({"thickness": float("nan")}, "thickness = nan"), ({"source": "centre"}, "source = 'centre': a slab has beam"),
    ({"surfaces": (1.0, 3.0)}, r"surfaces = \[1.0, 3.0\]: must go up, between 0 and 3"),
    ({"surfaces": (2.0, 1.0)}, "must go up"), ({"split": 1}, "split = 1: must be a whole number >= 2")])
def test_impossible_problems(change, words):
    with pytest.raises(ValueError, match=words):
        transport.histories(KEY, 0, 1, transport.Slab(**({"thickness": 3.0, "total": 1.0, "scattering": 0.5} | change)))


def test_impossible_arguments():
    slab = PROBLEMS["beam"]
    for first, count in ((-1, 1), (0, -1), (2**64 - 1, 2), (2**128, 1)):
        with pytest.raises(ValueError, match=f"first = {first}, count = {count}"):
            transport.histories(KEY, first, count, slab)
    with pytest.raises(ValueError, match="backend = 'fortran'"):
        transport.histories(KEY, 0, 1, slab, "fortran")
    with pytest.raises(ValueError, match="key"):
        transport.histories((1, 2**64), 0, 1, slab)
    for change in ({"geometry": "cube"}, {"size": 0}, {"scattering": 1.0}, {"born": -1}):
        arguments = {"size": 1, "geometry": "slab", "scattering": 0.5, "born": 1} | change
        with pytest.raises(ValueError, match="geometry = "):
            transport.generation(KEY, 0, [0.5], **arguments)

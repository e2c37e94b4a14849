"""Samples: files in all forms, what is refused, splits, scaling, orders and augmentations."""

import numpy as np
import pytest

from brmpi.errors import BadInput
from brmpi.train import batches, data

X = np.arange(60.0).reshape(12, 5) ** 1.5
Y = np.array([3, 1, 2] * 4)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRMPI_DATA", str(tmp_path / "sets"))


@pytest.mark.parametrize(("name", "shape", "counts", "classes"), [
    ("digits", (1797, 8, 8), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], "0"),
    ("breast-cancer", (569, 30), [212, 357], "malignant"), ("wine", (178, 13), [59, 71, 48], "class_0")])
def test_bundled_sets_are_written_once(alone, name, shape, counts, classes):
    samples = data.load(alone, name)
    file = data.folder() / f"{name}.h5"
    written = file.stat().st_mtime_ns
    assert samples.inputs.shape == shape and np.bincount(samples.labels).tolist() == counts
    assert samples.classes[0] == classes and samples.source == str(file)
    again = data.load(alone, name)
    assert file.stat().st_mtime_ns == written and np.array_equal(again.inputs, samples.inputs)


def files(tmp_path):
    import h5py

    np.savez(tmp_path / "plain.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "packed.npz", x=X, y=Y.astype(float))
    data.write(tmp_path / "own.h5", X, Y)
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["a/x"], file["a/y"] = X.astype(">f4"), Y[:, None]
    return [("plain.npz", "x", "y"), ("packed.npz", "x", "y"), ("own.h5", "x", "y"), ("deep.h5", "a/x", "a/y")]


def test_files_in_all_forms_hold_the_same(alone, tmp_path):
    for name, x, y in files(tmp_path):
        samples = data.load(alone, name, x, y)
        assert np.allclose(samples.inputs, X, rtol=1e-6) and samples.shape == (5,) and len(samples) == 12
        assert samples.labels.tolist() == (Y - 1).tolist() and samples.classes == ["1", "2", "3"], name


def test_labels_may_be_words(alone, tmp_path):
    import h5py

    with h5py.File(tmp_path / "words.h5", "w") as file:
        file["x"] = X
        file["y"] = np.array([b"cat", b"dog", b"ant"] * 4)
    samples = data.load(alone, "words.h5")
    assert samples.classes == ["ant", "cat", "dog"] and samples.labels[:3].tolist() == [1, 2, 0]
    np.savez("words.npz", x=X, y=np.array(["cat", "dog", "ant"] * 4))
    assert data.load(alone, "words.npz").labels.tolist() == samples.labels.tolist()


def test_a_large_set_stays_in_its_file(alone, tmp_path):
    data.write(tmp_path / "own.h5", X, Y)
    samples = data.load(alone, "own.h5", memory=1e-6)
    assert not isinstance(samples.inputs, np.ndarray)
    for places in ([7, 2, 2, 11], [0, 11], [], [5, 4, 3]):
        assert np.array_equal(samples.rows(np.array(places, int)), X[places])
    np.savez("plain.npz", x=X, y=Y)
    with pytest.raises(BadInput, match="more than memory = 1e-06 MB"):
        data.load(alone, "plain.npz", memory=1e-6)


@pytest.mark.parametrize(("arrays", "sentence"), [
    ({"x": X}, "has no 'y': there are x"), ({"y": Y}, "has no 'x': there are y"),
    ({"x": X, "y": Y[:5]}, r"y has shape \(5,\): must be \(12,\)"), ({"x": X[:0], "y": Y[:0]}, "at least one of each"),
    ({"x": X.ravel(), "y": Y}, "must be numbers"), ({"x": X.astype(complex), "y": Y}, "must be numbers"),
    ({"x": X, "y": Y + 0.5}, "not whole"), ({"x": X, "y": np.where(Y[0] == Y, np.inf, Y)}, "not whole"),
    ({"x": X, "y": np.array([None] * 12)}, "Python objects"), ({"x": np.asfortranarray(X), "y": Y}, "Fortran")])
def test_what_cannot_be_used_is_refused(alone, arrays, sentence):
    np.savez("bad.npz", **arrays)
    with pytest.raises(BadInput, match=sentence) as told:
        data.load(alone, "bad.npz")
    assert str(told.value).startswith("bad.npz: ")


def test_files_that_are_none(alone, tmp_path):
    with pytest.raises(BadInput, match="no such file, and none of digits"):
        data.load(alone, "nothing.h5")
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    for name in ("text.h5", "text.npz"):
        with pytest.raises(BadInput, match="cannot be read as HDF5 or npz"):
            data.load(alone, name)


@pytest.mark.mpi
def test_a_file_that_is_damaged_behind_its_head(comm, assert_all, tmp_path):
    x = np.random.default_rng(1).integers(0, 9, (4000, 20))
    if comm.rank == 0:
        np.savez("cut.npz", x=x, y=x[:, 0])
        whole = bytearray((tmp_path / "cut.npz").read_bytes())
        whole[200_000:200_256] = bytes(range(256))
        (tmp_path / "cut.npz").write_bytes(whole)
        data.write(tmp_path / "hole.h5", x, x[:, 0])
        whole = (tmp_path / "hole.h5").read_bytes()
        (tmp_path / "hole.h5").write_bytes(whole[:len(whole) // 2])
    for name in (["cut.npz", str(tmp_path / "hole.h5")]):
        with pytest.raises(BadInput, match="cannot be read"):
            data.load(comm, comm.bcast(name))
        assert_all(True)


def test_the_first_sample_that_is_not_finite_is_named(alone):
    x = X.copy()
    x[7, 2] = np.nan
    samples = data.Samples(x, Y, ["1"], "some.h5")
    with pytest.raises(BadInput, match=r"some\.h5: sample 7 holds"):
        data.scaling(alone, samples, np.arange(12), "standard")
    data.scaling(alone, samples, np.arange(7), "standard")


def test_splits_keep_the_share_of_each_class():
    labels = np.repeat([0, 1, 2], [50, 30, 21])
    for seed in range(5):
        kept, aside = data.split(labels, 0.2, seed)
        assert sorted([*kept, *aside]) == list(range(101)) and len(aside) == 20
        assert np.bincount(labels[aside]).tolist() == [10, 6, 4]
    assert not np.array_equal(data.split(labels, 0.2, 1)[1], data.split(labels, 0.2, 2)[1])
    assert data.split(labels, 0.0, 1)[1].size == 0 and len(data.split(labels[:1], 0.9, 1)[0]) <= 1


def test_scaling_is_that_of_the_samples_trained_on(alone):
    samples = data.Samples(np.c_[X, np.full(12, 4.0)], Y, ["1"], "some.h5")
    places = np.array([0, 3, 4, 9])
    mean, deviation = data.scaling(alone, samples, places, "standard")
    assert mean[:5] == pytest.approx(X[places].mean(axis=0)) and deviation[:5] == pytest.approx(X[places].std(axis=0))
    assert (mean[5], deviation[5]) == (4.0, 1.0)  # what never changes is only moved
    mean, deviation = data.scaling(alone, samples, places, "whole")
    every = samples.inputs[places]
    assert set(mean) == {mean[0]} and mean[0] == pytest.approx(every.mean())
    assert deviation[0] == pytest.approx(every.std())
    assert data.scaling(alone, samples, places, "none")[1].tolist() == [1.0] * 6


def test_every_epoch_takes_every_sample_once_in_another_order():
    order = batches.Order(np.arange(100, 123), 5, 7)
    epochs = [[order.of(5 * epoch + step) for step in range(5)] for epoch in range(3)]
    for number, epoch in enumerate(epochs):
        taken = np.concatenate([places for places, _ in epoch])
        assert sorted(taken) == list(range(100, 123)) and [len(places) for places, _ in epoch] == [5, 5, 5, 5, 3]
        assert [first for _, first in epoch] == [23 * number + 5 * step for step in range(5)]
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])
    assert [order.samples(step) for step in (0, 1, 5, 6, 15)] == [0, 5, 23, 28, 69]
    assert np.array_equal(order.of(7)[0], batches.Order(np.arange(100, 123), 5, 7).of(7)[0])


def test_augmentation_is_by_place_in_the_order():
    x = np.random.default_rng(1).random((9, 6, 5)).astype(np.float32)
    change = batches.Augment(("shift", "flip", "noise"), 2, 0.3, 4)
    whole = change.scaled(change.raw(x.copy(), 40), 40)
    parts = np.concatenate([change.scaled(change.raw(x[a:b].copy(), 40 + a), 40 + a) for a, b in ((0, 4), (4, 9))])
    assert np.array_equal(whole, parts) and whole.shape == x.shape and whole.dtype == np.float32
    assert not np.array_equal(whole, change.scaled(change.raw(x.copy(), 49), 49))


def test_shift_moves_by_up_to_its_reach_and_flip_turns():
    x = np.zeros((4000, 7, 7), np.float32)
    x[:, 3, 3] = 1
    moved = batches.Augment(("shift",), 2, 0, 1).raw(x.copy(), 0)
    rows, columns = np.nonzero(moved.sum(axis=0))
    assert moved.sum() == 4000 and set(rows) == set(columns) == {1, 2, 3, 4, 5}
    assert moved.sum(axis=0)[1:6, 1:6].min() > 100  # 160 expected
    x = np.tile(np.arange(3.0, dtype=np.float32), (1000, 2, 1))
    turned = batches.Augment(("flip",), 1, 0, 1).raw(x.copy(), 0)[:, 0, 0] == 2
    assert 400 < turned.sum() < 600

"""Predictions of a network for a file, on any number of ranks, and what is refused."""

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from brmpi.errors import BadInput
from brmpi.train import data, model, nets, predict


@pytest.fixture
def net(tmp_path):
    """A network with random parameters for samples of (4, 3), three classes."""
    made = nets.mlp((4, 3), 3, [8])
    rng = np.random.default_rng(3)
    w = rng.standard_normal(made.size).astype(np.float32)
    mean, factor = rng.random((4, 3)), 1 + rng.random((4, 3))
    found = model.Model("mlp", (4, 3), ["ant", "cat", "dog"], {"hidden": [8]}, w, mean, factor)
    (tmp_path / "run").mkdir()
    found.save(tmp_path / "run/model.h5")
    return found


@pytest.fixture
def x():
    return np.random.default_rng(4).standard_normal((333, 4, 3))


def test_a_model_is_read_as_it_was_written(net, tmp_path, x):
    again = model.load(tmp_path / "run")
    assert np.array_equal(again.probabilities(x), net.probabilities(x)) and again.classes == net.classes
    assert np.array_equal(again.probabilities(x)[100:101], again.probabilities(x[100:101]))  # whoever is beside it
    rows = again.probabilities(x)
    assert rows.shape == (333, 3) and rows.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert again.probabilities(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("ranks", [0, 1, 2, 3, 5])
def test_the_same_answers_on_any_number_of_ranks(launch, tmp_path, net, x, ranks):
    answers = net.probabilities(x).argmax(axis=1)
    data.write(tmp_path / "some.h5", x, (answers + (np.arange(333) % 4 == 0)) % 3, ["ant", "cat", "dog"])
    done = launch(ranks, "-m", "brmpi.train.predict", "run", "some.h5", "--out", "found.h5")
    assert done.returncode == 0, done.stderr
    assert "predict: 333 samples" in done.stdout and "249 right (74.77%)" in done.stdout
    with h5py.File(tmp_path / "found.h5") as file:
        assert np.array_equal(file["answer"][:], answers)
        assert np.array_equal(file["probability"][:], net.probabilities(x))
        assert [name.decode() for name in file.attrs["classes"]] == ["ant", "cat", "dog"]


def test_few_samples_none_labelled_flat_or_in_the_file(launch, tmp_path, net, x):
    np.savez(tmp_path / "one.npz", x=x[:1].reshape(1, 12))
    done = launch(3, "-m", "brmpi.train.predict", "run/model.h5", "one.npz", "--out", "one.h5")
    assert done.returncode == 0 and "right" not in done.stdout, done.stderr
    with h5py.File(tmp_path / "one.h5") as file:
        assert np.array_equal(file["probability"][:], net.probabilities(x[:1]))
    data.write(tmp_path / "large.h5", x)
    done = launch(2, "-m", "brmpi.train.predict", "run", "large.h5", "--memory", "0.001", "--out", "large-found.h5")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "large-found.h5") as file:
        assert np.array_equal(file["probability"][:], net.probabilities(x))


def test_what_is_refused(tmp_path, monkeypatch, net, x):
    monkeypatch.chdir(tmp_path)
    data.write("some.h5", x)
    data.write("other.h5", x[:, :3])
    x[5, 1, 1] = np.inf
    data.write("broken.h5", x)
    for words, sentence in ((["nothing", "some.h5"], "nothing: holds no model.h5"),
                            (["run", "nothing.h5"], "no such file"),
                            (["run", "other.h5"], r"samples have shape \(3, 3\): the network of run takes \(4, 3\)"),
                            (["run", "broken.h5"], "1 samples hold numbers that are not finite"),
                            (["run", "some.h5", "--out", "some.h5"], "is there already"),
                            (["run", "some.h5", "--out", "none/x.h5"], "is no folder"),
                            (["some.h5", "some.h5"], "is not a 'brmpi model 1'"),
                            (["run", "some.h5", "--memory", "0"], "--memory 0: must be > 0")):
        with pytest.raises(BadInput, match=sentence), np.errstate(all="ignore"):
            predict.run(MPI.COMM_SELF, words)


def test_labels_of_other_files_are_matched_by_name(net):
    samples = data.Samples(np.zeros((3, 4, 3)), np.array([0, 1, 2]), ["dog", "emu", "ant"], "some.h5")
    assert predict.known(net.classes, samples).tolist() == [2, -1, 0]

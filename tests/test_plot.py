"""brmpi plot: what is drawn is what is in the files, and what cannot be drawn is refused in one sentence."""

import io
import subprocess
import sys

import numpy as np
import pytest
from conftest import environment
from mpi4py import MPI

from brmpi import cli
from brmpi.results import bodies, canvas, checkpoints, conservation, curves, fields, folder, snapshots
from brmpi.results.diagnostics import Column, Diagnostics
from brmpi.results.pieces import Piece, rows
from brmpi.results.snapshots import Mesh, Particles, Record

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
RADII = (0.0, 0.4, 0.7, 1.0, 1.5, 5.2, 9.5, 19.0, 30.0)
STAR = ["Sun", "Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]


def a_system(time):
    """Circles about a star, with Kepler's periods."""
    angle = [2 * np.pi * time / r**1.5 if r else 0.0 for r in RADII]
    return np.array([[r * np.cos(a), r * np.sin(a), 0.0] for r, a in zip(RADII, angle)])


def whole(values):
    return Piece(values, (0,) * values.ndim, values.shape)


def table(path, count, **columns):
    with Diagnostics(path / "diagnostics.h5", {"time": "yr", **{name: column for name, (column, _) in columns.items()}},
                     wall={"seconds": "s"}) as file:
        for step in range(count):
            file.append({"step": step, "time": 0.5 * step, "seconds": 0.1,
                         **{name: value(step) for name, (_, value) in columns.items()}})


@pytest.fixture
def runs(tmp_path):
    """``runs(name, fields of a snapshot at a time)``: a run of ten rows and six snapshots."""
    def make(name, state):
        path = folder.create("test", name, base=tmp_path)
        table(path, 10, energy=(Column("J", True), lambda step: -2.0 + 1e-6 * step), kinetic=("J", lambda step: 1.0),
              momentum_x=(Column("", True), lambda step: 1e-17 * step), momentum_y=(Column("", True), lambda step: 0.0),
              virial_ratio=("", lambda step: 1 + 0.01 * step))
        for step in range(6):
            snapshots.write(MPI.COMM_SELF, snapshots.path(path, "test", step), step, 0.8 * step, 0.8, **state(step))
        folder.record(path, {"program": "test", "case_name": name, "units": {"length": "au", "time": "yr"}})
        return path

    return make


def planets(step):
    position = Record(rows(a_system(0.8 * step), 0, len(RADII)))
    return {"particles": [Particles("bodies", len(RADII), {"position": position}, {"names": STAR})]}


def cluster(step):
    positions = np.random.default_rng(1).normal(size=(3000, 3)) * (1 + 0.2 * step)
    return {"particles": [Particles("stars", 3000, {"position": Record(rows(positions, 0, 3000))})]}


def grid(*shape):
    def state(step):
        values = np.add.outer(*map(np.arange, shape[-2:])) * 1.0 if len(shape) > 1 else np.arange(shape[0]) * 1.0
        values = np.broadcast_to(values, shape) * (1 + step)
        return {"meshes": [Mesh("temperature", whole(np.ascontiguousarray(values)), "zyx"[-len(shape):],
                                (0.1,) * len(shape), (0.0,) * len(shape), unit="K", grid_unit="m")]}
    return state


def colourful(path):
    """Number of different colours, after a check that it is a PNG of sensible size."""
    image = Image.open(path)
    assert image.format == "PNG" and 400 < image.width < 4000 and 300 < image.height < 4000
    assert 8_000 < path.stat().st_size < 4_000_000
    return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


@pytest.mark.parametrize(("name", "state", "picture", "colours"), [
    ("planets", planets, "bodies.png", 300), ("cluster", cluster, "bodies.png", 300),
    ("line", grid(40), "fields.png", 60), ("plane", grid(30, 20), "fields.png", 100),
    ("volume", grid(5, 12, 14), "fields.png", 60)])
def test_a_run_is_drawn(runs, capsys, name, state, picture, colours):
    path = runs(name, state)
    assert cli.main(["plot", str(path)]) == 0
    assert capsys.readouterr().out.split() == [str(path / "diagnostics.png"), str(path / picture)]
    assert colourful(path / "diagnostics.png") > 60 and colourful(path / picture) > colours
    assert not list(path.glob("*.part"))


def test_a_film_has_a_picture_a_snapshot_and_moves(runs, tmp_path):
    for name, state in (("planets", planets), ("cluster", cluster), ("plane", grid(8, 9)), ("line", grid(9))):
        out = tmp_path / f"{name}.gif"
        assert cli.main(["plot", str(runs(name, state)), "--movie", "--dpi", "50", "--out", str(out)]) == 0
        film = Image.open(out)
        assert film.format == "GIF" and film.n_frames == 6 and film.info["loop"] == 0
        frames = []
        for index in (0, 5):
            film.seek(index)
            frames.append(np.asarray(film.convert("RGB"), int))
        changed = (np.abs(frames[0] - frames[1]).max(axis=2) > 40).mean()
        assert 0.002 < changed < 0.7, (name, changed)


def test_a_file_alone_is_drawn(runs, tmp_path, capsys):
    path = runs("planets", planets)
    out = tmp_path / "one.png"
    assert cli.main(["plot", str(path / "diagnostics.h5"), "--out", str(out)]) == 0 and colourful(out) > 60
    assert cli.main(["plot", str(path / "snapshots" / "test_00000003.h5"), "--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "test_00000003-bodies.png").exists()
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "new" / "test_00000003-bodies.png")]


def test_the_curves_are_the_data(tmp_path):
    steps = np.arange(5)
    given = {"step": steps, "time": 1000.0 * steps, "energy": -2.0 + 1e-6 * steps, "heat": 3.0 + steps,
             "momentum_x": 1e-17 * steps, "momentum_y": 0.0 * steps, "wall/seconds": 0.1 * steps}
    columns = dict.fromkeys(given, Column()) | {"time": Column("d"), "energy": Column("J", True), "heat": Column("K"),
                                                "momentum_x": Column("kg", True), "momentum_y": Column("kg", True)}
    with canvas.pens():
        panels = curves.draw(given, columns, "title").axes
    assert [panel.get_ylabel() for panel in panels] == [
        "relative change of energy", "change of momentum [kg]", "heat [K]"]
    assert panels[-1].get_xlabel() == "time [yr]"
    energy, momentum, heat = (panel.lines[0].get_ydata() for panel in panels)
    assert np.isnan(energy[0]) and np.allclose(energy[1:], 0.5e-6 * steps[1:])
    assert np.allclose(momentum[1:], 1e-17 * steps[1:]) and np.array_equal(heat, given["heat"])
    assert panels[0].get_yscale() == "log" and panels[2].get_yscale() == "linear"
    assert np.allclose(panels[2].lines[0].get_xdata(), 1000 * steps / 365.25)


def test_change_is_relative_where_that_means_something():
    steps = np.arange(3)
    given = {"step": steps, "time": steps, "energy": np.array([4.0, 5.0, 3.0]), "mass": np.full(3, 2.0),
             "momentum_x": np.array([3.0, 3.0, 3.0]), "momentum_y": np.array([4.0, 4.0, 5.0]),
             "spin": np.array([0.0, 1.0, 2.0])}
    plain = dict.fromkeys(given, Column("u"))
    found = {change.name: change for change in conservation.changes(given, plain)}
    assert list(found) == ["energy", "mass", "momentum"]  # known by name, as nothing is marked
    assert np.allclose(found["energy"].values, [0, 0.25, 0.25]) and np.allclose(found["momentum"].values, [0, 0, 0.2])
    assert (found["mass"].values == 0).all()
    found = conservation.changes(given, plain | {"spin": Column("u", True)})
    assert [(change.name, change.relative, change.unit) for change in found] == [("spin", False, "u")]
    assert conservation.changes({name: values[:0] for name, values in given.items()}, plain) == []


def test_a_system_is_split_into_inner_and_outer_orbits():
    times = np.linspace(0, 5, 40)
    track = bodies.Track(times, np.array([a_system(t)[:, :2] for t in times]), STAR)
    assert bodies.split(track) == pytest.approx(1.5)
    with canvas.pens():
        sheet = bodies.orbits(track, "title", "au", "t = 5")
    inner, every = sheet.axes
    assert inner.get_xlim()[1] < 2.0 < 30 < every.get_xlim()[1] and inner.get_aspect() == 1.0
    assert {text.get_text() for text in inner.texts} == set(STAR[:5])
    assert {text.get_text() for text in every.texts} >= set(STAR[5:])
    for body, name in enumerate(STAR[:5]):  # each name is beside the last place of its body
        text = next(text for text in inner.texts if text.get_text() == name)
        assert np.allclose(text.xy, track.places[-1, body])
    small = bodies.Track(times, track.places[:, :4], [])
    assert bodies.split(small) is None


def test_density_counts_every_body_in_the_window():
    frames = [np.random.default_rng(seed).normal(size=(2500, 2)) for seed in (1, 2)]
    _, half = view = (np.zeros(2), 2.0)
    for frame, image in zip(frames, bodies.densities(frames, view)):
        cell = (2 * half / len(image)) ** 2
        assert image.sum() * cell == pytest.approx((np.abs(frame) <= half).all(axis=1).sum())
        up = image.sum(axis=1)[len(image) // 2:].sum() * cell
        assert up == pytest.approx(((np.abs(frame) <= half).all(axis=1) & (frame[:, 1] >= 0)).sum())


def test_images_have_the_extent_and_range_of_the_grid():
    mesh = grid(6, 4, 5)(0)["meshes"][0]
    data, along, cut = fields.values(mesh)
    assert np.array_equal(data, mesh.piece.data[3]) and along == [1, 2] and cut == "z = 0.3 m"
    with canvas.pens():
        sheet = fields.draw({"temperature": [mesh, mesh]}, ["a", "b"], "title")
    first = sheet.axes[0]
    assert np.allclose(first.images[0].get_extent(), (-0.05, 0.45, -0.05, 0.35))
    assert (first.get_xlabel(), first.get_ylabel()) == ("x [m]", "y [m]")
    assert first.images[0].get_clim() == (0.0, 7.0) and "temperature [K]" in [axes.get_ylabel() for axes in sheet.axes]
    assert fields.limits([np.array([-1.0, 3.0])]) == (-3.0, 3.0, "RdBu_r")
    assert fields.limits([np.array([2.0, np.nan]), np.array([5.0])]) == (2.0, 5.0, "viridis")
    assert fields.limits([np.array([9.0]), np.array([-1.0, 2.0]), np.array([0.5])]) == (-2.0, 2.0, "RdBu_r")
    assert fields.limits([np.array([5.0]), np.array([-1.0, 2.0]), np.array([0.5])]) == (-5.0, 5.0, "RdBu_r")
    wind = Mesh("wind", {"x": whole(np.full((2, 2), 3.0)), "y": whole(np.full((2, 2), 4.0))}, "yx", (1, 1), (0, 0))
    assert (fields.values(wind)[0] == 5.0).all()


def test_drawing_leaves_matplotlib_as_it_was(runs):
    import matplotlib

    path = runs("planets", planets)
    with matplotlib.rc_context({"axes.grid": False, "font.size": 3.0}):
        before = dict(matplotlib.rcParams)
        assert cli.main(["plot", str(path)]) == 0
        assert dict(matplotlib.rcParams) == before


def test_what_cannot_be_drawn_is_refused(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = runs("planets", planets)
    one = folder.create("test", "one", base=tmp_path)
    folder.record(one, {"program": "test"})
    (tmp_path / "text.h5").write_text("no HDF5")
    checkpoints.write(MPI.COMM_SELF, path, 3, {"a": rows(np.ones(3), 0, 3)}, {}, "test")
    for words, said in ((["missing"], "no such folder"), ([str(tmp_path)], "not a run"),
                        ([str(one)], "nothing to draw"),
                        ([str(tmp_path / "text.h5")], "cannot be read"), ([], "no run in it"),
                        ([str(checkpoints.path(path, "test", 3))], "a checkpoint"),
                        ([str(path), "--dpi", "5"], "--dpi 5: must be"), ([str(path), "--dpi", "nan"], "--dpi nan"),
                        ([str(path), "--out", str(tmp_path / "x.png")], "2 .png pictures"),
                        ([str(path), "--out", str(tmp_path / "x.gif")], "0 .gif pictures"),
                        ([str(path), "--out", str(tmp_path / "text.h5")], "not a folder"),
                        ([str(path / "diagnostics.h5"), "--movie"], "at least two snapshots")):
        assert cli.main(["plot", *words]) == 2, words
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.gif"))


def test_without_matplotlib_it_is_said_how_to_get_it(runs, monkeypatch, capsys):
    path = runs("planets", planets)
    for name, words in (("matplotlib", []), ("PIL.Image", ["--movie"])):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert cli.main(["plot", str(path), *words]) == 1
        assert "pip install brmpi[plot]" in capsys.readouterr().err


def test_a_picture_is_written_whole_or_not_at_all(runs, monkeypatch, capsys):
    from brmpi.results import disk

    path = runs("planets", planets)
    monkeypatch.setattr(disk, "free", lambda path: 100)
    assert cli.main(["plot", str(path)]) == 1
    assert "diagnostics.png: needs" in capsys.readouterr().err
    assert not list(path.glob("*.png*"))


def test_the_modules_that_programs_import_load_no_pictures():
    program = ("import sys, brmpi.results.folder, brmpi.results.diagnostics, brmpi.results.snapshots, "
               "brmpi.results.checkpoints, brmpi.results.pieces\n"
               "print([name for name in ('h5py', 'matplotlib', 'mpi4py', 'PIL') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30,
                          env=environment(PYTHONPATH=":".join(sys.path)))
    assert done.stdout.strip() == "[]"


def test_a_film_is_seen_frame_by_frame(tmp_path):
    def sheets():
        for shade in ("red", "blue"):
            with canvas.pens():
                sheet = canvas.figure(2, 2, "")
                sheet.set_facecolor(shade)
                yield sheet

    canvas.film(sheets(), tmp_path / "film.gif", 50)
    film = Image.open(io.BytesIO((tmp_path / "film.gif").read_bytes()))
    seen = []
    for index in range(film.n_frames):
        film.seek(index)
        seen.append(film.convert("RGB").getpixel((50, 50)))
    assert seen == [(255, 0, 0), (0, 0, 255)]

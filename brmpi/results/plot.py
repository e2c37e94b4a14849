"""``brmpi plot``: a run, or one of its files, as pictures and as a film."""

import math
from pathlib import Path

import numpy as np

from brmpi.arguments import Parser
from brmpi.errors import BadInput
from brmpi.results import (
    atoms,
    bodies,
    canvas,
    convergence,
    curves,
    diagnostics,
    fields,
    folder,
    hdf5,
    learning,
    snapshots,
)

PANELS = 6  # times in a picture of many bodies
FRAMES = 150  # pictures in a film
TRAIL = 40  # snapshots that a body's trail is long


def main(argv):
    """Draw a run and print the path of each picture.

    Parameters
    ----------
    argv : list of str, the words after ``brmpi plot``

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : nothing that can be drawn
    Fault : matplotlib or Pillow is not installed, or the disk is full
    """
    parser = Parser(prog="brmpi plot", description="Draw a run, or one of its files, as PNG (and GIF).")
    parser.add_argument("run", type=Path, metavar="RUN", nargs="?",
                        help="a run's folder, diagnostics.h5 or a snapshot; without it, the newest run in results/")
    parser.add_argument("--out", type=Path, metavar="PATH", help="a folder, or a .png or .gif for a single picture")
    parser.add_argument("--movie", action="store_true", help="a film of all snapshots too, as GIF")
    parser.add_argument("--dpi", type=float, default=150.0, metavar="N", help="dots per inch, 20 to 1200 (default 150)")
    options = parser.parse_args(argv)
    if not 20 <= options.dpi <= 1200:
        raise BadInput(f"--dpi {options.dpi:g}: must be from 20 to 1200")
    options.run = options.run or folder.newest()
    if not options.run.exists():
        raise BadInput(f"{options.run}: no such folder or file")
    source = Source(options.run)
    pictures = source.pictures()
    if options.movie:
        if len(source.files) < 2:
            raise BadInput(f"{options.run}: a film needs at least two snapshots, there are {len(source.files)}")
        pictures["movie.gif"] = source.film
    if not pictures:
        raise BadInput(f"{options.run}: nothing to draw yet: no row of diagnostics and no snapshot")
    targets = _targets(pictures, options.out, source.home)
    canvas.library("matplotlib")
    for name, target in targets.items():
        with canvas.pens():
            if name.endswith(".gif"):
                canvas.film(pictures[name](), target, min(options.dpi, 100.0))
            else:
                canvas.save(pictures[name](), target, options.dpi)
        print(target)
    return 0


def _targets(pictures, out, home):
    """Where each picture goes, by name."""
    if out is None:
        return {name: home / name for name in pictures}
    kind = out.suffix.lower()
    if kind in (".png", ".gif"):
        fitting = [name for name in pictures if name.endswith(kind)]
        if len(fitting) != 1:
            raise BadInput(f"--out {out}: there are {len(fitting)} {kind} pictures ({', '.join(pictures)}): "
                           "name a folder, or plot one file")
        return {fitting[0]: out}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: is not a folder, nor a .png or .gif: {error.strerror}") from None
    return {name: out / name for name in pictures}


class Source:
    """What there is to draw in a run's folder, or in one file of it.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    files : list of Path, snapshots in the order of steps
    home : Path, where pictures go

    Raises
    ------
    BadInput : a file or folder that is not a run's
    """

    def __init__(self, path):
        self.files, self.rows, self._alone = [], None, path.is_file()
        self.home = path.parent if self._alone else path
        run = path
        if not self._alone:
            folder.about(path)
            self.files = sorted((path / "snapshots").glob("*_[0-9]*.h5"), key=_step)
            self.rows = path / "diagnostics.h5"
        elif _kind(path) == "snapshot":
            self.files, run = [path], path.absolute().parent.parent
        else:
            self.rows, run = path, path.absolute().parent
        try:
            self._about = folder.about(run)
        except BadInput:
            self._about = {}
        units = self._about.get("units") or {}
        self._length, self._time = units.get("length") or "", units.get("time") or ""
        self._classes = self._about.get("classes") or []
        words = [self._about.get("program"), self._about.get("case_name")]
        self._title = " ".join(word for word in words if word) or path.stem

    def pictures(self):
        """Functions that draw, by the name of the picture.

        Returns
        -------
        dict of str to function of nothing to matplotlib.figure.Figure
        """
        found = {}
        if self.rows is not None:
            table, columns = _table(self.rows)
            estimates = [name for name in self._about.get("estimates") or () if name in table]
            if estimates and len(table.get("step", ())):
                exact = self._about.get("exact") or {}
                found["convergence.png"] = lambda: convergence.draw(table, columns, estimates, exact,
                                                                    self._distribution(), self._title)
            elif self._classes and len(table.get("step", ())):
                found["learning.png"] = lambda: learning.draw(table, self._learned(), self._classes, self._title)
            elif len(table.get("step", ())):
                found["diagnostics.png"] = lambda: curves.draw(table, columns, self._title)
        if self.files:
            last = snapshots.read(self.files[-1])
            prefix = f"{self.files[-1].stem}-" if self._alone else ""
            if any(species.total for species in last.particles.values()):
                boxed = atoms.fits(_largest(last))
                found[f"{prefix}{'atoms' if boxed else 'bodies'}.png"] = self._atoms if boxed else self._bodies
            shown = [mesh for name, mesh in last.meshes.items()
                     if self._alone or not (name == "distribution" or self._classes)]
            if any(np.prod(fields.values(mesh)[0].shape) for mesh in shown):
                found[f"{prefix}fields.png"] = self._fields
        return found

    def _distribution(self):
        """The newest snapshot's mesh of how samples are distributed, or None."""
        if not self.files:
            return None
        return snapshots.read(self.files[-1]).meshes.get("distribution")

    def _learned(self):
        """Meshes of the newest snapshot of a training run."""
        return snapshots.read(self.files[-1]).meshes if self.files else {}

    def _chosen(self, count):
        """Snapshots at even distances from the first to the last, in a small number."""
        places = np.unique(np.linspace(0, len(self.files) - 1, min(count, len(self.files))).round().astype(int))
        return [self.files[place] for place in places]

    def _when(self, times):
        """Times as they stand over pictures."""
        scale, unit = canvas.clock(times, self._time)
        longest = max(abs(scale(time)) for time in times)
        digits = 2 if longest < 10 else 1 if longest < 1000 else 0
        if 0 < longest < 1:
            digits = 2 - math.floor(math.log10(longest))
        return [f"t = {scale(time):.{digits}f} {unit}".strip() for time in times]

    def _unit(self, species):
        """The unit of length of some particles."""
        return self._length or species.records["position"].unit

    def _track(self, files):
        """Positions of the largest species in all of some snapshots, read one at a time."""
        times, places, names, unit = [], [], [], ""
        for file in files:
            snapshot = snapshots.read(file)
            species = _largest(snapshot)
            times.append(snapshot.time)
            places.append(bodies.flat(species))
            names, unit = list(species.attributes.get("names", [])), self._unit(species)
        if len(names) != len(places[-1]):
            names = []
        return times, places, names, unit

    def _bodies(self):
        """Orbits of a few bodies, or the density of many."""
        last = snapshots.read(self.files[-1])
        few = max(species.total for species in last.particles.values()) <= bodies.FEW
        times, places, names, unit = self._track(self.files if few else self._chosen(PANELS))
        if few and all(len(place) == len(places[-1]) for place in places):
            track = bodies.Track(np.array(times), np.array(places), names)
            return bodies.orbits(track, self._title, unit, self._when(times)[-1])
        return bodies.density(places, self._when(times), self._title, unit)

    def _atoms(self):
        """Atoms in a slab of their box at the first, a middle and the last time."""
        read = [snapshots.read(file) for file in self._chosen(fields.COLUMNS)]
        slabs = [atoms.slab(_largest(snapshot)) for snapshot in read]
        return atoms.draw(slabs, self._when([snapshot.time for snapshot in read]), self._title,
                          self._unit(_largest(read[-1])))

    def _fields(self):
        """All meshes at the first, a middle and the last time."""
        read = [snapshots.read(file) for file in self._chosen(fields.COLUMNS)]
        series = {name: [snapshot.meshes[name] for snapshot in read] for name in read[-1].meshes}
        return fields.draw(series, self._when([snapshot.time for snapshot in read]), self._title)

    def film(self):
        """One figure a snapshot, all on the same scale.

        Yields
        ------
        matplotlib.figure.Figure
        """
        files = self._chosen(FRAMES)
        last = snapshots.read(files[-1])
        if last.particles and atoms.fits(_largest(last)):
            scale = atoms.limits([atoms.slab(_largest(snapshots.read(file))) for file in self._chosen(12)])
            for file in files:
                snapshot = snapshots.read(file)
                yield atoms.draw([atoms.slab(_largest(snapshot))], self._when([snapshot.time, last.time])[:1],
                                 self._title, self._unit(_largest(snapshot)), scale)
            return
        if last.particles:
            yield from self._moving_bodies(files)
            return
        read = [snapshots.read(file) for file in self._chosen(12)]
        name = next((name for name in last.meshes if _changes(read[0], last, name)), next(iter(last.meshes)))
        scale = fields.limits([fields.values(snapshot.meshes[name])[0] for snapshot in read])
        times = self._when([snapshot.time for snapshot in read])
        for file in files:
            snapshot = snapshots.read(file)
            times = self._when([snapshot.time, read[-1].time])
            yield fields.draw({name: [snapshot.meshes[name]]}, times[:1], self._title, {name: scale})

    def _moving_bodies(self, files):
        """Frames of bodies: trails of a few, the density of many."""
        times, places, names, unit = self._track(files)
        when = self._when(times)
        view = bodies.window(places)
        if len(places[-1]) <= bodies.FEW and all(len(place) == len(places[-1]) for place in places):
            track = bodies.Track(np.array(times), np.array(places), names)
            for i in range(len(files)):
                yield bodies.frame(track, i, TRAIL, self._title, unit, when[i])
            return
        top = max(image.max() for image in bodies.densities(places[::max(1, len(places) // 12)], view))
        for place, time in zip(places, when):
            yield bodies.density([place], [time], self._title, unit, view=view, top=top)


def _largest(snapshot):
    """The species of most particles."""
    return max(snapshot.particles.values(), key=lambda species: species.total)


def _step(file):
    """The step in the name of a snapshot."""
    return int("".join(filter(str.isdigit, file.stem.rpartition("_")[2])) or 0)


def _table(path):
    """Diagnostics and their columns; empty where there is no file yet."""
    try:
        return diagnostics.read(path), diagnostics.columns(path)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def _kind(path):
    """What a file is: "snapshot" or "diagnostics"."""
    try:
        with hdf5.opened(path, swmr=True) as file:
            if "openPMD" in file.attrs:
                return "snapshot"
            if "step" in file and "time" in file:
                return "diagnostics"
            told = "a checkpoint: plot its run's folder" if "format" in file.attrs else "no file of a run"
    except OSError as error:
        raise BadInput(f"{path}: cannot be read as HDF5: {error}") from None
    raise BadInput(f"{path}: is {told}")


def _changes(first, last, name):
    """Whether a mesh is not the same in two snapshots."""
    return name not in first.meshes or not np.array_equal(fields.values(first.meshes[name])[0],
                                                          fields.values(last.meshes[name])[0])

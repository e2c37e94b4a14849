"""Snapshots in the openPMD 1.1 standard: one HDF5 file a time, in global order, for any tool that reads the standard.

Source: https://github.com/openPMD/openPMD-standard, version 1.1.0.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brmpi import __version__
from brmpi.errors import BadInput
from brmpi.results import hdf5, pieces
from brmpi.results.pieces import Piece

# powers of length, mass, time, current, temperature, amount, light
DIMENSION = {
    "position": (1, 0, 0, 0, 0, 0, 0),
    "velocity": (1, 0, -1, 0, 0, 0, 0),
    "acceleration": (1, 0, -2, 0, 0, 0, 0),
    "momentum": (1, 1, -1, 0, 0, 0, 0),
    "mass": (0, 1, 0, 0, 0, 0, 0),
    "potential": (2, 0, -2, 0, 0, 0, 0),
    "temperature": (0, 0, 0, 0, 1, 0, 0),
    "density": (-3, 1, 0, 0, 0, 0, 0),
    "pressure": (-1, 1, -2, 0, 0, 0, 0),
}
PLAIN = (0,) * 7


@dataclass(frozen=True)
class Record:
    """One quantity of all particles.

    Attributes
    ----------
    piece : Piece, (n,) for a number or (n, 2 or 3) for a vector of x, y and z
    unit_dimension : powers of length, mass, time, current, temperature, amount and light; None means by the name
    unit_si : float, what one unit of the data is in SI
    unit : str, as it is written on an axis; may be empty
    """

    piece: Piece
    unit_dimension: tuple | None = None
    unit_si: float = 1.0
    unit: str = ""


@dataclass(frozen=True)
class Particles:
    """All particles of one kind.

    Attributes
    ----------
    name : str, such as ``"bodies"``
    total : int, number of all of them
    records : dict of str to Record; ``position`` must be there; without ``id`` they are numbered from 0
    attributes : dict of str to str, number, or a list of them: what else is known, such as ``names``
    """

    name: str
    total: int
    records: dict
    attributes: dict = field(default_factory=dict)

    def __getitem__(self, name):
        """This rank's values of one record, (n,) or (n, 2 or 3)."""
        return self.records[name].piece.data


@dataclass(frozen=True)
class Mesh:
    """One quantity on a regular grid.

    Attributes
    ----------
    name : str, such as ``"temperature"``
    piece : Piece of 1 to 3 axes, or for a vector a dict of component to Piece
    axes : tuple of str, the name of each axis of the data in their order, such as ``("y", "x")``
    spacing : tuple of float, the same order [grid unit]
    origin : tuple of float, where the first cell or point is; the same order [grid unit]
    unit_dimension : as in ``Record``
    unit_si : float, what one unit of the data is in SI
    grid_unit_si : float, what one grid unit is in metres
    position : tuple of float in [0, 1), where in its cell a value sits; None means at its start
    unit, grid_unit : str, units as they are written on an axis; may be empty
    """

    name: str
    piece: Piece | dict
    axes: tuple
    spacing: tuple
    origin: tuple
    unit_dimension: tuple | None = None
    unit_si: float = 1.0
    grid_unit_si: float = 1.0
    position: tuple | None = None
    unit: str = ""
    grid_unit: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot file holds, read whole.

    Attributes
    ----------
    step : int
    time : float [unit_time]
    dt : float [unit_time]
    unit_time : float [s]
    particles : dict of str to Particles
    meshes : dict of str to Mesh
    attributes : dict of str, what else the program said of this step
    """

    step: int
    time: float
    dt: float
    unit_time: float
    particles: dict
    meshes: dict
    attributes: dict


def path(folder, program, step):
    """Where the snapshot of a step is.

    Parameters
    ----------
    folder : Path, of the run
    program : str
    step : int >= 0
    """
    return Path(folder) / "snapshots" / f"{program}_{step:08d}.h5"


def steps(folder, program):
    """Steps of which there is a snapshot, in order.

    Parameters
    ----------
    folder : Path, of the run
    program : str
    """
    names = [file.stem.removeprefix(f"{program}_") for file in (Path(folder) / "snapshots").glob(f"{program}_*.h5")]
    return sorted(int(name) for name in names if name.isdigit())


def prune(folder, program, last):
    """Remove what a killed run left half-written, and snapshots of steps after ``last``. Root only.

    Parameters
    ----------
    folder : Path, of the run
    program : str
    last : int, the last step that the run is to take
    """
    for file in (Path(folder) / "snapshots").glob(f"{program}_*.h5*"):
        step = file.name.removeprefix(f"{program}_").partition(".")[0]
        if file.suffix == ".part" or (step.isdigit() and int(step) > last):
            file.unlink()


def write(comm, path, step, time, dt, particles=(), meshes=(), software="brmpi", io="root", unit_time=1.0,
          attributes=None):
    """Write a snapshot; the file appears whole or not at all. Collective.

    Nothing in it depends on the number of ranks, on the machine or on the clock.

    Parameters
    ----------
    comm : communicator
    path : Path, ``…/<program>_<step:08d>.h5``; the folder is made if it is missing
    step : int
    time : float [unit_time]
    dt : float [unit_time]
    particles : sequence of Particles, this rank's
    meshes : sequence of Mesh, this rank's
    software : str
    io : "root" or "mpio", as in ``pieces.write``
    unit_time : float [s]
    attributes : dict of str to number, str or list, what else is to be said of this step

    Raises
    ------
    BadInput, Fault, ValueError : as ``pieces.write``; ValueError also for particles without ``position``
    """
    path = Path(path)
    series = re.sub(r"_[0-9]+$", "", path.stem)
    base = f"/data/{step}"
    said = {"/": {
        "openPMD": "1.1.0", "openPMDextension": np.uint32(0), "basePath": "/data/%T/", "iterationEncoding": "fileBased",
        "iterationFormat": f"{series}_%08T", "software": software, "softwareVersion": __version__},
        base: {"time": float(time), "dt": float(dt), "timeUnitSI": float(unit_time), **(attributes or {})}}
    data = {}
    if particles:
        said["/"]["particlesPath"] = "particles/"
        said[f"{base}/particles"] = {}
    if meshes:
        said["/"]["meshesPath"] = "meshes/"
        said[f"{base}/meshes"] = {}
    for kind in particles:
        _particles(f"{base}/particles/{kind.name}", kind, data, said)
    for mesh in meshes:
        _mesh(f"{base}/meshes/{mesh.name}", mesh, data, said)
    pieces.write(comm, path, data, said, io)


def _dimension(name, record):
    """The powers of the base quantities, given or known by name."""
    known = record.unit_dimension if record.unit_dimension is not None else DIMENSION.get(name, PLAIN)
    return np.array(known, float)


def _particles(base, kind, data, said):
    """Add one kind of particles to what is to be written."""
    if "position" not in kind.records:
        raise ValueError(f"particles {kind.name}: no position among {sorted(kind.records)}")
    position = kind.records["position"]
    first, count = position.piece.offset[0], len(position.piece.data)
    records = dict(kind.records)
    if "id" not in records:
        records["id"] = Record(pieces.rows(np.arange(first, first + count, dtype=np.uint64), first, kind.total))
    said[base] = dict(kind.attributes)
    for name, record in records.items():
        if record.piece.shape[0] != kind.total:
            raise ValueError(f"particles {kind.name}: {name} has {record.piece.shape[0]} rows, not {kind.total}")
        said[f"{base}/{name}"] = {"unitDimension": _dimension(name, record), "timeOffset": 0.0,
                                 **({"unit": record.unit} if record.unit else {})}
        if len(record.piece.shape) == 1:
            data[f"{base}/{name}"] = record.piece
            said[f"{base}/{name}"]["unitSI"] = float(record.unit_si)
            continue
        for i, axis in enumerate("xyz"[:record.piece.shape[1]]):
            data[f"{base}/{name}/{axis}"] = Piece(record.piece.data[:, i], record.piece.offset[:1], (kind.total,))
            said[f"{base}/{name}/{axis}"] = {"unitSI": float(record.unit_si)}
    said[f"{base}/positionOffset"] = {"unitDimension": np.array(DIMENSION["position"], float), "timeOffset": 0.0}
    for axis in "xyz"[:position.piece.shape[1]]:
        said[f"{base}/positionOffset/{axis}"] = {
            "value": 0.0, "shape": np.array([kind.total], np.uint64), "unitSI": float(position.unit_si)}


def _mesh(base, mesh, data, said):
    """Add one mesh to what is to be written."""
    said[base] = {
        "geometry": "cartesian", "dataOrder": "C", "axisLabels": list(mesh.axes),
        "gridSpacing": np.array(mesh.spacing, float), "gridGlobalOffset": np.array(mesh.origin, float),
        "gridUnitSI": float(mesh.grid_unit_si), "unitDimension": _dimension(mesh.name, mesh), "timeOffset": 0.0}
    said[base] |= {key: word for key, word in (("unit", mesh.unit), ("gridUnit", mesh.grid_unit)) if word}
    position = (0.0,) * len(mesh.axes) if mesh.position is None else mesh.position
    component = {"unitSI": float(mesh.unit_si), "position": np.array(position, float)}
    if not isinstance(mesh.piece, dict):
        data[base] = mesh.piece
        said[base] |= component
        return
    for name, piece in mesh.piece.items():
        data[f"{base}/{name}"] = piece
        said[f"{base}/{name}"] = component


def read(path):
    """Read a whole snapshot. Not collective.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Snapshot, each ``Piece`` of it the whole array

    Raises
    ------
    BadInput : no such file, or not an openPMD snapshot
    """
    try:
        with hdf5.opened(path) as file:
            return _snapshot(file)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path}: not a snapshot that can be read: {error}") from error


def _snapshot(file):
    """Everything in an open snapshot."""
    (step, node), = file["data"].items()
    said = {key: hdf5.text(value) for key, value in node.attrs.items()}
    time, dt, unit_time = (float(said.pop(key)) for key in ("time", "dt", "timeUnitSI"))
    particles = {name: _read_particles(name, group) for name, group in node.get("particles", {}).items()}
    meshes = {name: _read_mesh(name, group) for name, group in node.get("meshes", {}).items()}
    return Snapshot(int(step), time, dt, unit_time, particles, meshes, said)


def _whole(values):
    """A whole array as the piece of a single rank."""
    return Piece(values, (0,) * values.ndim, values.shape)


def _axes(node):
    """Components of a vector in the order x, y, z."""
    return [node[axis] for axis in "xyz" if axis in node]


def _read_particles(name, group):
    """One kind of particles; positions include their offset."""
    records = {}
    for key, node in group.items():
        if key in ("positionOffset", "particlePatches"):
            continue
        parts = _axes(node) if hasattr(node, "items") else []
        values = np.stack([part[:] for part in parts], axis=1) if parts else node[:]
        if key == "position" and "positionOffset" in group:
            offsets = _axes(group["positionOffset"])
            values = values + [o.attrs.get("value", 0.0) for o in offsets]
        scale = float((parts[0] if parts else node).attrs["unitSI"])
        records[key] = Record(_whole(values), tuple(node.attrs["unitDimension"].tolist()), scale,
                              hdf5.text(node.attrs.get("unit", "")))
    total = len(records["position"].piece.data)
    return Particles(name, total, records, {key: hdf5.text(value) for key, value in group.attrs.items()})


def _read_mesh(name, node):
    """One mesh, a number or a vector in each point."""
    parts = dict(node.items()) if hasattr(node, "items") else None
    first = next(iter(parts.values())) if parts else node
    piece = {key: _whole(part[:]) for key, part in parts.items()} if parts else _whole(node[:])
    return Mesh(
        name, piece, tuple(hdf5.text(node.attrs["axisLabels"])), tuple(node.attrs["gridSpacing"].tolist()),
        tuple(node.attrs["gridGlobalOffset"].tolist()), tuple(node.attrs["unitDimension"].tolist()),
        float(first.attrs["unitSI"]), float(node.attrs["gridUnitSI"]), tuple(first.attrs["position"].tolist()),
        hdf5.text(node.attrs.get("unit", "")), hdf5.text(node.attrs.get("gridUnit", "")))

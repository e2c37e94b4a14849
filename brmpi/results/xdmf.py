"""An index of a run's snapshots that ParaView and VisIt read: ``<run>/snapshots.xmf``, in XDMF 3.

It holds no data but says where in the snapshots' files they are. Meshes of two and three axes become grids whose values
sit in cells, or at points; particles become points.
"""

from pathlib import Path
from xml.sax.saxutils import quoteattr

from brmpi.cluster import atomic
from brmpi.results import snapshots
from brmpi.results.folder import INDEX

TYPES = {"f": "Float", "i": "Int", "u": "UInt", "b": "Int"}



def write(folder, program, times, particles=(), meshes=()):
    """Write the index, whole or not at all. Root only.

    Parameters
    ----------
    folder : Path, of the run
    program : str
    times : dict of step to time, of the snapshots that there are
    particles, meshes : as for ``snapshots.write``, of any snapshot: all hold the same

    Raises
    ------
    Fault : the disk is full
    """
    lines = ['<?xml version="1.0"?>', '<Xdmf Version="3.0">', "<Domain>"]
    parts = [(kind.name, lambda file, base, kind=kind: _points(file, base, kind)) for kind in particles]
    parts += [(f"mesh {number}" if number else "mesh", lambda file, base, alike=alike: _grid(file, base, alike))
              for number, alike in enumerate(_alike(meshes))]
    for name, content in parts:
        lines.append(f'<Grid Name={quoteattr(name)} GridType="Collection" CollectionType="Temporal">')
        for step, time in sorted(times.items()):
            file = snapshots.path(folder, program, step)
            lines += [f'<Grid Name={quoteattr(name)} GridType="Uniform">', f'<Time Value="{time!r}"/>',
                      *content(f"{file.parent.name}/{file.name}", f"/data/{step}"), "</Grid>"]
        lines.append("</Grid>")
    atomic.write(Path(folder) / INDEX, "\n".join([*lines, "</Domain>", "</Xdmf>"]) + "\n")


def _alike(meshes):
    """Meshes of two or three axes, those on one grid together."""
    groups = {}
    for mesh in meshes:
        piece = next(iter(mesh.piece.values())) if isinstance(mesh.piece, dict) else mesh.piece
        if len(piece.shape) in (2, 3):
            groups.setdefault((piece.shape, mesh.spacing, mesh.origin, mesh.position), []).append(mesh)
    return list(groups.values())


def _grid(file, base, meshes):
    """Geometry and values of meshes on one grid."""
    first = meshes[0]
    shape = (next(iter(first.piece.values())) if isinstance(first.piece, dict) else first.piece).shape
    inside = bool(first.position) and all(place == 0.5 for place in first.position)  # of a cell
    corner = [at + (0 if inside else dx * place) for at, dx, place in
              zip(first.origin, first.spacing, first.position or (0,) * len(shape))]
    points = tuple(n + 1 for n in shape) if inside else shape
    axes = " ".join(map(str, points))
    kind, geometry = {2: ("2DCoRectMesh", "ORIGIN_DXDY"), 3: ("3DCoRectMesh", "ORIGIN_DXDYDZ")}[len(shape)]
    yield f'<Topology TopologyType="{kind}" Dimensions="{axes}"/>'
    yield f'<Geometry GeometryType="{geometry}">'
    for values in (corner, first.spacing):
        yield (f'<DataItem Format="XML" Dimensions="{len(shape)}" NumberType="Float" Precision="8">'
               f"{' '.join(repr(float(value)) for value in values)}</DataItem>")
    yield "</Geometry>"
    for mesh in meshes:
        parts = mesh.piece.items() if isinstance(mesh.piece, dict) else [("", mesh.piece)]
        for component, piece in parts:
            name = f"{mesh.name}_{component}" if component else mesh.name
            yield f'<Attribute Name={quoteattr(name)} AttributeType="Scalar" Center="{"Cell" if inside else "Node"}">'
            yield _item(file, "/".join(filter(None, (base, "meshes", mesh.name, component))), piece.data.dtype, shape)
            yield "</Attribute>"


def _points(file, base, kind):
    """Positions and values of particles."""
    place = f"{base}/particles/{kind.name}"
    axes = "xyz"[: kind.records["position"].piece.shape[1]]
    yield f'<Topology TopologyType="Polyvertex" NumberOfElements="{kind.total}" NodesPerElement="1"/>'
    yield f'<Geometry GeometryType="{"_".join(axes).upper()}">'
    for axis in axes:
        yield _item(file, f"{place}/position/{axis}", kind.records["position"].piece.data.dtype, (kind.total,))
    yield "</Geometry>"
    for name, record in kind.records.items():
        if name == "position":
            continue
        vector = len(record.piece.shape) == 2
        for axis in "xyz"[: record.piece.shape[1]] if vector else ("",):
            yield (f"<Attribute Name={quoteattr(f'{name}_{axis}' if axis else name)} AttributeType=\"Scalar\" "
                   'Center="Node">')
            yield _item(file, "/".join(filter(None, (place, name, axis))), record.piece.data.dtype, (kind.total,))
            yield "</Attribute>"


def _item(file, where, dtype, shape):
    """Where an array is."""
    return (f'<DataItem Format="HDF" NumberType="{TYPES[dtype.kind]}" Precision="{dtype.itemsize}" '
            f'Dimensions="{" ".join(map(str, shape))}">{file}:{where}</DataItem>')

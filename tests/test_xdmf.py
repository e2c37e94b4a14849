"""The index of snapshots for ParaView and VisIt: every array it names is in the files, of the size and type it says."""

import re
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

TYPES = {"f": "Float", "i": "Int", "u": "UInt"}


def checked(run):
    """Every reference of an index, after it was compared with the file."""
    tree = ElementTree.parse(run / "snapshots.xmf").getroot()
    assert tree.tag == "Xdmf"
    found = []
    for item in tree.iter("DataItem"):
        if item.get("Format") != "HDF":
            continue
        file, where = item.text.split(":")
        with h5py.File(run / file) as data:
            array = data[where]
            assert list(array.shape) == [int(n) for n in item.get("Dimensions").split()], item.text
            assert item.get("NumberType") == TYPES[array.dtype.kind]
            assert int(item.get("Precision")) == array.dtype.itemsize
        found.append(item.text)
    return tree, found


@pytest.mark.parametrize(("program", "keys", "topology", "names"), [
    ("heat", ("cells=[12,8]",), ("2DCoRectMesh", "9 13"), {"temperature"}),
    ("wave", ("cells=[8,8,8]",), ("3DCoRectMesh", "9 9 9"), {"pressure"}),
    ("lbm", ("cells=[6,4]",), ("2DCoRectMesh", "5 7"), {"density", "velocity_x", "velocity_y"}),
    ("ising", ("cells=[6,4]",), ("2DCoRectMesh", "5 7"), {"spin"}),
    ("nbody", ("n=7",), ("Polyvertex", None), {"mass", "velocity_x", "velocity_y", "velocity_z"})])
def test_what_it_names_is_there(launch, tmp_path, program, keys, topology, names):
    words = [word for key in (*keys, "every=2") for word in ("--set", key)]
    done = launch(2, "-m", f"brmpi.sims.{program}", *words, "--steps", 4, "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    tree, found = checked(tmp_path / "run")
    assert {re.search(r"_(\d+)\.h5", text)[1] for text in found} == {"00000000", "00000002", "00000004"}
    times = [float(time.get("Value")) for time in tree.iter("Time")]
    assert len(times) == 3 and np.allclose(times, [0, times[2] / 2, times[2]]) and times[2] > 0
    shape = next(tree.iter("Topology"))
    assert shape.get("TopologyType") == topology[0] and shape.get("Dimensions") == topology[1]
    assert {one.get("Name") for one in tree.iter("Attribute")} == names
    if program == "heat":
        origin, spacing = [[float(x) for x in item.text.split()] for item in tree.iter("DataItem")
                           if item.get("Format") == "XML"][:2]
        assert origin == [0, 0] and spacing == [1 / 8, 1 / 12]


def test_it_follows_a_restart_and_goes_with_the_run(launch, tmp_path):
    words = ["-m", "brmpi.sims.heat", "--set", "cells=[8,8]", "--set", "every=2", "--out", "run", "--quiet"]
    assert launch(0, *words, "--steps", 4).returncode == 0
    assert launch(2, *words, "--steps", 8, "--restart").returncode == 0
    _, found = checked(tmp_path / "run")
    assert len(found) == 5
    assert launch(0, *words, "--steps", 2, "--overwrite").returncode == 0
    _, found = checked(tmp_path / "run")
    assert len(found) == 2

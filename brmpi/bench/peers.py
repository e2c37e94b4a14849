"""Programs that simulations are held against: they live in ``.venv-peers``, which ``make bench-sims`` makes.

Each is a file of ``bench/peers`` named by what it does and who does it. It is run by that environment's Python, or by
LAMMPS, on the cores that it may use, and prints a number.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from brmpi.errors import Fault

HOME = Path(".venv-peers")
FILES = Path("bench/peers")
MELT = "sims/md/melt.toml"
NAMES = ("lammps", "lbmpy", "pytreegrav", "rebound")


def versions():
    """The peers that can run here.

    Returns
    -------
    dict of name: str, version
    """
    found = {}
    for name in NAMES:
        for folder in HOME.glob(f"lib/python*/site-packages/{name}-*.dist-info"):
            found[name] = folder.name.removeprefix(f"{name}-").removesuffix(".dist-info")
    if not (shutil.which("g++") or shutil.which("clang++")):
        found.pop("lbmpy", None)  # it compiles what it generates
    return found


def said(command, cpus, threads=1):
    """What a peer prints.

    Parameters
    ----------
    command : list of str or Path, whose program is in ``.venv-peers/bin``
    cpus : sequence of int, the cores that it may use
    threads : int, of each of its processes

    Returns
    -------
    str

    Raises
    ------
    Fault : it failed
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own |= {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    if threads > 1:  # else all ranks of a job would be bound to the first of the cores
        own["OMP_PROC_BIND"] = "true"
    command = ["taskset", "-c", ",".join(map(str, cpus)), str(HOME.absolute() / "bin" / command[0]),
               *map(str, command[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=own)
    if done.returncode:
        raise Fault(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def numbers(script, cpus, *arguments):
    """What a script of ``bench/peers`` measures on some cores, a thread on each.

    Parameters
    ----------
    script : str, its name
    cpus : sequence of int
    *arguments : of the script, after the number of threads

    Returns
    -------
    list of float: the rate, and where the script has one, the error
    """
    lines = said(["python", FILES / f"{script}.py", len(cpus), *arguments], cpus, len(cpus)).splitlines()
    return [float(word) for word in lines[-1].split()]


def lammps(script, cpus, **variables):
    """What LAMMPS prints, a rank on each of some cores.

    Parameters
    ----------
    script : str, its name in ``bench/peers``
    cpus : sequence of int
    **variables : of the script

    Returns
    -------
    str
    """
    words = [word for name, value in variables.items() for word in ("-var", name, value)]
    launcher = ["mpiexec", "-n", len(cpus), HOME.absolute() / "bin/lmp"] if len(cpus) > 1 else ["lmp"]
    return said([*launcher, "-in", FILES / f"{script}.lmp", "-log", "none", *words], cpus)


def atom_steps(output):
    """Speed of a run of LAMMPS, without its start.

    Parameters
    ----------
    output : str, what it printed

    Returns
    -------
    float, atoms times steps per second
    """
    seconds, steps, atoms = re.search(r"Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms",
                                      output).groups()
    return int(steps) * int(atoms) / float(seconds)


def thermo(output):
    """The table that LAMMPS prints while it runs.

    Parameters
    ----------
    output : str, what it printed

    Returns
    -------
    dict of column: (rows,) float64
    """
    table = re.search(r"^ *(Step .*)\n((?: *[-+.\de]+)+\n)+", output, re.MULTILINE)
    heading, *rows = table.group().strip().splitlines()
    return dict(zip(heading.split(), np.array([row.split() for row in rows], np.float64).T))


def beside(measured, peer, cpus, bodies):
    """What a peer does of a simulation's work.

    Parameters
    ----------
    measured : sims.Run
    peer : str
    cpus : sequence of int
    bodies : Path, of an N-body run's positions

    Returns
    -------
    list of float: the rate, and where there is one, the error
    """
    if peer == "lammps":
        return [atom_steps(lammps("melt", cpus, steps=measured.steps))]
    made = measured.case
    if peer == "lbmpy":
        return numbers("flow-lbmpy", cpus, made.cells[0])
    return numbers(f"{made.method}-{peer}", cpus, bodies, made.softening)


def write_data(file, pos, vel, edge):
    """Write atoms as LAMMPS reads them.

    Parameters
    ----------
    file : Path
    pos, vel : (n, 3) float64, of atoms in a cube from 0
    edge : float, of the cube
    """
    lines = ["atoms of mass 1", "", f"{len(pos)} atoms", "1 atom types", ""]
    lines += [f"0 {edge!r} {axis}lo {axis}hi" for axis in "xyz"]
    lines += ["", "Masses", "", "1 1", "", "Atoms", ""]
    lines += [f"{atom} 1 {x!r} {y!r} {z!r}" for atom, (x, y, z) in enumerate(pos.tolist(), 1)]
    lines += ["", "Velocities", ""]
    lines += [f"{atom} {x!r} {y!r} {z!r}" for atom, (x, y, z) in enumerate(vel.tolist(), 1)]
    file.write_text("\n".join(lines) + "\n", encoding="ascii")


def apart(ours, theirs):
    """How far two runs of the melt are apart at most.

    Parameters
    ----------
    ours : dict of column: sequence, diagnostics of ``brmpi.sims.md``
    theirs : dict of column: sequence, from ``thermo``

    Returns
    -------
    dict of our column: float, the largest difference of a row over the largest magnitude

    Raises
    ------
    Fault : they are not of the same steps
    """
    if list(ours["step"]) != list(theirs["Step"]):
        raise Fault(f"brmpi has rows of the steps {list(ours['step'])}, LAMMPS of {list(theirs['Step'])}")
    pairs = {"temperature": "Temp", "potential": "PotEng", "kinetic": "KinEng", "energy": "TotEng",
             "pressure": "Press"}
    return {column: float(np.abs(np.subtract(ours[column], theirs[name])).max() / np.abs(theirs[name]).max())
            for column, name in pairs.items()}


def melt_apart(folder, cpus):
    """How far LAMMPS and ``brmpi.sims.md`` are apart in 100 steps of the melt from the same atoms.

    Parameters
    ----------
    folder : Path, for files
    cpus : sequence of int, for each rank of LAMMPS

    Returns
    -------
    dict, from ``apart``

    Raises
    ------
    Fault : a run failed
    """
    from brmpi.results import diagnostics, snapshots

    run = folder / "melt"
    command = ["mpirun", "-np", "1", sys.executable, "-m", "brmpi.sims.md", MELT, "--quiet", "--backend", "numba",
               "--out", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
    atoms = snapshots.read(run / "snapshots" / "md_00000000.h5").particles["atoms"]
    write_data(folder / "melt.data", np.asarray(atoms["position"]), np.asarray(atoms["velocity"]),
               float(atoms.attributes["box"][0]))
    theirs = thermo(lammps("same", cpus, data=folder / "melt.data"))
    return apart(diagnostics.read(run / "diagnostics.h5"), theirs)

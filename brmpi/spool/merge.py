"""The results of many jobs as one: a row of each, or what a reducer makes of them."""

import csv
import io
import subprocess

import numpy as np

from brmpi.errors import BadInput, Fault
from brmpi.results import diagnostics, disk


def last_rows(folders):
    """The last row of each run's diagnostics.

    Parameters
    ----------
    folders : dict of job id to Path

    Returns
    -------
    columns : list of str, "job" first, then what any of them has
    values : list of lists, in the order of ``folders``; nan where a run has no such column

    Raises
    ------
    BadInput : a run that cannot be read
    """
    rows = {}
    for id, folder in folders.items():
        try:
            told = diagnostics.read(folder / "diagnostics.h5")
        except (OSError, KeyError) as error:
            raise BadInput(f"{folder}: its diagnostics cannot be read: {error}") from None
        rows[id] = {name: float(values[-1]) for name, values in told.items()
                    if len(values) and not name.startswith("wall/") and np.ndim(values) == 1}
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    return ["job", *columns], [[id, *(row.get(name, float("nan")) for name in columns)] for id, row in rows.items()]


def write(path, columns, values):
    """A table as a file.

    Parameters
    ----------
    path : Path, .csv or .h5
    columns : list of str
    values : list of lists

    Raises
    ------
    BadInput : another kind of file
    Fault : it cannot be written
    """
    if path.suffix == ".csv":
        memory = io.StringIO()
        table = csv.writer(memory, lineterminator="\n")
        table.writerow(columns)
        table.writerows(values)
        return disk.write(path, memory.getvalue().encode())
    if path.suffix not in (".h5", ".hdf5"):
        raise BadInput(f"--out {path}: must end in .csv or .h5")
    import h5py

    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for place, name in enumerate(columns):
            column = [row[place] for row in values]
            file[name] = np.array(column, "S" if isinstance(column[0], str) else float)
    return disk.write(path, memory.getvalue())


def reduced(command, folders):
    """Let a person's program make one of the runs: their folders are its arguments.

    Parameters
    ----------
    command : list of str
    folders : dict of job id to Path

    Returns
    -------
    int, its exit code

    Raises
    ------
    Fault : it cannot be started
    """
    try:
        return subprocess.run([*command, *map(str, folders.values())]).returncode
    except OSError as error:
        raise Fault(f"{command[0]}: cannot be started: {error.strerror}") from None

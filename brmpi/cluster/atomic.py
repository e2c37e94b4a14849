"""Files that are whole at every instant: the old text or the new one, never half of it."""

import os
from pathlib import Path

from brmpi.errors import Fault


def write(path, text):
    """Replace a file's text in one step; its folder is made if need be.

    Parameters
    ----------
    path : str or Path
    text : str, written as UTF-8

    Raises
    ------
    Fault : the file cannot be written; what was there stays
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Fault(f"{path}: cannot be written: {error.strerror}") from error

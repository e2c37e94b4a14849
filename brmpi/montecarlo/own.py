"""A person's own function, by its name."""

import importlib
import sys
from pathlib import Path

from brmpi.errors import BadInput


def function(named):
    """Find a function.

    Parameters
    ----------
    named : str, module:name; modules of the folder that the program runs in are found, too

    Returns
    -------
    callable

    Raises
    ------
    BadInput : there is none
    """
    module, _, name = named.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise BadInput(f"function = {named!r}: {error}") from None
    if not callable(found):
        raise BadInput(f"function = {named!r}: cannot be called")
    return found


def problem(named):
    """A sentence where a name cannot be that of a function, else None.

    Parameters
    ----------
    named : str, may be empty

    Returns
    -------
    str or None
    """
    module, colon, name = named.partition(":")
    return None if not named or (module and colon and name) else f"function = {named!r}: must be module:name"

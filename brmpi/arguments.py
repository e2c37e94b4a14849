"""A command line whose mistakes are one sentence, not a usage block."""

import argparse

from brmpi.errors import BadInput


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises ``BadInput`` where argparse would print its usage and exit."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message):
        """Refuse the command line.

        Parameters
        ----------
        message : str, what argparse found wrong
        """
        raise BadInput(message)

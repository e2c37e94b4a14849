"""A command line whose mistakes are one sentence, not a usage block."""

import argparse

from brmpi.errors import BadInput


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises ``BadInput`` where argparse would print its usage and exit.

    Parameters
    ----------
    **options : as argparse has them; options must be written out in full
    """

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        """Refuse the command line.

        Parameters
        ----------
        message : str, what argparse found wrong
        """
        raise BadInput(message)

"""A command line whose mistakes are one sentence, not a usage block."""

import argparse

from brmpi.errors import BadInput


def apart(argv, valued, flags=()):
    """A command's own options, which may also stand behind the program's words, as in ``brmpi run nbody CASE --on
    all``.

    Parameters
    ----------
    argv : list of str; behind ``--`` everything is the program's
    valued : sequence of str, options that take a value
    flags : sequence of str, options that take none

    Returns
    -------
    mine : list of str, options, and whatever begins with a hyphen before the program
    program : list of str; begins with ``--`` where no program stood before it
    """
    split = argv.index("--") if "--" in argv else len(argv)
    mine, rest, words = [], [], list(argv[:split])
    while words:
        word = words.pop(0)
        if word in valued and words:
            mine += [word, words.pop(0)]
        elif word in flags or word.partition("=")[0] in valued or (not rest and word.startswith("-")):
            mine.append(word)
        else:
            rest.append(word)
    return mine, rest + argv[split:] if not rest else rest + argv[split + 1:]


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

"""The two kinds of failure that are told to a person in one sentence instead of a traceback."""


class BadInput(ValueError):
    """Input that cannot be used: refused before work starts, exit code 2.

    The message is one sentence with the value, the limit and the file and key it came from.
    Under MPI it is raised on every rank alike and printed once.
    """


class Fault(RuntimeError):
    """The surroundings failed (full disk, lost file): one sentence, exit code 1.

    What was finished before stays valid. Under MPI it is raised on every rank alike and printed once.
    """

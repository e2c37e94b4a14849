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


class BlewUp(Fault):
    """The state, or what is computed from it, is no longer finite.

    Parameters
    ----------
    why : str, the sentence
    step : int, where that was found; it may have begun before
    """

    def __init__(self, why, step):
        super().__init__(why, step)
        self.step = step

    def __str__(self):
        return self.args[0]

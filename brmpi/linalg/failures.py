"""What dense linear algebra refuses or cannot do, by name."""

from numpy.linalg import LinAlgError

from brmpi.errors import BadInput, Fault


class Mismatch(BadInput):
    """Shapes, layouts or types of matrices that do not go together; the same on every rank."""


class NotEnoughMemory(BadInput, MemoryError):
    """A node has less memory than is asked for; nothing was allocated.

    Parameters
    ----------
    what : str
    need, have : int [bytes], on that node
    node : str
    """

    def __init__(self, what, need, have, node):
        super().__init__(f"{what} needs {need / 1e9:.3g} GB on {node}, which has {have / 1e9:.3g} GB free")
        self.need, self.have, self.node = need, have, node


class Singular(Fault, LinAlgError):
    """A pivot is zero; the same on every rank.

    Parameters
    ----------
    pivot : int, index of the first one that is
    """

    def __init__(self, pivot):
        super().__init__(f"the matrix is singular: pivot {pivot} is zero")
        self.pivot = pivot


class NotPositiveDefinite(Fault, LinAlgError):
    """A leading minor is not positive; the same on every rank.

    Parameters
    ----------
    minor : int >= 1, order of the first one that is not
    """

    def __init__(self, minor):
        super().__init__(f"the matrix is not positive definite: its leading minor of order {minor} is not")
        self.minor = minor


class NoConvergence(Fault, LinAlgError):
    """An iteration did not reach its end; the same on every rank."""

"""Sampling: the same estimate on any cluster, at the speed of all of it; and ``pool()`` for ordinary functions."""


def pool(comm=None, leave=True):
    """A pool of all ranks, as ``pooling.pool``. Collective: all ranks but the first work in here until it is closed.

    Parameters
    ----------
    comm : communicator; all ranks of the job, if none is given
    leave : bool, whether ranks that have worked end their process with that

    Returns
    -------
    pooling.Pool, an executor with ``map``, ``starmap`` and ``submit``
    """
    from brmpi.montecarlo import pooling

    return pooling.pool(comm, leave)

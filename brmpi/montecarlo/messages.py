"""Python objects between ranks: pickled, with large buffers, such as arrays, sent as they lie in memory."""

import pickle

import numpy as np

WHOLE, PARTS, PART = 7401, 7402, 7403  # tags
LARGE = 2**16  # bytes from which a buffer is sent by itself
MOST = 2**30  # bytes of a message


def packed(thing):
    """An object as buffers: the pickle first, then what it refers to.

    Parameters
    ----------
    thing : object that can be pickled

    Returns
    -------
    list of buffers
    """
    large = []

    def _small(buffer):
        if buffer.raw().nbytes < LARGE:
            return True
        large.append(buffer)
        return False

    data = pickle.dumps(thing, 5, buffer_callback=_small)
    return [data, *(buffer.raw() for buffer in large)]


def send(comm, buffers, rank):
    """Send what ``packed`` gave, without waiting.

    Parameters
    ----------
    comm : communicator
    buffers : list, which must stay as it is until all has left
    rank : int

    Returns
    -------
    list of requests
    """
    if len(buffers) == 1 and len(buffers[0]) <= MOST:
        return [comm.Isend([buffers[0], len(buffers[0]), _byte()], rank, WHOLE)]
    sizes = pickle.dumps([len(buffer) for buffer in buffers])
    requests = [comm.Isend([sizes, len(sizes), _byte()], rank, PARTS)]
    for buffer in buffers:
        whole = memoryview(buffer)
        for first in range(0, len(whole), MOST):
            part = whole[first : first + MOST]
            requests.append(comm.Isend([part, len(part), _byte()], rank, PART))
    return requests


def receive(comm, status):
    """Receive what a probe has seen.

    Parameters
    ----------
    comm : communicator
    status : MPI.Status of the probe, with ``WHOLE`` or ``PARTS``

    Returns
    -------
    object
    """
    first = bytearray(status.Get_count(_byte()))
    comm.Recv([first, len(first), _byte()], status.source, status.tag)
    if status.tag == WHOLE:
        return pickle.loads(first)
    buffers = []
    for size in pickle.loads(first):
        whole = np.empty(size, np.uint8)
        for start in range(0, size, MOST):
            part = whole[start : start + MOST]
            comm.Recv([part, len(part), _byte()], status.source, PART)
        buffers.append(whole)
    return pickle.loads(buffers[0], buffers=buffers[1:])


def _byte():
    from mpi4py import MPI

    return MPI.BYTE

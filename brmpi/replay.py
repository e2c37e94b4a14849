"""Where a run blew up: found by running it again from its last checkpoint, and the state before it kept.

Whether all numbers are finite is looked at only where rows and checkpoints are written: to look after each step would
take as long as a step of a cheap scheme. A run is the same each time, so that the step can be found afterwards.
"""

from brmpi import mpi
from brmpi.balance import blocks
from brmpi.errors import BlewUp, Fault
from brmpi.journal import finite, whole
from brmpi.results.pieces import Piece


def blown(kind, program, journal, late):
    """Find the step after which a run is no longer finite, and write a checkpoint of the state before it. Collective.

    Parameters
    ----------
    kind : class of the program
    program : as described in ``program``
    journal : journal.Journal, of the run
    late : BlewUp, as it was found

    Returns
    -------
    Fault, to be raised: it names the step, and the one to go on from
    """
    comm = program.comm
    step, state = journal.last()
    if state is None:  # no checkpoint: from the start
        journal.program = program = kind(program.case, comm, mpi.Timers(), program.backend)
    else:
        program.restore(state)
    while step < late.step:
        good = {name: Piece(piece.data.copy(), piece.offset, piece.shape) for name, piece in program.arrays().items()}
        program.step()
        step += 1
        try:
            whole(program, step)
            finite(program, step)
        except BlewUp as fault:
            program.restore(blocks(program, good))
            journal.checkpoint(step - 1)
            return Fault(f"{fault}; the last good state, of step {step - 1}, is in its checkpoints")
    return late

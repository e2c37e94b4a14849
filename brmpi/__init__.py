"""brmpi turns a shelf of mixed small computers into one scientific computer.

Programs are modules, started by mpirun: ``mpirun -hostfile hostfiles/all python -m brmpi.sims.nbody``.
"""

__version__ = "0.1.0"

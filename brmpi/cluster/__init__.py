"""Nodes: inventory, probe, hostfiles. Runs where no MPI job runs, so nothing here imports mpi4py."""

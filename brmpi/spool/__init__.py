"""Queued runs in Redis: submit, place, run, resume. Never imports mpi4py."""

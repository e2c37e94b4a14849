"""Data-parallel training by gradient all-reduce, on machines that are not equal."""

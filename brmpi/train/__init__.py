"""Data-parallel training by gradient all-reduce, on machines that are not equal."""

from brmpi.train.allreduce import GradientAllreduce

__all__ = ["GradientAllreduce"]

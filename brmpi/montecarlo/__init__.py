"""Sampling: the same estimate on any cluster, at the speed of all of it; and ``pool()`` for ordinary functions."""

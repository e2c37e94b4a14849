"""Simulations, one a module: ``python -m brmpi.sims.<name> --help``."""

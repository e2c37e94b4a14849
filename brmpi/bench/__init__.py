"""Runs and times everything else beside a peer or a limit, and writes it down in one form.

Each benchmark prints a table and writes ``bench/results/<name>.json``; ``python -m brmpi.bench`` renders them all as
``bench/README.md``. Run from the top of a checkout, through ``make bench``.
"""

"""Runs and times everything else beside a peer or a limit, and writes it down in one form.

Each benchmark prints a table, writes ``bench/results/<name>.json`` and renders all of them as ``bench/README.md``.
Run from the top of a checkout, through ``make bench``.
"""

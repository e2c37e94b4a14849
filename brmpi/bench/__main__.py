"""Render every benchmark's result as bench/README.md."""

from pathlib import Path

from brmpi.bench import report
from brmpi.cluster import atomic

if __name__ == "__main__":
    atomic.write(Path("bench/README.md"), report.render())
    print("bench/README.md holds the table of all results")

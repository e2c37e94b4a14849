"""A lab for the tests that need several hosts: one for the whole run, mended after each test."""

import os
import subprocess
from pathlib import Path

import pytest

from brmpi.cluster.lab import Lab
from brmpi.errors import BadInput, Fault

ROOT = Path(__file__).parents[2]
INVENTORY = ROOT / "hostfiles/blackroad.toml"
WHY = []  # why there is no lab here


def obstacle():
    """Why this machine can have no lab; empty if it can."""
    if os.geteuid():
        return "not root"
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "namespaces are not allowed here"
    return ""


@pytest.fixture(scope="session")
def hosts():
    """The five hosts of ``hostfiles/blackroad.toml``, for all tests."""
    why = obstacle()
    lab = None
    if not why:
        try:
            lab = Lab(INVENTORY, f"test-{os.getpid()}").up()
        except BadInput as lacking:
            why = str(lacking)
        except Fault as fault:
            if os.environ.get("BRMPI_NEED_LAB"):
                raise
            why = str(fault)
    if why:
        WHY.append(why)
        pytest.skip(f"no lab here: {why}")
    yield lab
    lab.down()


@pytest.fixture
def lab(hosts):
    """The hosts, all up and connected; what a test cut, crashed or slowed is mended after it."""
    yield hosts
    hosts.up()
    for row in hosts.status():
        if row["state"] == "cut":
            hosts.link(row["node"], "up")


@pytest.fixture
def quick(lab):
    """The lab without limits on processors, so that programs start quickly."""
    before = lab.limits()
    for node in before:
        lab.cpu(node, None)
    yield lab
    for node, held in before.items():
        lab.cpu(node, held["cpu"])


def pytest_terminal_summary(terminalreporter):
    """Say loudly that nothing was tested on several hosts."""
    if WHY:
        terminalreporter.write_line(f"NO TEST OF tests/lab RAN: {WHY[0]}", red=True, bold=True)

"""A checkout on the disk of one host is brought to others, which have disks of their own."""

import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[2]
COPY = "/root/copy"
FROM, TO = "shellfish", ("aria", "alice")
FILES = f"cd {ROOT} && git -c safe.directory={ROOT} ls-files -z --cached --others --exclude-standard"


def shell(lab, node, script):
    done = lab.run(node, ["bash", "-ec", script], cwd="/")
    assert done.returncode == 0, f"{node}: {script}: {done.stderr}"
    return done.stdout


def sync(lab, *words, folder=COPY):
    return lab.run(FROM, ["python", "-m", "brmpi", "sync", *words, "--inventory", f"{ROOT}/hostfiles/cluster.toml"],
                   cwd=folder)


@pytest.fixture
def copy(lab):
    """The checkout as it is now, changes and all, on one host's own disk."""
    limits = lab.limits()
    for name in (FROM, *TO):
        lab.cpu(name, 100)
    shell(lab, FROM, f"git -c safe.directory='*' clone -q {ROOT} {COPY}; "
          f"{FILES} | rsync -a --from0 --files-from=- --ignore-missing-args {ROOT}/ {COPY}/; "
          f"printf 'install:\\n\\t@echo brmpi is installed on $$(hostname)\\n' >{COPY}/Makefile")
    yield lab
    for name in (FROM, *TO):
        shell(lab, name, f"rm -rf {COPY}")
        lab.cpu(name, limits[name]["cpu"])


def test_files_travel_and_nothing_else_is_touched(copy):
    lab = copy
    shell(lab, "aria", f"mkdir -p {COPY}/results {COPY}/hostfiles; touch {COPY}/results/mine {COPY}/hostfiles/all")
    shell(lab, FROM, f"echo new >{COPY}/brmpi/fresh.py; mkdir {COPY}/results; touch {COPY}/results/theirs")
    told = sync(lab, "--no-install", *TO)
    assert told.returncode == 0, told.stderr + told.stdout
    assert [line.split()[:2] for line in told.stdout.splitlines()[2:]] == [[name, "sent"] for name in TO]
    listing = f"cd {COPY} && git ls-files -z --cached --others --exclude-standard | xargs -0 md5sum"
    sums = shell(lab, FROM, listing)
    assert len(sums.splitlines()) > 50
    for name in TO:
        shell(lab, name, f"cd {COPY} && md5sum --quiet -c - <<'END'\n{sums}END")
    assert shell(lab, "aria", f"ls {COPY}/results {COPY}/hostfiles/all").split()[-1] == "mine"
    shell(lab, FROM, f"rm {COPY}/brmpi/fresh.py {COPY}/LICENSE; echo changed >>{COPY}/README.md")
    begin = time.monotonic()
    told = sync(lab, "--no-install", *TO)
    assert told.returncode == 0 and time.monotonic() - begin < 10, told.stderr
    assert told.stdout.count("1 new or changed, 2 removed") == 2, told.stdout
    for name in TO:
        shell(lab, name, f"cd {COPY}; test ! -e brmpi/fresh.py; test ! -e LICENSE")
        assert shell(lab, name, f"tail -1 {COPY}/README.md") == "changed\n"
    shell(lab, "aria", f"cd {COPY}; test -e results/mine; test -e hostfiles/all")
    assert sync(lab, "--no-install", *TO).stdout.count(", 0 new or changed") == 2
    for name in (FROM, *TO):
        assert shell(lab, name, f"ls -A {COPY} | grep -c brmpi-sync- || true") == "0\n", "no token stays"


def test_install_and_a_dead_node(copy):
    lab = copy
    lab.crash("lucidia")
    told = sync(lab, "aria", "lucidia")
    assert told.returncode == 1, told.stdout
    lines = {line.split()[0]: line for line in told.stdout.splitlines()[2:]}
    assert lines["aria"].rstrip().endswith("done: installed on aria"), told.stdout
    assert "failed: " in lines["lucidia"] and "is it on" in lines["lucidia"], told.stdout
    assert "brmpi sync lucidia" in told.stderr


def test_rsync_missing_there(copy):
    lab = copy
    shell(lab, "alice", "mv /usr/bin/rsync /usr/bin/rsync.away")
    try:
        told = sync(lab, "--no-install", "alice")
    finally:
        shell(lab, "alice", "mv /usr/bin/rsync.away /usr/bin/rsync")
    assert told.returncode == 1
    assert "rsync is not installed there: ssh -t pi@192.168.1.14 sudo apt-get install rsync" in told.stdout


def test_the_shared_checkout_is_left_alone(lab):
    told = sync(lab, *TO, folder=ROOT)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("shared with this machine: nothing to do") == 2, told.stdout
    assert not list(ROOT.glob(".brmpi-sync*"))

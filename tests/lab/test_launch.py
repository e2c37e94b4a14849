"""``brmpi run`` where hosts differ: their users, where a rank fails, and what its last words are."""

import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]


def test_last_lines_are_those_of_the_rank_that_failed(lab):
    """Ranks on all hosts print; one far away is killed; its own last words, and nobody else's, are said again."""
    script = ("echo lost on $(hostname); echo why on $(hostname) >&2; sleep 2; "
              "[ $(hostname) = lucidia ] && kill -9 $$; sleep 60")
    done = lab.run("shellfish", ["brmpi", "run", "--", "sh", "-c", script], timeout=90)
    assert done.returncode == 137, done
    said = done.stderr[done.stderr.index("brmpi run: "):].splitlines()
    assert re.match(r"brmpi run: exit code 137: rank \d on lucidia was ended by signal 9", said[0]), said
    assert said[1] == "  its last lines:" and sorted(said[2:4]) == ["    lost on lucidia", "    why on lucidia"], said
    assert said[4] == "  mpirun said:", said
    assert sorted(done.stdout.split()[2::3]) == sorted(lab.limits()), "and all of it came through as it was printed"


def test_a_user_for_each_node(lab):
    """Open MPI takes one user for all; ssh is told each."""
    for name in ("aria", "alice"):
        lab.run(name, ["useradd", "-o", "-u", "0", "-g", "0", "-d", "/root", "-M", "-s", "/bin/bash", "-p", "*", "ada"])
    text = (ROOT / "hostfiles/blackroad.toml").read_text()
    text = re.sub(r"(\[nodes.(?:aria|alice)\])", r'\1\nuser = "ada"', text)
    (lab.shared / "users").mkdir(exist_ok=True)
    (lab.shared / "users/cluster.toml").write_text(text)
    words = ["brmpi", "run", "--hostfiles", "/shared/users", "--on", "aria,alice,lucidia", "-n", "3", "--", "hostname"]
    done = lab.run("shellfish", words, timeout=90)
    assert done.returncode == 0 and sorted(done.stdout.split()) == ["alice", "aria", "lucidia"], done
    for name, user in (("aria", "ada"), ("alice", "ada"), ("lucidia", "pi")):
        log = lab.run(name, ["grep", "Accepted", "/var/log/sshd.log"]).stdout.splitlines()
        assert f" for {user} from 192.168.1.15 " in log[-1], log


def test_a_python_for_each_node(lab):
    """Hosts whose Python is said are parts of one job, and each rank has its variables and its host."""
    text = (ROOT / "hostfiles/blackroad.toml").read_text()
    text = re.sub(r"(\[nodes.(?:octavia|alice)\])", rf'\1\npython = "{sys.executable}"', text)
    (lab.shared / "pythons").mkdir(exist_ok=True)
    (lab.shared / "pythons/cluster.toml").write_text(text)
    (lab.shared / "where.py").write_text(
        "import os, socket\nfrom mpi4py import MPI\ncomm = MPI.COMM_WORLD\n"
        "print(comm.rank, comm.size, socket.gethostname(), os.environ['OMP_NUM_THREADS'])\n"
        "if socket.gethostname() == 'alice' and comm.rank > 3:\n    comm.Abort(4)\n")
    words = ["brmpi", "run", "--hostfiles", "/shared/pythons", "--on", "octavia,alice", "-n", "6", "/shared/where.py"]
    done = lab.run("shellfish", words, timeout=90)
    assert done.returncode == 4 and re.search(r"exit code 4: rank [45] on alice gave up", done.stderr), done
    assert {tuple(line.split()) for line in done.stdout.splitlines()} == {
        (str(rank), "6", "octavia" if rank < 3 else "alice", "1") for rank in range(6)}

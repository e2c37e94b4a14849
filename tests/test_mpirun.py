"""Command lines for each MPI, from jobs alone."""

import platform

import pytest

from brmpi.cluster import inventory, launcher, mpirun, openmpi
from brmpi.cluster.hydra import Hydra
from brmpi.cluster.job import Host, Job, users_file, without
from brmpi.cluster.openmpi import OpenMPI4, OpenMPI5
from brmpi.errors import BadInput

FAR = (Host("203.0.113.1", 4, "a", "pi"), Host("203.0.113.2", 2, "b", "pi"))
NEAR = (Host("localhost", 4),)
PROGRAM = ("python", "-m", "brmpi.sims.nbody")


def parameters(command, option="--mca"):
    return {command[place + 1]: command[place + 2] for place, word in enumerate(command) if word == option}


@pytest.mark.parametrize(("said", "kind", "version"), [
    ("mpirun (Open MPI) 4.1.4\n\nReport bugs", OpenMPI4, "4.1.4"), ("mpirun (Open MPI) 5.0.11\n", OpenMPI5, "5.0.11"),
    ("HYDRA build details:\n    Version:                                 4.0.2\n", Hydra, "4.0.2")])
def test_known_by_its_version(said, kind, version):
    found = mpirun.of(said)
    assert type(found) is kind and found.version == version


@pytest.mark.parametrize("said", ["", "mpirun (Open MPI) 3.1.3", "Intel(R) MPI Library"])
def test_unknown_mpi(said):
    with pytest.raises(BadInput, match="mpirun --version says"):
        mpirun.of(said)


def test_one_network_for_both_layers():
    job = Job(FAR, PROGRAM, network="203.0.113.0/24")
    four = parameters(OpenMPI4("4.1.4").command(job))
    assert four["oob_tcp_if_include"] == four["btl_tcp_if_include"] == "203.0.113.0/24"
    command = OpenMPI5("5.0.11").command(job)
    assert parameters(command, "--prtemca")["prte_if_include"] == "203.0.113.0/24"
    assert parameters(command)["btl_tcp_if_include"] == "203.0.113.0/24"


def test_cut_links_are_noticed():
    job = Job(FAR, PROGRAM)
    four = parameters(OpenMPI4("4.1.4").command(job))
    assert int(four["oob_tcp_keepalive_time"]) + int(four["oob_tcp_keepalive_probes"]) < 10
    words = ("-l pi", "BatchMode=yes", "ConnectTimeout=5", "ServerAliveInterval")
    assert all(word in four["plm_rsh_args"] for word in words)
    five = parameters(OpenMPI5("5.0.11").command(job), "--prtemca")
    assert five["plm_ssh_args"] == four["plm_rsh_args"] and "prte_keepalive_time" in five


@pytest.mark.parametrize("mpi", [OpenMPI4("4"), OpenMPI5("5")])
def test_no_parameter_twice(mpi):
    command = mpi.command(Job(FAR, PROGRAM, ranks=9, network="203.0.113.0/24", crowded=True, id="x"))
    keys = [command[place + 1] for place, word in enumerate(command) if word in ("--mca", "--prtemca")]
    assert len(keys) == len(set(keys))


def test_nothing_about_networks_on_one_machine():
    assert parameters(OpenMPI4("4").command(Job(NEAR, PROGRAM, network="203.0.113.0/24"))) == {}


def test_ranks_and_threads_fill_the_cores():
    assert Job(FAR, PROGRAM).count == 6 and Job(FAR, PROGRAM).per_rank == 1
    assert Job(FAR, PROGRAM, ranks=2).per_rank == 2, "the rank on the host of two cores has no more"
    assert Job(FAR, PROGRAM, ranks=12).per_rank == 1
    assert "OMP_NUM_THREADS=2" in OpenMPI4("4").command(Job(FAR, PROGRAM, ranks=2))


def test_more_ranks_than_slots_give_way():
    command = OpenMPI4("4").command(Job(NEAR, PROGRAM, ranks=8))
    assert "--oversubscribe" in command and parameters(command)["mpi_yield_when_idle"] == "1"
    five = OpenMPI5("5").command(Job(NEAR, PROGRAM, ranks=8))
    assert "slot:OVERSUBSCRIBE" in five and "--oversubscribe" not in five
    assert "mpi_yield_when_idle" not in parameters(OpenMPI4("4").command(Job(NEAR, PROGRAM, ranks=4)))


def test_a_python_of_its_own_makes_a_part_of_its_own():
    hosts = (Host("203.0.113.1", 2, python="/opt/arm/bin/python"), Host("203.0.113.2", 1))
    command = OpenMPI4("4").command(Job(hosts, PROGRAM))
    parts = " ".join(command).split(" : ")
    carried = "-x OMP_NUM_THREADS=1 -x OPENBLAS_NUM_THREADS=1 -x NUMBA_NUM_THREADS=1"
    assert parts[0].endswith(f"{carried} --host 203.0.113.1:2 -np 2 /opt/arm/bin/python -m brmpi.sims.nbody")
    assert parts[1] == f"{carried} --host 203.0.113.2:1 -np 1 python -m brmpi.sims.nbody", "-x counts for a part alone"


@pytest.mark.parametrize("ranks", [1, 2, 5, 6, 7, 13])
def test_every_rank_has_a_place(ranks):
    shares = Job(FAR, PROGRAM, ranks=ranks).shares
    assert sum(shares) == ranks and all(share <= host.slots * -(-ranks // 6) for share, host in zip(shares, FAR))


def test_root_variables_only_for_root(monkeypatch):
    monkeypatch.setattr(openmpi.os, "geteuid", lambda: 0)
    assert OpenMPI4("4").environment(Job(NEAR, PROGRAM))["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
    monkeypatch.setattr(openmpi.os, "geteuid", lambda: 1000)
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in OpenMPI4("4").environment(Job(NEAR, PROGRAM))


def test_variable_that_forbids_x_is_taken_away():
    assert OpenMPI4("4").environment(Job(NEAR, PROGRAM))["OMPI_MCA_mca_base_env_list"] is None


def test_hydra():
    command = Hydra("4.0.2").command(Job(FAR, PROGRAM, ranks=3))
    assert command[0] == "mpiexec" and "203.0.113.1:2,203.0.113.2:1" in command, "ranks go where threads are counted"
    place = command.index("-n")
    assert command[place:place + 4] == ["-n", "3", "sh", "-c"] and command[-3:] == list(PROGRAM)
    assert launcher.environment_path() in command[place + 4] and command[place + 4].endswith('exec "$@"')
    assert tuple(Hydra("4.0.2").command(Job(NEAR, PROGRAM))[-5:]) == ("-n", "4", *PROGRAM)
    own = Hydra("4.0.2").command(Job((FAR[0], Host("203.0.113.2", 2, python="/opt/arm/bin/python")), PROGRAM))
    parts = [part.split() for part in " ".join(own).split(" : ")]
    assert parts[0][-3:] == list(PROGRAM) and parts[1][:2] == ["-n", "2"] and parts[1][-3] == "/opt/arm/bin/python"
    assert "ServerAliveInterval" in Hydra("4.0.2").environment(Job(FAR, PROGRAM))["HYDRA_LAUNCHER_EXTRA_ARGS"]


@pytest.mark.parametrize(("mpi", "text", "said"), [
    (OpenMPI4("4"), "mpirun noticed that process rank 3 with PID 0 on node aria exited on signal 9 (Killed).",
     "rank 3 on aria was ended by signal 9"),
    (OpenMPI5("5"), "prterun noticed that process rank 1 with PID 7 on node b exited on signal 11",
     "rank 1 on b was ended by signal 11"),
    (OpenMPI4("4"), "ssh: connect to host 203.0.113.2 port 22: No route to host",
     "203.0.113.2 cannot be reached: No route to host"),
    (OpenMPI4("4"), "  Process name: [[5,1],2]\n  Exit code:    3\n", "rank 2 on localhost ended with exit code 3"),
    (OpenMPI5("5"), "   Process name: [prterun-b-77@1,3] Exit code:    3\n",
     "rank 3 on localhost ended with exit code 3"),
    (Hydra("4"), "=   PID 12 RUNNING AT b\n=   EXIT CODE: 9\n", "a rank on b ended with exit code 9"),
    (OpenMPI4("4"), "pi@192.0.2.2: Permission denied (publickey).",
     "192.0.2.2 does not let pi in: ssh-copy-id pi@192.0.2.2"),
    (OpenMPI4("4"), "something else", None)])
def test_what_failed(mpi, text, said):
    assert mpi.failure(Job(NEAR, PROGRAM), text) == said


def test_rank_without_a_host_is_placed():
    text = "MPI_ABORT was invoked on rank {} in communicator"
    assert OpenMPI4("4").failure(Job(FAR, PROGRAM), text.format(4)) == "rank 4 on b gave up"
    assert OpenMPI4("4").failure(Job(FAR, PROGRAM, ranks=2), text.format(1)) == "rank 1 on b gave up"
    assert OpenMPI4("4").failure(Job((*FAR, *NEAR), PROGRAM), text.format(3)) == "rank 3 on localhost gave up"
    assert OpenMPI5("5").failure(Job((*FAR, *NEAR), PROGRAM), text.format(3)) == "rank 3 on a gave up"
    assert OpenMPI4("4").failure(Job(FAR, PROGRAM, ranks=12), text.format(4)) == "rank 4 gave up"
    own = Job((FAR[0], Host("203.0.113.2", 4, "c", python="/x/python")), PROGRAM, ranks=4)
    assert OpenMPI4("4").failure(own, text.format(1)) == "rank 1 on a gave up", "a part of the job for each host"
    assert OpenMPI4("4").failure(own, text.format(2)) == "rank 2 on c gave up"


def test_without_lost_hosts():
    assert without(Job(FAR, PROGRAM), {"203.0.113.1"}).count == 2
    assert without(Job(FAR, PROGRAM, ranks=2), {"203.0.113.1"}).count == 2
    assert without(Job(FAR, PROGRAM, ranks=5), {"203.0.113.1"}).count == 2
    assert without(Job(FAR, PROGRAM, ranks=12), {"203.0.113.1"}).count == 12
    with pytest.raises(BadInput, match="no node is left"):
        without(Job(FAR, PROGRAM), {"203.0.113.1", "203.0.113.2"})


@pytest.mark.parametrize(("prefix", "first"), [("/x/.venv", "/x/.venv-$(uname -m)/bin:/x/.venv/bin"), (
    f"/x/.venv-{platform.machine()}", f"/x/.venv-$(uname -m)/bin:/x/.venv-{platform.machine()}/bin")])
def test_an_environment_for_each_architecture(monkeypatch, prefix, first):
    monkeypatch.setattr(launcher.sys, "prefix", prefix)
    monkeypatch.setattr(launcher.sys, "executable", f"{prefix}/bin/python")
    assert launcher.environment_path() == first


def test_users_that_differ():
    """One user goes on the command line; more need ssh's own file."""
    job = Job((*FAR, Host("192.0.2.3", 1, "c", "ada")), PROGRAM, ssh="/x/users.ssh")
    assert job.users == {"pi", "ada"}
    assert parameters(OpenMPI4("4").command(job))["plm_rsh_args"].startswith("-F /x/users.ssh -o BatchMode")
    assert Hydra("4").environment(job)["HYDRA_LAUNCHER_EXTRA_ARGS"].startswith("-F /x/users.ssh ")
    assert parameters(OpenMPI4("4").command(Job(FAR, PROGRAM)))["plm_rsh_args"].startswith("-l pi -o")


def test_a_file_that_knows_users(tmp_path):
    file = tmp_path / "cluster.toml"
    nodes = '[nodes.a]\naddress = "203.0.113.1"\nuser = "pi"\n[nodes.b]\naddress = "203.0.113.2"\nuser = "{}"\n'
    file.write_text(nodes.format("pi"))
    assert users_file(inventory.load(tmp_path, file)) is None and not (tmp_path / "users.ssh").exists()
    file.write_text(nodes.format("ada"))
    written = users_file(inventory.load(tmp_path, file))
    text = (tmp_path / "users.ssh").read_text()
    assert written == str(tmp_path / "users.ssh") and "Include ~/.ssh/config" in text
    assert "Host 203.0.113.1\n  User pi\n" in text and "Host 203.0.113.2\n  User ada\n" in text

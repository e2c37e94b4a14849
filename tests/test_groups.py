"""Control groups of both versions, on folders that look like the kernel's."""

import pytest

from brmpi.cluster.groups import Groups
from brmpi.errors import Fault

ONE = """31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / {0}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / {0}/cpuset rw,relatime - cgroup cgroup rw,cpuset
34 31 0:31 / {0}/memory rw,relatime - cgroup cgroup rw,memory
35 31 0:32 / {0}/pids rw,relatime shared:7 - cgroup cgroup rw,pids
36 31 0:33 / {0}/unified rw,relatime - cgroup2 cgroup2 rw
"""
TWO = "25 23 0:22 / {0} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MINE = "4:memory:/user/me\n3:cpuset:/\n2:pids:/\n1:cpu,cpuacct:/slice\n0::/x\n"


def groups(tmp_path, mounts, mine=MINE):
    (tmp_path / "mountinfo").write_text(mounts.format(tmp_path))
    (tmp_path / "cgroup").write_text(mine)
    return Groups.here("lab", tmp_path / "mountinfo", tmp_path / "cgroup")


def test_version_1_lies_within_the_callers_groups(tmp_path):
    found = groups(tmp_path, ONE)
    assert found.version == 1
    assert [str(folder.relative_to(tmp_path)) for folder in found.folders] == [
        "cpu,cpuacct/slice/lab", "cpuset/lab", "memory/user/me/lab", "pids/lab"]


def test_version_2(tmp_path):
    found = groups(tmp_path, TWO, "0::/user.slice\n")
    assert (found.version, found.folders) == (2, [tmp_path / "lab"])
    found.make("a")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +cpuset +memory +pids"
    assert (tmp_path / "lab/cgroup.subtree_control").read_text() == "+cpu +cpuset +memory +pids"
    assert found.doors("a") == [str(tmp_path / "lab/a/cgroup.procs")]
    for file in ("cpu.max", "memory.max", "cpuset.cpus"):
        (tmp_path / "lab/a" / file).touch()
    found.cpu("a", 12)
    found.memory("a", 4_000_000_000)
    found.cpuset("a", "0,2-3")
    texts = {file.name: file.read_text() for file in (tmp_path / "lab/a").iterdir()}
    assert texts == {"cpu.max": "1200 10000", "memory.max": "4000000000", "cpuset.cpus": "0,2-3"}
    found.cpu("a", None)
    found.memory("a", None)
    found.cpuset("a", None)
    texts = {file.name: file.read_text() for file in (tmp_path / "lab/a").iterdir()}
    assert texts == {"cpu.max": "max 10000", "memory.max": "max", "cpuset.cpus": ""}


@pytest.mark.parametrize(("percent", "period", "quota"), [(30, 10_000, 3000), (12, 10_000, 1200), (250, 10_000, 25_000),
                                                          (5, 20_000, 1000), (0.5, 200_000, 1000)])
def test_periods_are_short_and_quotas_not_below_the_kernels_least(tmp_path, percent, period, quota):
    found = Groups([tmp_path], 1)
    (tmp_path / "a").mkdir()
    for file in ("cpu.cfs_quota_us", "cpu.cfs_period_us"):
        (tmp_path / "a" / file).touch()
    found.cpu("a", percent)
    assert int((tmp_path / "a/cpu.cfs_period_us").read_text()) == period
    assert int((tmp_path / "a/cpu.cfs_quota_us").read_text()) == quota


def test_a_missing_controller_is_said(tmp_path):
    lines = "".join(line for line in ONE.splitlines(keepends=True) if "memory" not in line)
    with pytest.raises(Fault, match="'memory' is not mounted"):
        groups(tmp_path, lines)


def test_processes_of_all_folders(tmp_path):
    for folder, text in (("x/a", "3\n5\n"), ("x/b", "7\n"), ("y/a", "5\n")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cgroup.procs").write_text(text)
    found = Groups([tmp_path / "x", tmp_path / "y"], 1)
    assert found.processes("a") == [3, 5] and found.processes() == [3, 5, 7]


def test_saved_and_read(tmp_path):
    Groups([tmp_path / "x"], 2).save(tmp_path / "file")
    found = Groups.read(tmp_path / "file")
    assert (found.folders, found.version) == ([tmp_path / "x"], 2)

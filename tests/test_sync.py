"""What is sent to nodes, to which of them, and what is removed there; nodes are folders, and ssh is a script."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brmpi import cli
from brmpi.cluster import probing, sync
from brmpi.cluster.inventory import Node
from brmpi.errors import BadInput

# what stands for ssh: on each node, the checkout's path is a folder of its own, or the checkout itself
SSH = """#!/bin/sh
[ "$1" = off ] && { echo "ssh: connect to host off port 22: No route to host" >&2; exit 255; }
exec sh -c "$(printf %s "$2" | sed "s|$HERE|$(readlink -f $THERE/$1)|g")"
"""


def git(folder, *words):
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                   capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "deep").mkdir(parents=True)
    for name in ("kept", "gone", "deep/a b", "setup.cfg"):
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("results/\n")
    (folder / "link").symlink_to("kept")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    (folder / "results").mkdir()
    (folder / "results/run").write_text("mine")
    (folder / "new").write_text("not added yet")
    (folder / "gone").unlink()
    return folder


@pytest.fixture
def turn(checkout, tmp_path, monkeypatch):
    """``turn(*nodes)``: sync to folders, each the node's ``checkout``; nothing is really sent."""
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setattr(probing, "SSH", (str(tmp_path / "ssh"),))
    monkeypatch.setattr(sync.Sync, "_send", lambda self, node: len(self.files))
    monkeypatch.setenv("HERE", str(checkout))
    monkeypatch.setenv("THERE", str(there))

    def run(*names, files=("kept",), install=False, seconds=5.0, **of):
        return sync.Sync(checkout, list(files), seconds, install).run([Node(name, name, **of) for name in names])

    run.there = there
    return run


def test_files(checkout):
    assert sync.files(checkout) == [".gitignore", "deep/a b", "kept", "link", "new", "setup.cfg"]


def test_no_checkout_of_git(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="is no checkout of git"):
        sync.files(tmp_path)
    git(tmp_path, "init", "-q")
    (tmp_path / "inner").mkdir()
    with pytest.raises(BadInput, match=r"it has no \.git"):
        sync.files(tmp_path / "inner")
    (tmp_path / "two\nlines").touch()
    with pytest.raises(BadInput, match="must be printable"):
        sync.files(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="apt-get install git"):
        sync.files(tmp_path)


def test_shared_folders_are_found(turn, checkout):
    (turn.there / "same").symlink_to(checkout)
    for name in ("one", "two"):
        (turn.there / name).mkdir()
    (turn.there / "mate").symlink_to("one")  # an NFS export between two nodes
    told = turn("same", "two", "one", "mate", "off")
    assert told["same"] == ("shared with this machine: nothing to do", "-")
    assert told["one"][0] == told["two"][0] == "sent 1, 1 new or changed"
    assert told["mate"] == ("shared with one", "-")
    assert told["off"][0].startswith("failed: ssh: connect to host off port 22: No route to host (is it on")
    left = [str(path) for folder in (checkout, *turn.there.iterdir()) for path in folder.glob(f"{sync.MARK}-*")]
    assert left == [], "no token stays"


def test_only_what_was_sent_is_removed(turn):
    node = turn.there / "one"
    (node / "deep/er").mkdir(parents=True)
    (node / "results").mkdir()
    for name in ("kept", "old", "deep/er/old one", "mine", "results/run"):
        (node / name).touch()
    turn("one", files=("kept", "old", "deep/er/old one"))
    assert turn("one", files=("kept",))["one"][0] == "sent 1, 1 new or changed, 2 removed"
    assert sorted(path.name for path in node.iterdir()) == [sync.MARK, "kept", "mine", "results"]
    assert (node / sync.MARK).read_text() == "kept\n"
    assert turn("one", files=("kept",))["one"][0] == "sent 1, 1 new or changed"


def test_install(turn):
    (turn.there / "one").mkdir()
    make = turn.there / "one/Makefile"
    make.write_text("install:\n\t@touch made; echo brmpi is in place\n")
    assert turn("one", install=True)["one"][1] == "done: in place"
    assert (turn.there / "one/made").exists()
    told = turn("one", install=True, python="/opt/bin/python3")["one"][1]
    assert told.endswith("run with /opt/bin/python3, which make install leaves as it is")
    make.write_text("install:\n\t@echo no room >&2; exit 3\n")
    assert turn("one", install=True)["one"] == ("sent 1, 1 new or changed", "failed: no room")
    make.write_text("install:\n\t@sleep 60\n")
    assert turn("one", install=True, seconds=0.5)["one"][1] == "failed: it took longer than 0.5 s"


def test_command_line(checkout, tmp_path, monkeypatch, capsys):
    file = tmp_path / "nodes.toml"
    file.write_text('[nodes.here]\naddress = "localhost"\n[nodes.away]\naddress = "10.255.255.1"\n')
    monkeypatch.setattr(sync, "checkout", lambda: checkout)
    assert cli.main(["sync", "--inventory", str(file), "here"]) == 0
    assert "no other node" in capsys.readouterr().out
    assert cli.main(["sync", "--inventory", str(file), "nowhere"]) == 2
    assert cli.main(["sync", "--inventory", str(file), "--timeout", "0"]) == 2
    capsys.readouterr()
    only = tmp_path / "bin"
    only.mkdir()
    (only / "git").symlink_to(shutil.which("git"))
    monkeypatch.setenv("PATH", str(only))
    assert cli.main(["sync", "--inventory", str(file)]) == 2
    assert "rsync is not installed here: apt-get install rsync" in capsys.readouterr().err


def test_not_from_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sync.brmpi, "__file__", str(tmp_path / "brmpi/__init__.py"))
    with pytest.raises(BadInput, match="is no checkout of brmpi"):
        sync.checkout()


def test_help():
    done = subprocess.run([sys.executable, "-m", "brmpi", "sync", "--help"], capture_output=True, text=True,
                          cwd=Path(__file__).parents[1])
    assert done.returncode == 0 and "--no-install" in done.stdout

"""The folder of a run: never mixed up with another, never a person's files removed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import environment

from brmpi.errors import BadInput, Fault
from brmpi.results import folder


def a_run(path, program="nbody"):
    """Make a folder look like that of a finished run."""
    for name in ("snapshots", "checkpoints"):
        (path / name).mkdir(parents=True)
        (path / name / f"{program}_00000010.h5").write_text("data")
        (path / name / f"{program}_00000020.h5.part").write_text("half")
    for name in ("diagnostics.h5", "diagnostics.png", "bodies.png", "fields.png", "movie.gif"):
        (path / name).write_text("data")
    folder.record(path, {"program": program})
    return path


def names(path):
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


def test_runs_of_one_case_are_numbered(tmp_path):
    made = [folder.create("nbody", "plummer", base=tmp_path / "results") for _ in range(3)]
    assert [path.name for path in made] == ["nbody-plummer", "nbody-plummer-2", "nbody-plummer-3"]
    assert all(names(path) == [] for path in made)
    assert folder.create("nbody", "default", base=tmp_path / "results").name == "nbody-default"


def test_the_newest_run_is_the_one_written_last(tmp_path):
    for number, name in enumerate(("a-x", "b-y", "a-x-2")):
        run = a_run(tmp_path / name)
        os.utime(run / "run.json", (1e9 - number, 1e9 - number))
    assert folder.newest(tmp_path).name == "a-x"
    with pytest.raises(BadInput, match="there is no run in it"):
        folder.newest(tmp_path / "a-x")


def test_programs_that_start_at_once_get_folders_of_their_own(tmp_path):
    program = "from brmpi.results import folder\nfor _ in range(20): print(folder.create('a', 'b'))"
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                                env=environment(PYTHONPATH=":".join(sys.path))) for _ in range(3)]
    made = [line for process in started for line in process.communicate(timeout=30)[0].split()]
    assert len(made) == 60 == len(set(made)) == len(list((tmp_path / "results").iterdir()))


def test_an_explicit_folder_that_holds_a_run_is_refused(tmp_path):
    out = a_run(tmp_path / "out")
    before = names(out)
    with pytest.raises(BadInput, match="out: holds another run"):
        folder.create("nbody", "plummer", out=out)
    assert names(out) == before
    assert folder.create("nbody", "plummer", out=out, overwrite=True) == out
    assert names(out) == []


def test_overwriting_removes_only_what_a_run_wrote(tmp_path):
    out = a_run(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    (out / "snapshots" / "paper.pdf").write_text("mine")
    folder.create("nbody", "plummer", out=out, overwrite=True)
    assert names(out) == ["notes.txt", "snapshots", "snapshots/paper.pdf"]


def test_overwriting_without_a_name_takes_the_first_folder(tmp_path):
    first = a_run(tmp_path / "nbody-plummer")
    assert folder.create("nbody", "plummer", overwrite=True, base=tmp_path) == first
    assert names(first) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_persons_files_are_never_touched(tmp_path, overwrite):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="not a run's"):
        folder.create("nbody", "plummer", out=out, overwrite=overwrite)
    with pytest.raises(BadInput, match="is a file"):
        folder.create("nbody", "plummer", out=out / "thesis.tex", overwrite=overwrite)
    with pytest.raises(BadInput, match="cannot be made"):
        folder.create("nbody", "plummer", out=out / "thesis.tex" / "x", overwrite=overwrite)
    assert names(out) == ["thesis.tex"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert folder.create("nbody", "plummer", out=tmp_path / "out") == tmp_path / "out"
    assert folder.create("nbody", "plummer", out=tmp_path / "new" / "deep").is_dir()


def test_the_newest_run_is_restarted(tmp_path):
    for number in ("", "-2", "-10", "-9"):
        a_run(tmp_path / f"nbody-plummer{number}")
    a_run(tmp_path / "nbody-plummer-wide")
    (tmp_path / "nbody-plummer-11").mkdir()  # made, but without a run
    assert folder.existing("nbody", "plummer", base=tmp_path).name == "nbody-plummer-10"
    assert folder.existing("nbody", "plummer-wide", base=tmp_path).name == "nbody-plummer-wide"
    assert folder.existing("nbody", "x", out=tmp_path / "nbody-plummer") == tmp_path / "nbody-plummer"


def test_nothing_to_restart(tmp_path):
    for out in (None, tmp_path / "missing", tmp_path):
        with pytest.raises(BadInput, match="nothing to restart"):
            folder.existing("nbody", "plummer", out=out, base=tmp_path)
    heat = a_run(tmp_path / "heat", "heat")
    with pytest.raises(BadInput, match="a run of heat, not of nbody"):
        folder.existing("nbody", "plummer", out=heat)


def test_what_is_recorded_is_known(tmp_path):
    told = {"program": "nbody", "time": 0.1 + 0.2, "shares": np.arange(3), "steps": np.int64(7), "out": tmp_path,
            "name": "Ceres é"}
    folder.record(tmp_path, told)
    assert folder.about(tmp_path) == {"program": "nbody", "time": 0.1 + 0.2, "shares": [0, 1, 2], "steps": 7,
                                      "out": str(tmp_path), "name": "Ceres é"}
    folder.record(tmp_path, {"status": "done"})
    assert folder.about(tmp_path) == {"status": "done"} and names(tmp_path) == ["run.json"]


def test_a_failed_record_leaves_the_old_one(tmp_path, monkeypatch):
    from brmpi.results import disk

    folder.record(tmp_path, {"status": "running"})
    monkeypatch.setattr(disk, "free", lambda path: 3)
    with pytest.raises(Fault, match=r"run\.json: needs .* 3 B free"):
        folder.record(tmp_path, {"status": "done"})
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "running"}
    assert names(tmp_path) == ["run.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "\udcff"])
def test_what_is_no_run_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match="not a run" if text is None else "cannot be read"):
        folder.about(tmp_path)

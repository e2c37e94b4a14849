"""What the README says can be typed, can be typed; what it links to, is there."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import environment

from brmpi import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), ROOT / "sims/nbody/README.md",
         ROOT / "sims/train/README.md",
         *sorted(ROOT.glob("sims/montecarlo/**/README.md"))]
COMMANDS = [line.split("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()
            if re.match(r"\s+(mpirun|python) .*brmpi\.(sims|montecarlo|train\.(softmax|mlp|conv))", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_targets_exist(page):
    text = page.read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.M):
        assert target in targets, target
    for command in re.findall(r"(?:`|^ +)brmpi ([a-z]+)", text, re.M):
        assert command in cli.COMMANDS, command
    for case in re.findall(r"sims/nbody/[\w-]+\.toml", text):
        assert (ROOT / case).exists(), case


@pytest.mark.parametrize("command", COMMANDS)
def test_simulations_shown_run(command, tmp_path):
    """As shown, but for one step, in an empty folder, and with a hostfile of this machine."""
    (tmp_path / "hostfiles").mkdir()
    (tmp_path / "hostfiles/all").write_text("localhost slots=2\n")
    (tmp_path / "sims").symlink_to(ROOT / "sims")
    count = {"montecarlo": ["--samples", "1000"], "train": ["--epochs", "1"]}
    short = next((words for room, words in count.items() if f"brmpi.{room}" in command), ["--steps", "1"])
    words = shlex.split(command) + ([] if "--help" in command else short)
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0 and f"brmpi {command}" in capsys.readouterr().out
    assert f"  {command} " in cli.usage()


def test_a_shell_completes(tmp_path):
    script = 'eval "$(brmpi completion bash)"; COMP_WORDS=(brmpi "$@"); COMP_CWORD=$#; _brmpi; echo "${COMPREPLY[@]}"'
    for words, wanted in ((["sub"], ["submit"]), (["submit", "nbo"], ["nbody"]), (["submit", "--pri"], ["--priority"]),
                          (["drain", "--g"], ["--gone"]), (["wait", "zz"], [])):
        done = subprocess.run(
            ["bash", "-c", script, "x", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(BRMPI_SPOOL=str(tmp_path)),
        )
        assert done.stdout.split() == wanted, done.stderr
    assert "bashcompinit" in subprocess.run(["brmpi", "completion", "zsh"], capture_output=True, text=True,
                                            env=environment()).stdout


def test_wrong_commands_are_one_sentence(capsys):
    for words in (["frobnicate"], ["show", "--frobnicate"], ["probe", "--timeout", "soon"]):
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("brmpi: ") and error.count("\n") == 1
    assert cli.main([]) == cli.main(["--version"]) == 0

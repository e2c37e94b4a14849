"""``brmpi completion``: a shell completes commands, their options, programs, nodes and jobs."""

import contextlib
import io
import re

from brmpi import cli
from brmpi.arguments import Parser

BASH = r"""_brmpi() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
  if [ "$COMP_CWORD" -eq 1 ]; then command=; fi
  COMPREPLY=($(compgen -W "$(brmpi completion words $command 2>/dev/null)" -- "$word"))
  if [ "$COMP_CWORD" -gt 1 ]; then COMPREPLY+=($(compgen -f -- "$word")); fi
}
complete -o filenames -F _brmpi brmpi
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
JOBS = {"wait": "open", "cancel": "open", "logs": "all", "show": "all", "requeue": "over", "collect": "over"}


def main(argv):
    """``brmpi completion``.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : another shell
    """
    parser = Parser(
        prog="brmpi completion",
        description='For a shell: eval "$(brmpi completion bash)" in ~/.bashrc, or with zsh in ~/.zshrc.',
    )
    parser.add_argument("what", choices=("bash", "zsh", "words"), help="a script, or the words that it asks for")
    parser.add_argument("command", nargs="?", help="words: of this command; else the commands")
    args = parser.parse_args(argv)
    if args.what == "words":
        print("\n".join(words(args.command) if args.command else cli.COMMANDS))
    else:
        print((ZSH if args.what == "zsh" else "") + BASH, end="")
    return 0


def words(command):
    """What may follow a command, besides files.

    Parameters
    ----------
    command : str

    Returns
    -------
    list of str
    """
    if command not in cli.COMMANDS:
        return []
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        cli.main([command, "--help"])
    found = re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.getvalue())
    with contextlib.suppress(ValueError, RuntimeError):  # no spool, or a mistake in a file: nothing to offer
        found += _things(command)
    return list(dict.fromkeys(found))


def _things(command):
    if command in ("run", "submit"):
        from brmpi.cluster import launch

        return launch.programs()
    if command in JOBS or command == "drain":
        from brmpi.spool.store import OPEN, OVER, Store

        store = Store(patience=1.0)
        if command == "drain":
            return [node["name"] for node in store.nodes()]
        states = {"open": OPEN, "over": OVER, "all": (*OPEN, *OVER)}[JOBS[command]]
        ids = [row["id"] for row in store.jobs(states, 100)]
        return ids + [id.partition("-")[0] for id in ids if "-" in id]
    return []

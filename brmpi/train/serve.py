"""A trained network behind HTTP: the root answers, all ranks classify, requests of the same moment as one batch.

    mpirun -n 4 python -m brmpi.train.serve results/mlp-digits
    curl -d '{"inputs": [0, 0, 5, …]}' -H 'content-type: application/json' http://127.0.0.1:8000/predict

A rank that hangs is given up after ``--patience``: the requests it held get 503 with the reason, and the others go on
without it. A rank that dies ends the job, as MPI has it: the requests that are held get 503 before that, and
``brmpi run --retries N`` starts the server again.
"""

import contextlib
import ipaddress
import os
import socket
import sys
from pathlib import Path

from brmpi import command, mpi, speeds
from brmpi.arguments import Parser
from brmpi.errors import BadInput
from brmpi.train import model, workers

TOKEN = "BRMPI_TOKEN"


def parsed(argv=None):
    """The command line.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    namespace

    Raises
    ------
    BadInput : a word that cannot be, or an address that others can reach without a token
    """
    parser = Parser(prog="python -m brmpi.train.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="folder of a training run, or its model.h5")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1, this machine "
                        f"alone); any other needs a token, in {TOKEN} or --token-file")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default 8000)")
    parser.add_argument("--token-file", type=Path, metavar="FILE",
                        help="file with the token that requests have to bring (Authorization: Bearer …)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="most samples of a batch (default 64)")
    parser.add_argument("--wait", type=float, default=2.0, metavar="MS",
                        help="how long a request may wait for others of its batch (default 2)")
    parser.add_argument("--queue", type=int, default=4096, metavar="N",
                        help="samples that may wait; past it 503 with Retry-After (default 4096)")
    parser.add_argument("--body", type=float, default=1.0, metavar="MB", help="largest body of a request (default 1)")
    parser.add_argument("--patience", type=float, default=10.0, metavar="S",
                        help="after which a rank that does not answer is given up (default 10)")
    found = parser.parse_args(argv)
    for name, least, most in (("port", 0, 65535), ("batch", 1, 65536), ("queue", 1, 10**7), ("body", 1e-3, 1e3),
                              ("patience", 0.1, 1e6), ("wait", 0, 1e4)):
        value = getattr(found, name)
        if not least <= value <= most:
            raise BadInput(f"--{name} {value:g}: must be from {least:g} to {most:g}")
    return found


def token(options):
    """The token that requests have to bring.

    Parameters
    ----------
    options : from ``parsed``

    Returns
    -------
    str, empty where none is needed

    Raises
    ------
    BadInput : none for an address that others can reach, or a file that cannot be read
    """
    found = os.environ.get(TOKEN, "").strip()
    if options.token_file:
        try:
            found = options.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"--token-file {options.token_file}: cannot be read: {error}") from None
        if not found:
            raise BadInput(f"--token-file {options.token_file}: is empty")
    if not found.isascii():
        raise BadInput(f"the token holds signs that are not ASCII, which HTTP does not carry: {TOKEN} or --token-file")
    if not found and not _loopback(options.host):
        raise BadInput(f"--host {options.host}: others can reach that: set a token in {TOKEN}, or name --token-file")
    return found


def _loopback(host):
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def listening(host, port):
    """A socket that listens.

    Parameters
    ----------
    host : str
    port : int

    Returns
    -------
    socket.socket

    Raises
    ------
    BadInput : the address cannot be had
    """
    try:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves TCP_NODELAY off
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(1024)
        return made
    except OSError as error:
        raise BadInput(f"--host {host} --port {port}: cannot listen there: {error.strerror or error}") from None


def run(comm, argv=None):
    """Serve until a signal says to end. Collective.

    Parameters
    ----------
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : no such run, an address that cannot be had, no Starlette; on every rank alike
    """
    options = parsed(argv)
    held = []

    def _begin():
        try:
            from brmpi.train import web
        except ImportError as error:
            raise BadInput(f"serving needs {error.name}, which is not here: pip install brmpi[serve]") from None
        secret = token(options)
        net = model.load(options.run)
        held.extend((listening(options.host, options.port), secret, web))
        return net

    net = mpi.on_root(comm, _begin)
    known = speeds.speeds(comm, "compute")
    net.probabilities(net.mean[None])  # the first call takes longer
    comm.Barrier()
    if comm.rank:
        with command.Stop():  # the root hears of it, and says when there is nothing more
            workers.work(comm, net)
        return 0
    door, secret, web = held
    crew = workers.Crew(comm, net, known, options.patience)
    name = Path(options.run).absolute()
    name = name.parent.name if name.name == "model.h5" else name.name
    host, port = door.getsockname()[:2]
    mpi.say(f"serve: {name} on http://{f'[{host}]' if ':' in host else host}:{port}/predict, "
            f"{max(1, comm.size - 1)} rank{'s' * (comm.size > 2)} classify; ends with Ctrl-C")
    try:
        web.serve(door, crew, options, secret, name)
    finally:
        crew.dismiss()
    return 0


if __name__ == "__main__":
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        parsed()
    mpi.run(run)

"""``brmpi spool``: this user's own Redis, the pause after a loss, and what is set up where the spool has another
one."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from brmpi.arguments import Parser
from brmpi.cluster import atomic
from brmpi.errors import BadInput, Fault
from brmpi.spool import places, spec
from brmpi.spool.store import PREFIX, STATES, Away, Store

PORT = 6379
# What the user "agent" may do, and only with the spool's keys: what transitions.lua, Store and agents need.
COMMANDS = (
    "auth",
    "blpop",
    "client|setname",
    "del",
    "eval",
    "evalsha",
    "exists",
    "get",
    "hdel",
    "hello",
    "hexists",
    "hget",
    "hgetall",
    "hincrby",
    "hkeys",
    "hmget",
    "hset",
    "incr",
    "info",
    "ping",
    "rename",
    "rpush",
    "sadd",
    "scard",
    "script|load",
    "select",
    "set",
    "setnx",
    "sismember",
    "smembers",
    "srem",
    "sunionstore",
    "time",
    "xadd",
    "xrange",
    "xread",
    "xrevrange",
    "zadd",
    "zcard",
    "zincrby",
    "zrange",
    "zrangebyscore",
    "zrem",
    "zscore",
)
PATIENCE = 30.0  # seconds for Redis to read its file and answer
SETTINGS = ("--unixsocketperm", "700", "--appendonly", "yes", "--appendfsync", "always", "--save", "",
            "--daemonize", "yes", "--always-show-logo", "no", "--aof-use-rdb-preamble", "yes")


def main(argv):
    """``brmpi spool start | stop | status | resume | prune``.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : redis-server is not installed, or a word that is not known
    Fault : it does not start, or does not end
    """
    parser = Parser(prog="brmpi spool", description="The Redis that keeps the queued runs.")
    parser.add_argument(
        "what",
        choices=("start", "stop", "status", "resume", "prune"),
        help="start: this user's own, where none is configured, and returns once it answers; stop: end it, "
        "its jobs stay on disk; status: where it is and how it is; resume: go on after a loss; prune: forget jobs that "
        "have long been over",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="start: for other nodes too, at an address of this machine such "
        "as 192.168.1.15 or 192.168.1.15:6379, with passwords of its own",
    )
    parser.add_argument("--older", metavar="T", default="30d", help="prune: over for so long (30d)")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args(argv)
    if args.listen and args.what != "start":
        raise BadInput(f"--listen: is of brmpi spool start, not of {args.what}")
    if args.what == "start":
        return _start(args.listen, args.json)
    if args.what == "status":
        return _status(args.json)
    if args.what == "prune":
        return _prune(spec.seconds(args.older, "--older"), args.json)
    return {"stop": _stop, "resume": _resume}[args.what](args.json)


def _prune(seconds, as_json):
    store, count = Store(places.address()), 0
    while some := int(store.call("prune", seconds)):
        count += some
    return _say(as_json, f"spool: {spec.counted(count, 'job')} forgotten", forgotten=count)


def _say(as_json, text, **told):
    print(json.dumps(told) if as_json else text)
    return 0


def _start(listen, as_json):
    address = places.address()
    if not address.own and listen:
        raise BadInput(f"--listen {listen}: the spool's Redis is {address.url}, as configured: one or the other")
    if address.own:
        if listen and not _listens(listen):
            if _answers(address):
                raise BadInput(f"--listen {listen}: the spool runs already: brmpi spool stop first")
            _open(listen)
        address = places.address()
        start(address)
        if (told := _listening()) and not as_json:
            print(
                "spool: other nodes reach it with this in their cluster.toml, and "
                f"{places.state() / 'agent-password'} copied to each:\n"
                f'[spool]\nredis = "redis://{told[0]}:{told[1]}"\nuser = "agent"\n'
                'password_file = "~/.config/brmpi/redis-password"'
            )
    store = Store(address)
    store.durable()
    if not address.own and store.ask("get", f"{PREFIX}epoch") is None:
        if store.memory.read():
            raise Fault(f"{address.url}: holds no spool any more, though this machine has seen one there: "
                        "brmpi spool resume begins anew")
        begin(store)
    why = store.paused()
    return _say(as_json, f"spool: {address.url}" + (f"; paused: {why}" if why else ""), redis=address.url, paused=why)


def _listening():
    """(address, port) at which this user's Redis is reached from other nodes; None where it is not."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        told = json.loads((places.state() / "listen.json").read_text())
        return told["address"], int(told["port"])
    return None


def _listens(text):
    return _listening() == _end(text)


def _end(text):
    """Address and port."""
    match = re.fullmatch(r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+?)(?::(\d+))?", text)
    if not match or not 0 < int(match[2] or PORT) < 65536:
        raise BadInput(
            f"--listen {text}: must be an address of this machine, such as 192.168.1.15 or 192.168.1.15:6379"
        )
    return match[1].strip("[]"), int(match[2] or PORT)


def _open(listen):
    """Make the passwords and users of a Redis that others can reach."""
    folder, (address, port) = places.state(), _end(listen)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("password", "agent-password"):
        if not (folder / name).exists():
            door, part = tempfile.mkstemp(dir=folder)  # for this user's eyes alone
            with os.fdopen(door, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            Path(part).replace(folder / name)
    hashed = {name: hashlib.sha256(places.secret(name).encode()).hexdigest() for name in ("password", "agent-password")}
    rights = " ".join(f"+{command}" for command in COMMANDS)
    atomic.write(folder / "users.acl", f"user default on #{hashed['password']} ~* &* +@all\n"
                 f"user agent on #{hashed['agent-password']} ~{PREFIX}* resetchannels -@all {rights}\n")
    atomic.write(folder / "listen.json", json.dumps({"address": address, "port": port}))


def begin(store):
    """A new spool, or the word that what was lost is known.

    Parameters
    ----------
    store : Store
    """
    last = store.memory.read()
    store.call("resume", uuid.uuid4().hex, last.get("seq", 0), last.get("fence", 0))
    store.call("pass")
    store.remember()


def start(address):
    """Start this user's own Redis, if it does not run; returns once it answers.

    Parameters
    ----------
    address : places.Address

    Raises
    ------
    BadInput : redis-server is not installed
    Fault : it does not start
    """
    folder = places.state()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Fault(f"{folder}: cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(address):
            _launch(address, folder)
        marker, store = folder / "spool.json", Store(address, hello=False)
        if store.ask("get", f"{PREFIX}epoch") is None and not marker.exists():
            begin(store)
        if not marker.exists():
            atomic.write(marker, "{}\n")
    finally:
        os.close(lock)


def _launch(address, folder):
    program = shutil.which(
        "redis-server", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/usr/local/bin"])
    )
    if program is None:
        raise BadInput("redis-server is not installed: make install, or apt-get install redis-server")
    log, data = folder / "redis.log", folder / "data"
    data.mkdir(exist_ok=True, mode=0o700)
    with contextlib.suppress(OSError):
        if log.stat().st_size > 10_000_000:
            log.replace(log.with_suffix(".log.1"))
    (folder / "redis.pid").unlink(missing_ok=True)  # of one that was killed
    more = ["--port", "0"]
    if told := _listening():
        more = ["--bind", told[0], "--port", told[1], "--aclfile", (folder / "users.acl").absolute()]
    command = [program, *SETTINGS, *more, "--unixsocket", address.socket, "--dir", data, "--logfile", log.absolute(),
               "--pidfile", (folder / "redis.pid").absolute()]
    try:
        done = subprocess.run(
            list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Fault(f"{program}: does not start: {error}") from None
    end = time.monotonic() + PATIENCE
    while not _answers(address):
        if done.returncode or time.monotonic() > end or not _runs(folder):
            last = _last(log) or done.stdout.strip() or done.stderr.strip()
            raise Fault(f"redis-server does not start: {last} (see {log})")
        time.sleep(0.01)


def _last(log):
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "#" in line or "FATAL" in line), lines[-1] if lines else "")
    return ""


def _runs(folder):
    """Whether the process that wrote the pidfile is there; yes where none is written yet."""
    try:
        pid = int((folder / "redis.pid").read_text())
    except (OSError, ValueError):
        return True
    return Path(f"/proc/{pid}").exists()


def _answers(address):
    try:
        return bool(Store(address, 2.0, hello=False).ask("ping"))
    except Away:
        return False


def _stop(as_json):
    address = places.address()
    if not address.own:
        raise BadInput(f"{address.url}: is not this user's own: whoever runs it ends it")
    try:
        store = Store(address, hello=False)
        pid = int(store.ask("info", "server")["process_id"])
    except Away:
        return _say(as_json, "spool: not running", running=False)
    with contextlib.suppress(Away):
        store.ask("shutdown", save=False, nosave=True)
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > end:
            raise Fault(f"redis-server, process {pid}, does not end")
        time.sleep(0.01)
    return _say(as_json, "spool: stopped; its jobs are kept, and go on after brmpi spool start and brmpi agent",
                running=False)


def _status(as_json):
    store = Store(places.address())
    why = store.paused()
    found = {state: store.ask("zcard", f"{PREFIX}state:{state}") for state in STATES}
    if as_json:
        print(json.dumps({"redis": store.address.url, "paused": why, "jobs": found, "nodes": store.nodes()}))
        return 1 if why else 0
    counts = [f"{count} {state}" for state, count in found.items() if count]
    print(f"spool: {store.address.url}; {', '.join(counts) or 'no jobs'}")
    for node in store.nodes():
        state = "drained" if node.get("drained") == "1" and node["state"] == "up" else node["state"]
        print(f"  {node['name']}: {state}, {node['free']} of {node['slots']} slots free; {node['tags']}"
              + (f"; gets no jobs for a while: {node['trouble']}" if node.get("trouble") else ""))
    if why:
        print(f"paused: {why}")
        run = store.ask("get", f"{PREFIX}run")
        if left := [node["name"] for node in store.nodes() if node.get("run") != run and node["state"] != "gone"]:
            print(f"not heard of since: {', '.join(left)}")
    return 1 if why else 0


def _resume(as_json):
    store = Store(places.address())
    why = store.paused()
    if not why:
        return _say(as_json, "spool: is not paused", paused="")
    begin(store)
    return _say(as_json, f"spool: goes on ({why})", paused="")

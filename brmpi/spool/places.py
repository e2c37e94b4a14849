"""Where the spool is: which Redis, and what this user's processes remember of it on this machine."""

import hashlib
import ipaddress
import json
import os
import tomllib
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from brmpi import speeds
from brmpi.errors import BadInput

VARIABLE = "BRMPI_REDIS"
PASSWORD = "BRMPI_REDIS_PASSWORD"
LONGEST = 100  # bytes of a socket's path
EPOCHS = 200  # losses that are remembered
KEYS = ("redis", "user", "password_file")


def state():
    """The folder of what is kept between commands: ``$BRMPI_SPOOL``, else one of the person's state folder.

    Returns
    -------
    Path, which need not exist
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(os.environ.get("BRMPI_SPOOL") or Path(home) / "brmpi/spool")


def own_socket():
    """The Unix socket of this user's own Redis.

    Returns
    -------
    Path: beside its files, or where that would be longer than the kernel takes, in a folder of this user under /tmp

    Raises
    ------
    BadInput : that folder is somebody else's
    """
    path = state().absolute() / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST:
        return path
    folder = Path(f"/tmp/brmpi-{os.getuid()}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}")
    folder.mkdir(mode=0o700, exist_ok=True)
    told = folder.lstat()
    if told.st_uid != os.getuid() or told.st_mode & 0o77 or not folder.is_dir() or folder.is_symlink():
        raise BadInput(f"{folder}: must be a folder of this user alone: set BRMPI_SPOOL to a shorter path")
    return folder / "redis.sock"


def secret(name="password"):
    """The password of this user's own Redis.

    Parameters
    ----------
    name : "password", of its owner, or "agent-password", of the user for other nodes

    Returns
    -------
    str, None where it has none because only its socket leads to it
    """
    try:
        return (state() / name).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


@dataclass(frozen=True)
class Address:
    """A Redis. ``url`` holds no secret."""

    url: str  # redis://host:port/db or unix:///path
    user: str | None = None
    password: str | None = None
    own: bool = False  # this user's, which ``brmpi spool start`` starts

    @property
    def socket(self):
        """Path of the Unix socket; None for a host."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None

    @property
    def end(self):
        """(host, port, database)."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or "localhost", parts.port or 6379, int(parts.path.lstrip("/") or 0)

    @property
    def loopback(self):
        """Whether only this machine reaches it by that address."""
        if self.socket:
            return True
        host = self.end[0]
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def address(folder=None):
    """The Redis to use: of ``$BRMPI_REDIS``, else of ``[spool]`` in ``cluster.toml``, else this user's own.

    Parameters
    ----------
    folder : path of the hostfiles, ``speeds.folder()`` if not given

    Returns
    -------
    Address

    Raises
    ------
    BadInput : an address that cannot be, or a file of a password that cannot be read
    """
    if given := os.environ.get(VARIABLE):
        return _parsed(given, VARIABLE, os.environ.get(PASSWORD))
    file = Path(speeds.folder() if folder is None else folder, "cluster.toml")
    table = {}
    if file.exists():
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8")).get("spool", {})
        except (OSError, ValueError) as error:
            raise BadInput(f"{file}: cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise BadInput(f"{file}: spool must be a table, [spool]")
    if "redis" not in table:
        return Address(f"unix://{own_socket()}", password=secret(), own=True)
    password = os.environ.get(PASSWORD)
    if "password_file" in table and not password:
        try:
            password = Path(table["password_file"]).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, TypeError) as error:
            raise BadInput(
                f"{file}: spool.password_file = {table['password_file']!r}: cannot be read: {error}"
            ) from None
    found = _parsed(table["redis"], f"{file}: spool.redis", password)
    return Address(found.url, table.get("user", found.user), found.password)


def _parsed(text, where, password):
    """An address from its text, whose password goes elsewhere."""
    parts = urllib.parse.urlsplit(text) if isinstance(text, str) else None
    try:
        good = parts and ((parts.scheme == "redis" and parts.hostname and (parts.port or 1)
                          and (parts.path.lstrip("/") or "0").isdigit()) or (parts.scheme == "unix" and parts.path))
    except ValueError:
        good = False
    if not good:  # without the text, which may hold a password
        raise BadInput(f"{where}: must be like redis://shellfish:6379 or unix:///run/redis.sock")
    unquote = urllib.parse.unquote
    password = password or (unquote(parts.password) if parts.password else None)
    user = unquote(parts.username) if parts.username else None
    if parts.scheme == "unix":
        return Address(f"unix://{parts.path}", user, password)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"redis://{host}:{parts.port or 6379}/{parts.path.lstrip('/') or 0}", user, password)


class Memory:
    """What was seen of a Redis last, on this machine: by this one knows that it has lost something.

    Parameters
    ----------
    address : Address
    """

    def __init__(self, address):
        name = "".join(sign if sign.isalnum() else "-" for sign in address.url.partition("://")[2])[-80:]
        self.file = state() / "seen" / f"{name.strip('-')}.json"

    def read(self):
        """What was seen.

        Returns
        -------
        dict: ``epoch`` (str), ``count``, ``seq``, ``fence`` (int), ``epochs`` (list of str, all that were seen); empty
        where nothing was
        """
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            return {"epoch": str(found["epoch"]), **{name: int(found[name]) for name in ("count", "seq", "fence")},
                    "epochs": list(map(str, found.get("epochs", ())))}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def write(self, epoch, count, seq, fence):
        """Keep what was seen, unless something later is there.

        Parameters
        ----------
        epoch : str
        count, seq, fence : int
        """
        before = self.read()
        if not epoch or (before.get("epoch") == epoch and before["count"] >= count):
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = self.file.with_name(f".{self.file.name}.{os.getpid()}")
            epochs = list(dict.fromkeys([*before.get("epochs", ()), epoch]))[-EPOCHS:]
            part.write_text(json.dumps({"epoch": epoch, "count": count, "seq": seq, "fence": fence, "epochs": epochs}))
            part.replace(self.file)
        except OSError:
            return  # a full disk: what is known stays known

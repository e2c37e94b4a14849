"""The spool in Redis, as Python calls it: one connection, one script whose transitions are whole or not at all."""

import hashlib
import json
from pathlib import Path

from brmpi.errors import BadInput, Fault
from brmpi.spool import places

PREFIX = "brmpi:"
SCRIPT = Path(__file__).with_name("transitions.lua")
OPEN = ("waiting", "queued", "delayed", "placed", "running", "ending")
OVER = ("done", "failed", "cancelled", "broken")
STATES = OPEN + OVER


class Refused(BadInput):
    """The spool does not take what is asked: it is paused, or holds no such thing."""


class Away(Fault):
    """Redis does not answer."""


class Store:
    """The spool.

    Parameters
    ----------
    address : places.Address, from ``places.address()`` if None
    patience : float, limit of time for an answer [s]
    hello : bool, whether to tell Redis what this machine has seen last, so that a loss is noticed

    Raises
    ------
    BadInput : the redis module is missing, or others can reach this Redis without a password
    Away : it does not answer
    """

    def __init__(self, address=None, patience=10.0, hello=True):
        self.address = address or places.address()
        self.memory, self.seen = places.Memory(self.address), {}
        self.redis, self.patience = self._client(patience), patience
        self.text = SCRIPT.read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode()).hexdigest()
        self._safe()
        if hello and (last := self.memory.read()):
            self.hello(last)

    def _client(self, patience):
        try:
            import redis
        except ImportError:
            raise BadInput("the spool needs the redis module: make install, or pip install brmpi[spool]") from None
        where, address = {}, self.address
        if address.socket:
            where = {"unix_socket_path": address.socket}
        else:
            host, port, database = address.end
            where = {"host": host, "port": port, "db": database, "socket_connect_timeout": patience}
        return redis.Redis(**where, username=address.user, password=address.password, decode_responses=True,
                           socket_timeout=patience, client_name="brmpi")

    def _safe(self):
        """Refuse a Redis that others can reach without a password."""
        if self.address.password or self.address.own:
            return
        said = f"{self.address.url}: others can reach it, and it asks for no password"
        if not self.address.loopback:
            raise BadInput(f"{said}: give it one (requirepass or an ACL), in {places.PASSWORD}")
        try:
            told = {name: self.ask("config_get", name).get(name, "") for name in ("bind", "port", "tls-port",
                                                                                  "protected-mode")}
            version = int(str(self.ask("info", "server").get("redis_version", "0")).partition(".")[0])
        except Refused:  # this user may not look
            return
        if told["port"] in ("", "0") and told["tls-port"] in ("", "0"):
            return
        if told["protected-mode"] == "yes" and (version >= 7 or not told["bind"]):  # before 7, a bind switches it off
            return
        ends = [word.lstrip("-") for word in told["bind"].split()] or ["*"]
        if any(word not in ("127.0.0.1", "::1", "localhost") for word in ends):
            raise BadInput(f"{said} (bind {told['bind'] or '*'}): bind 127.0.0.1, or requirepass")

    def ask(self, name, *arguments, **options):
        """A plain command of Redis.

        Parameters
        ----------
        name : str, of redis-py's method
        *arguments, **options : of it

        Returns
        -------
        what it answers

        Raises
        ------
        Away : Redis does not answer
        Refused : it answers with an error
        """
        import redis

        try:
            return getattr(self.redis, name)(*arguments, **options)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            if isinstance(error, redis.AuthenticationError):
                raise BadInput(f"{self.address.url}: {error}: its password belongs in {places.PASSWORD}") from None
            raise Away(self._away(error)) from None
        except redis.RedisError as error:
            said = str(error)
            if isinstance(error, redis.exceptions.BusyLoadingError):
                raise Away(f"{self.address.url}: Redis is still reading its file") from None
            if "SPOOL " in said:
                said = said.partition("SPOOL ")[2].partition(" script:")[0]
                raise Refused(said) from None
            if said.startswith(("MISCONF", "OOM", "READONLY")):
                raise Away(f"{self.address.url}: Redis takes nothing: {said}") from None
            raise Refused(f"{self.address.url}: {said}") from None

    def _away(self, error):
        if self.address.own:
            return f"the spool is not running ({error}): brmpi spool start"
        return f"{self.address.url}: Redis does not answer: {error}"

    def call(self, transition, *arguments):
        """A transition: whole, or not at all.

        Parameters
        ----------
        transition : str, of ``transitions.lua``
        *arguments : str, int or float

        Returns
        -------
        what it says

        Raises
        ------
        Away : Redis does not answer; whether the transition took place is not known
        Refused : it cannot be
        """
        try:
            said = self.ask("evalsha", self.sha, 1, PREFIX, transition, *arguments)
        except Refused as error:
            if "NOSCRIPT" not in str(error) and "No matching script" not in str(error):
                raise
            said = self.ask("eval", self.text, 1, PREFIX, transition, *arguments)
        epoch, count, seq, fence, run, answer = said
        self.seen = {"epoch": epoch, "count": int(count), "seq": int(seq), "fence": int(fence), "run": run}
        return answer

    def hello(self, last):
        """Tell Redis what was seen of it last, so that a loss is noticed.

        Parameters
        ----------
        last : dict, from ``memory.read()``

        Raises
        ------
        Away, Refused : as of ``call``
        """
        self.call("hello", *(last[name] for name in ("epoch", "count", "seq", "fence")), *last["epochs"])

    def remember(self):
        """Keep what was seen last, for ``hello``."""
        if self.seen:
            self.memory.write(*(self.seen[name] for name in ("epoch", "count", "seq", "fence")))

    def durable(self):
        """Refuse a Redis that answers before what it took is on its disk.

        Raises
        ------
        Refused : its append-only file is off, or not written before it answers
        """
        try:
            told = self.ask("config_get", "append*")
        except Refused:  # this user may not look: who set up the user has
            return
        if told.get("appendonly") != "yes" or told.get("appendfsync") != "always":
            raise Refused(
                f"{self.address.url}: would forget jobs that it has taken: set appendonly yes and appendfsync "
                "always in its configuration"
            )

    def submit(self, jobs):
        """Take jobs in. When this returns, they are on Redis's disk.

        Parameters
        ----------
        jobs : list of dict, from ``spec.record``

        Returns
        -------
        list of str, an id each
        """
        ids = self.call("submit", json.dumps(jobs, ensure_ascii=False))
        self.remember()
        return ids

    def job(self, id):
        """A job's record.

        Parameters
        ----------
        id : str

        Returns
        -------
        dict of str

        Raises
        ------
        Refused : there is no such job
        """
        found = self.ask("hgetall", f"{PREFIX}job:{id}")
        if not found:
            raise Refused(f"{id}: there is no such job")
        return found

    def records(self, ids):
        """Records of jobs.

        Parameters
        ----------
        ids : sequence of str

        Returns
        -------
        list of dict of str, those of jobs that there are
        """
        pipe = self.redis.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(f"{PREFIX}job:{id}")
        return [{"id": id, **row} for id, row in zip(ids, self._piped(pipe)) if row] if ids else []

    def expanded(self, ids):
        """Jobs by number: an array's number stands for all of its jobs.

        Parameters
        ----------
        ids : sequence of str

        Returns
        -------
        list of str

        Raises
        ------
        Refused : there is no such job
        """
        found = []
        for id in ids:
            count, kept = self.ask("hmget", f"{PREFIX}array:{id}", "count", "kept")
            if count is None and not self.ask("exists", f"{PREFIX}job:{id}"):
                raise Refused(f"{id}: there is no such job")
            each = [id] if count is None else [f"{id}-{index}" for index in range(int(count))]
            if count != kept:  # some are forgotten
                pipe = self.redis.pipeline(transaction=False)
                for one in each:
                    pipe.exists(f"{PREFIX}job:{one}")
                each = [one for one, there in zip(each, self._piped(pipe)) if there]
            found += each
        return list(dict.fromkeys(found))

    def jobs(self, states=OPEN, last=None):
        """Records of the jobs in some states.

        Parameters
        ----------
        states : sequence of str
        last : int, at most so many of each state, those that came into it last

        Returns
        -------
        list of dict
        """
        pipe, found = self.redis.pipeline(transaction=False), []
        for state in states:
            found += [(id, state) for id in self.ask("zrange", f"{PREFIX}state:{state}", -last if last else 0, -1)]
        for id, _ in found:
            pipe.hgetall(f"{PREFIX}job:{id}")
        damaged = {"why": "its record cannot be read"}
        return [{"id": id, "state": state, **(row or damaged)} for (id, state), row in zip(found, self._piped(pipe))]

    def nodes(self):
        """Records of the nodes that have reported.

        Returns
        -------
        list of dict, by name
        """
        pipe = self.redis.pipeline(transaction=False)
        for name in sorted(self.ask("smembers", f"{PREFIX}nodes")):
            pipe.hgetall(f"{PREFIX}node:{name}")
        return [row for row in self._piped(pipe) if row and {"name", "state", "slots", "free"} <= set(row)]

    def keys(self, pattern):
        """Names of keys, for audits: not in the way of other commands.

        Parameters
        ----------
        pattern : str, without the prefix

        Returns
        -------
        list of str
        """
        found, cursor = [], 0
        while True:
            cursor, some = self.ask("scan", cursor, match=f"{PREFIX}{pattern}", count=1000)
            found += some
            if not cursor:
                return list(dict.fromkeys(found))

    def _piped(self, pipe):
        """Answers, None where one is an error: a record that is none."""
        import redis

        try:
            return [None if isinstance(one, Exception) else one for one in pipe.execute(raise_on_error=False)]
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise Away(self._away(error)) from None

    def paused(self):
        """Why nothing is placed.

        Returns
        -------
        str, empty where all is well
        """
        if self.ask("get", f"{PREFIX}epoch") is None:
            return "this Redis holds no spool"
        return self.ask("get", f"{PREFIX}paused") or ""

"""The spool's transitions against a real Redis: a random world of clients, agents and failures, and what always
holds."""

import json
import os
import random
import shutil
import subprocess
import time

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from brmpi.spool import audit, spec
from brmpi.spool.places import Address
from brmpi.spool.store import OPEN, PREFIX, STATES, Away, Refused, Store

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
NODES = {
    "octavia": (4, 8000, "octavia compute primary"),
    "aria": (2, 4000, "aria compute"),
    "alice": (3, 4000, "alice"),
}


class Clocked(Store):
    """A store whose Redis has a clock that the test sets."""

    def __init__(self, address):
        super().__init__(address, hello=False)
        real = "local clock = call('TIME')"
        assert self.text.count(real) == 1
        self.text = self.text.replace(real, "local clock = {call('GET', P .. 'now') or '1000', 0}")
        self.sha = self.ask("script_load", self.text)

    def at(self, now):
        self.ask("set", f"{PREFIX}now", now)


@pytest.fixture(scope="module")
def redis_socket(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    path = f"/tmp/brmpi-test-{folder.parent.parent.name}-{random.randrange(10**9)}.sock"
    process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""],
                               stdout=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while True:
        try:
            Store(Address(f"unix://{path}"), hello=False).ask("ping")
            break
        except Away:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.01)
    yield path
    process.kill()
    process.wait()


@pytest.fixture
def store(redis_socket):
    made = Clocked(Address(f"unix://{redis_socket}"))
    made.ask("flushall")
    made.sha = made.ask("script_load", made.text)
    made.at(1000)
    made.call("resume", "first", 0, 0)
    return made


def about(name, agent="a", boot="b", attempts=(), **more):
    slots, memory, tags = NODES[name]
    return json.dumps(
        {
            "slots": slots,
            "memory": memory,
            "tags": tags,
            "speed": 1,
            "address": name,
            "boot": boot,
            "agent": agent,
            "attempts": list(attempts),
            "epoch": "",
            "count": 0,
            "seq": 0,
            "fence": 0,
            **more,
        }
    )


def job(ranks=1, limit=0.0, **more):
    need = {"tags": more.pop("tags", ()), "nodes": more.pop("nodes", ()), "memory": more.pop("memory", 0),
            "prefer": more.pop("prefer", ()), "threads": more.pop("threads", 1)}
    return spec.record(["x"], spec.needs(ranks, limit=limit, **need), **more)


def messages(store, node):
    found = []
    while word := store.ask("lpop", f"{PREFIX}inbox:{node}"):
        found.append(word.split())
    return found


def each(store, *jobs):
    """Submit jobs one by one, as those that wait for others have to be."""
    return [store.submit([one])[0] for one in jobs]


def begin(store, id):
    """Let the head take a job that is placed; its fence."""
    row = store.job(id)
    assert row["state"] == "placed" and store.call("started", id, row["fence"], row["head"])
    return row["fence"]


def holds(store):
    """The state of each job; what always holds, does."""
    assert audit.problems(store) == []
    return {id: state for state in STATES for id in store.ask("zrange", f"{PREFIX}state:{state}", 0, -1)}


def test_a_job_goes_its_way(store):
    store.call("register", "octavia", about("octavia"))
    assert store.submit([job(3)]) == ["1"]
    assert messages(store, "octavia")[0][:2] == ["run", "1"]
    fence = begin(store, "1")
    assert store.call("started", "1", fence, "octavia") == []  # once
    assert store.call("beat", "octavia", "a", f"1 {fence}") == ["ok"]
    assert store.call("finish", "1", fence, "done", 0, "") == "ok"
    assert store.call("finish", "1", fence, "done", 0, "") == "late"
    assert holds(store) == {"1": "done"}


def test_a_gang_is_placed_whole_or_not_at_all(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(8), job(5), job(1)])
    assert holds(store) == {"1": "placed", "2": "queued", "3": "queued"}  # no limit: nobody is let by
    parts = dict(part.split()[:2] for part in store.job("1")["hosts"].split(","))
    assert sum(map(int, parts.values())) == 8 and set(parts) == set(NODES)
    fence = begin(store, "1")
    store.call("finish", "1", fence, "done", 0, "")
    assert holds(store) == {"1": "done", "2": "placed", "3": "placed"}


def test_who_cannot_delay_the_head_is_let_by(store):
    store.call("register", "octavia", about("octavia"))
    store.call("register", "aria", about("aria"))
    store.submit([job(3, limit=100, nodes=["octavia"])])
    begin(store, "1")
    store.submit([job(6), job(1, limit=200), job(1, limit=50), job(2), job(2, limit=90)])
    assert holds(store) == {"1": "running", "2": "queued", "3": "queued", "4": "placed", "5": "queued", "6": "placed"}
    assert store.job("6")["hosts"].startswith("aria 2")


def test_slots_that_the_head_does_not_need_are_free_for_long_jobs(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(4, limit=100, nodes=["octavia"])])
    begin(store, "1")
    store.submit([job(4, nodes=["octavia"]), job(2, limit=10**6), job(4, limit=10**6)])
    assert holds(store) == {"1": "running", "2": "queued", "3": "placed", "4": "queued"}


def test_priority_goes_before_age_and_age_before_size(store):
    store.submit([job(1, name="old"), job(1, priority=5), job(1, priority=-5)])
    store.call("register", "aria", about("aria"))
    assert holds(store) == {"1": "placed", "2": "placed", "3": "queued"}


def test_memory_tags_threads_and_nodes_are_counted(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(2, memory=3000 * 2**20)])
    assert store.job("1")["hosts"] == "octavia 2 6000"
    store.submit([job(1, memory=3000 * 2**20, tags=["primary"]), job(1, 9, memory=3000 * 2**20, tags=["compute"]),
                  job(1, 9, threads=3), job(1, 9, nodes=["aria", "primary"], prefer=["primary"])])
    assert holds(store) == {"1": "placed", "2": "queued", "3": "placed", "4": "placed", "5": "placed"}
    assert store.job("3")["hosts"] == "aria 1 3000" and store.job("4")["hosts"].startswith("alice 3")
    assert store.job("5")["hosts"].startswith("octavia 1")


def test_a_key_makes_a_second_submission_the_same(store):
    assert store.submit([job(key="k")]) == store.submit([job(key="k")]) == ["1"]
    assert store.submit([job(key="k"), job()]) == ["1", "2"]
    assert len(holds(store)) == 2


def test_jobs_wait_for_those_before_them(store):
    store.call("register", "octavia", about("octavia"))
    each(store, job(), job(after=["1"]), job(after=["2"]), job(), job(after=["1", "4"]))
    assert holds(store) == {"1": "placed", "2": "waiting", "3": "waiting", "4": "placed", "5": "waiting"}
    for id in ("1", "4"):
        store.call("finish", id, begin(store, id), "done", 0, "")
    assert holds(store) == {"1": "done", "2": "placed", "3": "waiting", "4": "done", "5": "placed"}
    store.call("finish", "2", begin(store, "2"), "failed", 1, "exit code 1")
    messages(store, "octavia")
    store.call("confirm", "2", store.job("2")["fence"], "octavia")
    assert holds(store)["2"] == "failed" and holds(store)["3"] == "cancelled"
    assert "job 2 is failed" in store.job("3")["why"]
    assert store.submit([job(after=["1"])]) and holds(store)["6"] == "placed"
    assert store.submit([job(after=["2"])]) and holds(store)["7"] == "cancelled"
    with pytest.raises(Refused, match="after 99: there is no such job"):
        store.submit([job(after=["99"])])


def test_an_array_is_as_many_jobs(store):
    store.call("register", "aria", about("aria"))
    assert each(store, job(count=4), job(after=["1"])) == ["1", "2"]
    assert holds(store) == {"1-0": "placed", "1-1": "placed", "1-2": "queued", "1-3": "queued", "2": "waiting"}
    assert store.expanded(["1", "1-0"]) == ["1-0", "1-1", "1-2", "1-3"]
    for i in range(4):
        store.call("finish", f"1-{i}", begin(store, f"1-{i}"), "done", 0, "")
    assert holds(store)["2"] == "placed"


def fail(store, id, result, code):
    """An attempt that ends badly, and is confirmed on all its nodes."""
    fence = begin(store, id)
    nodes = [part.split()[0] for part in store.job(id)["hosts"].split(",")]
    assert store.call("finish", id, fence, result, code, f"exit code {code}") == "ok"
    for name in nodes:
        assert store.job(id)["state"] == "ending"
        assert ["kill", id, fence] in [message[:3] for message in messages(store, name)]
        store.call("confirm", id, fence, name)
        holds(store)


def test_failures_are_tried_again_after_a_pause_and_a_first_loss_at_once(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(9, retries=1, cap=2)])
    fail(store, "1", "failed", 1)
    assert holds(store) == {"1": "delayed"}
    store.at(1003)
    store.call("beat", "octavia", "a")
    fail(store, "1", "lost", 255)
    assert holds(store) == {"1": "placed"}
    fail(store, "1", "lost", 75)
    assert holds(store) == {"1": "delayed"}  # twice, and soon after it began
    for now in (1006, 1009):
        store.at(now)
        beat(store, *NODES)
    assert holds(store) == {"1": "placed"}
    fail(store, "1", "lost", 255)
    assert holds(store) == {"1": "failed"} and "its limit of that is 2" in store.job("1")["why"]
    assert store.call("requeue", "1") == "queued"
    fail(store, "1", "failed", 2)
    assert holds(store) == {"1": "failed"}  # bad input stays bad
    store.call("requeue", "1")
    fail(store, "1", "failed", 124)
    assert holds(store) == {"1": "failed"}


def test_cancelling(store):
    store.call("register", "aria", about("aria"))
    each(store, job(2), job(1), job(after=["2"]))
    assert store.call("cancel", "2") == "cancelled" and holds(store) == {
        "1": "placed",
        "2": "cancelled",
        "3": "cancelled",
    }
    assert store.call("cancel", "1") == "cancelled" and messages(store, "aria")[0][0] == "run"
    store.submit([job(2)])
    fence = begin(store, "4")
    messages(store, "aria")
    assert store.call("cancel", "4") == "running" and messages(store, "aria")[0][:3] == ["stop", "4", fence]
    assert store.call("finish", "4", fence, "failed", 75, "stopped") == "ok"
    store.call("confirm", "4", fence, "aria")
    assert holds(store)["4"] == "cancelled" and store.call("cancel", "4") == "cancelled"
    store.submit([job(2)])
    fence = begin(store, "5")
    store.call("cancel", "5")
    store.call("finish", "5", fence, "done", 0, "")  # it was quicker
    assert holds(store)["5"] == "done"
    assert store.call("cancel", "77") == ""


def beat(store, *names, **attempts):
    return [store.call("beat", name, "a", *attempts.get(name, ())) for name in names]


def pass_time(store, seconds, *names, start=1000, **attempts):
    for now in range(start + 5, start + seconds + 1, 5):
        store.at(now)
        beat(store, *names, **attempts)
    return start + seconds


def test_what_nobody_takes_is_placed_anew(store):
    store.call("register", "aria", about("aria"))
    store.submit([job(2)])
    first = store.job("1")["fence"]
    pass_time(store, 15, "aria")
    assert store.job("1")["state"] == "placed" and store.job("1")["fence"] != first
    assert store.call("started", "1", first, "aria") == []
    assert holds(store) == {"1": "placed"}


def test_slots_of_a_silent_node_are_kept_until_it_says_that_nothing_is_left(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(9)])
    fence, head = begin(store, "1"), store.job("1")["head"]
    others = [name for name in NODES if name != head]
    now = pass_time(store, 45, *others)
    assert holds(store) == {"1": "ending"} and [node["state"] for node in store.nodes() if node["name"] == head] == [
        "silent"
    ]
    for name in others:
        store.call("confirm", "1", fence, name)
    store.submit([job(3, nodes=others), job(1, nodes=[head])])
    assert holds(store) == {"1": "ending", "2": "placed", "3": "queued"}
    store.at(now + 1)
    messages(store, head)
    assert store.call("beat", head, "a", f"1 {fence}") == ["ok", f"1 {fence}"]  # no longer its own
    assert ["kill", "1", fence] in [message[:3] for message in messages(store, head)]
    store.call("confirm", "1", fence, head)
    assert holds(store)["1"] == "queued" and store.job("1")["losses"] == "1"


def test_a_node_that_was_started_anew_has_nothing_left(store):
    store.call("register", "aria", about("aria"))
    store.submit([job(2)])
    begin(store, "1")
    store.call("register", "aria", about("aria", agent="c", boot="next"))
    assert holds(store) == {"1": "placed"} and store.job("1")["losses"] == "1"
    begin(store, "1")
    assert store.call("drain", "aria", "gone") == "gone"
    assert holds(store) == {"1": "delayed"}
    store.call("register", "aria", about("aria", agent="c", boot="next"))
    for now in (1003, 1006):
        store.at(now)
        assert store.call("beat", "aria", "c") == ["ok"]
    assert holds(store) == {"1": "queued"} and store.call("drain", "aria", "open")
    assert holds(store) == {"1": "placed"}


def test_what_was_finished_while_it_was_given_up_counts_once(store):
    for name in ("aria", "octavia"):
        store.call("register", name, about(name))
    store.submit([job(2, nodes=["aria"])])
    fence = begin(store, "1")
    pass_time(store, 45, "octavia")
    assert holds(store) == {"1": "ending"}
    assert store.call("finish", "1", fence, "done", 0, "") == "ok"
    assert store.call("finish", "1", fence, "failed", 1, "") == "late"
    store.call("confirm", "1", fence, "aria")
    assert holds(store) == {"1": "done"}


def test_what_died_of_being_given_up_has_not_failed(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(9)])
    fence, head = begin(store, "1"), store.job("1")["head"]
    pass_time(store, 45, *(name for name in NODES if name != head))
    assert holds(store) == {"1": "ending"}
    assert store.call("finish", "1", fence, "failed", 137, "exit code 137") == "ok"  # its other nodes have killed it
    for name in NODES:
        store.call("confirm", "1", fence, name)
    row = store.job("1")
    assert row["state"] != "failed" and row["losses"] == "1" and "failures" not in row


@pytest.mark.parametrize("jump", [-3, -10**6])
def test_what_begins_after_a_jump_back_has_its_whole_lease(store, jump):
    store.at(10**7)
    for name in ("aria", "octavia"):
        store.call("register", name, about(name))
    beat(store, "aria", "octavia")
    store.submit([job(2, nodes=["aria"])])
    store.at(10**7 + jump)
    fence = begin(store, "1")
    for now in range(5, 30, 5):
        store.at(10**7 + jump + now)
        beat(store, "octavia")
        assert holds(store) == {"1": "running"}
    assert beat(store, "aria", aria=[f"1 {fence}"]) == [["ok"]]


@pytest.mark.parametrize("jump", [10**6, -10**6])
def test_a_clock_that_jumps_expires_nothing(store, jump):
    store.call("register", "aria", about("aria"))
    store.submit([job(2)])
    fence = begin(store, "1")
    beat(store, "aria", aria=[f"1 {fence}"])
    store.at(1000 + jump)
    store.call("pass")
    assert beat(store, "aria", aria=[f"1 {fence}"]) == [["ok"]]
    pass_time(store, 60, "aria", start=1000 + jump, aria=[f"1 {fence}"])
    assert holds(store) == {"1": "running"} and store.job("1")["losses" if "losses" in store.job("1") else "fence"]
    pass_time(store, 60, start=1060 + jump)
    store.call("register", "octavia", about("octavia"))
    pass_time(store, 60, "octavia", start=1120 + jump)
    assert holds(store) == {"1": "ending"}  # and later it does expire


def test_a_record_that_is_damaged_is_put_aside_and_the_rest_goes_on(store):
    store.submit([job(), job(), job(), job()])
    store.ask("set", f"{PREFIX}job:1", "rubbish")
    store.ask("hdel", f"{PREFIX}job:2", "spec")
    store.ask("delete", f"{PREFIX}job:3")
    store.call("register", "aria", about("aria"))
    assert holds(store) == {"1": "broken", "2": "broken", "3": "broken", "4": "placed"}
    assert store.ask("get", f"{PREFIX}aside:1") == "rubbish"


def test_a_record_of_a_running_job_that_is_damaged(store):
    for name in ("aria", "octavia"):
        store.call("register", name, about(name))
    store.submit([job(2, nodes=["aria"]), job(2, nodes=["octavia"])])
    fences = {id: begin(store, id) for id in ("1", "2")}
    messages(store, "aria")
    store.ask("set", f"{PREFIX}job:1", "rubbish")
    assert store.call("beat", "aria", "a", f"1 {fences['1']}") == ["ok", f"1 {fences['1']}"]
    assert store.job("1")["state"] == "broken"
    word, id, _, tag = messages(store, "aria")[0]
    assert (word, id) == ("kill", "1") and tag.endswith("-1.")
    store.call("confirm", "1", "0", "aria")
    assert holds(store) == {"1": "broken", "2": "running"} and store.nodes()[0]["free"] == "2"
    row = store.job("2")
    store.ask("delete", f"{PREFIX}job:2")
    assert store.call("beat", "octavia", "a", f"2 {fences['2']}") == ["ok", f"2 {fences['2']}"]
    record = {name: value for name, value in row.items() if name not in ("state", "fence")}
    told = {"id": "2", "fence": fences["2"], "record": record, "alloc": {"octavia": "2 0"}}
    assert store.call("adopt", json.dumps(told)) == "ok" and holds(store)["2"] == "running"
    assert store.call("doomed", "2", fences["2"], "octavia", 1) == "no"  # what its agent asks before it kills


def test_jobs_are_forgotten_when_they_have_long_been_over(store):
    store.call("register", "octavia", about("octavia"))
    each(store, job(), job(), job(after=["2"]))
    store.call("finish", "1", begin(store, "1"), "done", 0, "")
    store.at(2000)
    store.call("finish", "2", begin(store, "2"), "done", 0, "")
    assert store.call("prune", 500) == 1 and set(holds(store)) == {"2", "3"}
    with pytest.raises(Refused, match="after 1: there is no such job"):
        store.submit([job(), job(after=["1"])])
    assert set(holds(store)) == {"2", "3"}  # all or none


def test_a_loss_pauses_until_a_person_says_so(store):
    store.call("register", "aria", about("aria"))
    store.submit([job(2), job(2)])
    fence, row = begin(store, "1"), store.job("1")
    seen = dict(store.seen)
    store.ask("flushall")
    store.at(1010)
    with pytest.raises(Refused, match="holds no spool"):
        store.submit([job()])
    last = {name: seen[name] for name in ("epoch", "count", "seq", "fence")}
    adopted = {"id": "1", "fence": fence, "record": {k: v for k, v in row.items() if k not in ("state", "fence")},
               "alloc": {"aria": "2 0"}}
    store.call("adopt", json.dumps(adopted))
    store.call("register", "aria", about("aria", attempts=[f"1 {fence}"], **last))
    assert "jobs up to 2" in store.paused() or "holds no spool" in store.paused()
    assert holds(store) == {"1": "running"}
    store.call("resume", "second", 0, 0)
    assert not store.paused() and store.submit([job(2)]) == ["3"]  # no number is given twice
    assert holds(store) == {"1": "running", "3": "queued"}
    assert store.call("hello", *last.values()) == ""  # that loss is known
    assert store.call("hello", "second", *(store.seen[name] for name in ("count", "seq", "fence")), "zeroth") == ""
    assert store.call("hello", "zeroth", 5, 9, 9) == ""  # one before that, of which another has heard
    assert store.call("hello", "other", 5, 9, 9) != "" and store.paused()


def test_a_lost_tail_is_noticed_and_named(store):
    store.submit([job()])
    seen = store.seen
    assert store.call("hello", seen["epoch"], seen["count"], seen["seq"], seen["fence"]) == ""
    said = store.call("hello", seen["epoch"], seen["count"] + 7, 4, 9)
    assert "has lost the last" in said and "jobs 2 to 4 among them" in said
    with pytest.raises(Refused, match="the spool is paused: Redis has lost"):
        store.submit([job()])
    store.call("register", "aria", about("aria"))
    assert holds(store) == {"1": "queued"}
    store.call("resume", "second", 0, 0)
    assert holds(store) == {"1": "placed"} and store.submit([job()]) == ["5"]


def restarted(store):
    """What Redis does when it is started anew: it has another number."""
    store.ask("set", f"{PREFIX}run", "before")
    for name in store.ask("smembers", f"{PREFIX}nodes"):
        store.ask("hset", f"{PREFIX}node:{name}", "run", "before")


def adopted(row, alloc, **end):
    """An attempt as an agent's journal has it."""
    record = {name: value for name, value in row.items() if name not in ("state", "fence")}
    return json.dumps({"id": row["id"], "fence": row["fence"], "record": record, "alloc": alloc, **end})


END = {"result": "done", "code": 0, "why": ""}


def test_an_attempt_of_which_redis_knows_an_earlier_state(store):
    """Rolled back to placed: what runs is taken over, what is over counts, and neither begins again."""
    store.call("register", "aria", about("aria"))
    for id, more, state in (("1", {}, "running"), ("2", END, "done")):
        store.submit([job(2)])
        row = store.job(id)
        assert row["state"] == "placed" and store.call("adopt", adopted(row, {"aria": "2 0"}, **more)) == "ok"
        assert holds(store)[id] == state and store.call("started", id, row["fence"], "aria") == []
        assert store.call("adopt", adopted(row, {"aria": "2 0"}, **more)) == "ok" and holds(store)[id] == state
        if not more:
            assert store.call("finish", id, row["fence"], "done", 0, "") == "ok"
    row = store.job("1") | {"fence": "0"}
    assert store.call("adopt", adopted(row, {}, **END)) == "late"
    assert store.call("finish", "77", "3", "done", 0, "") == "unknown"


def test_an_attempt_that_was_given_up_while_its_node_was_away_is_taken_back(store):
    for name in NODES:
        store.call("register", name, about(name))
    store.submit([job(9)])
    fence, head = begin(store, "1"), store.job("1")["head"]
    others = [name for name in NODES if name != head]
    now = pass_time(store, 45, *others)
    assert holds(store) == {"1": "ending"}
    assert store.call("beat", head, "a", f"1 {fence}") == ["ok"] and holds(store) == {"1": "running"}
    assert store.call("doomed", "1", fence, others[0], 0) == "no"
    assert store.call("confirm", "1", fence, others[0]) == "early"
    now = pass_time(store, 45, *others, start=now)
    assert store.call("doomed", "1", fence, others[0], 0) == "yes"  # this time a node ends its part: too late
    assert store.call("doomed", "1", fence, head, 1) == "yes"
    assert store.call("beat", head, "a", f"1 {fence}") == ["ok", f"1 {fence}"] and holds(store) == {"1": "ending"}


def test_nothing_begins_while_the_spool_is_paused(store):
    store.call("register", "aria", about("aria"))
    store.submit([job(2)])
    first = store.job("1")["fence"]
    store.call("pause", "something was lost")
    assert store.call("started", "1", first, "aria") == []
    pass_time(store, 15, "aria")
    assert holds(store) == {"1": "queued"} and "shy" not in store.nodes()[0]
    store.call("resume", "second", 0, 0)
    assert holds(store) == {"1": "placed"} and store.call("started", "1", first, "aria") == []


def test_after_a_loss_nodes_have_to_report_before_it_goes_on(store):
    for name in ("aria", "octavia"):
        store.call("register", name, about(name))
    store.submit([job(2, nodes=["aria"])])
    begin(store, "1")
    restarted(store)
    store.call("pause", "something was lost")
    store.call("register", "octavia", about("octavia"))
    with pytest.raises(Refused, match="aria: not heard of since"):
        store.call("resume", "second", 0, 0)
    assert store.call("drain", "aria", "gone") == "gone"
    assert store.call("resume", "second", 0, 0) == "ok" and holds(store) == {"1": "queued"}


def test_a_restart_with_the_clock_set_back(store):
    store.at(10**6)
    for name in ("aria", "octavia"):
        store.call("register", name, about(name))
    store.submit([job(2, nodes=["aria"]), job(1, nodes=["octavia"], retries=9)])
    begin(store, "1")
    fence = begin(store, "2")
    store.call("finish", "2", fence, "failed", 1, "so")
    store.call("confirm", "2", fence, "octavia")
    assert holds(store) == {"1": "running", "2": "delayed"}
    restarted(store)
    store.at(1000)
    store.call("pass")
    pass_time(store, 300, "octavia")
    seen = holds(store)
    assert seen["1"] == "ending" and seen["2"] in ("placed", "queued") and not store.ask("zcard", f"{PREFIX}delayed")


def test_a_node_that_cannot_begin_jobs_gets_fewer_of_them(store):
    store.call("register", "octavia", about("octavia"))
    store.submit([job(4)])
    fence = begin(store, "1")
    store.call("finish", "1", fence, "refused", 1, "octavia could not begin it: no room")
    store.call("confirm", "1", fence, "octavia")
    assert holds(store) == {"1": "queued"} and "no room" in store.nodes()[0]["trouble"]
    store.call("register", "aria", about("aria"))
    store.submit([job(1, nodes=["octavia"]), job(2)])
    assert holds(store) == {"1": "queued", "2": "queued", "3": "placed"}
    begin(store, "3")
    store.at(1003)
    beat(store, "octavia", "aria")
    assert holds(store) == {"1": "placed", "2": "queued", "3": "running"} and "shy" not in store.nodes()[1]


def test_a_job_for_which_there_will_never_be_room_holds_nothing_up(store):
    store.call("register", "octavia", about("octavia"))
    store.submit([job(2, limit=100)])
    begin(store, "1")
    store.submit([job(50, limit=float(i)) for i in range(1, 20)] + [job(4), job(2), job(2, limit=90)])
    seen = holds(store)
    assert (seen["21"], seen["22"], seen["23"]) == ("queued", "queued", "placed")


def test_an_array_after_an_array(store):
    store.call("register", "octavia", about("octavia"))
    assert each(store, job(count=3), job(count=50, after=["1"], limit=9.0), job(after=["1", "2"])) == ["1", "2", "3"]
    assert store.ask("scard", f"{PREFIX}after:1") == 51 and not store.keys("after:1-*")
    assert store.job("2-7")["left"] == "1" and store.job("3")["left"] == "2"
    for i in range(3):
        assert holds(store)["2-49"] == "waiting"
        store.call("finish", f"1-{i}", begin(store, f"1-{i}"), "done", 0, "")
    assert holds(store)["2-49"] == "queued" and holds(store)["3"] == "waiting"
    store.call("cancel", "2-20")
    assert holds(store)["3"] == "cancelled" and store.job("3")["why"] == "job 2-20 is cancelled"
    assert store.call("requeue", "1-1") == "queued" and store.submit([job(after=["1"])]) == ["4"]
    assert holds(store)["4"] == "waiting"


def test_a_long_chain_of_jobs_is_cancelled_as_one(store):
    store.submit([job()])
    for i in range(1, 3000):
        store.submit([job(after=[str(i)])])
    store.call("cancel", "1")
    assert set(holds(store).values()) == {"cancelled"}


def test_a_forgotten_array_is_no_jobs_and_its_key_is_free(store):
    store.call("register", "octavia", about("octavia"))
    store.submit([job(count=2, key="k")])
    for i in range(2):
        store.call("finish", f"1-{i}", begin(store, f"1-{i}"), "done", 0, "")
        store.at(2000)
    assert store.call("prune", 500) == 1 and store.expanded(["1"]) == ["1-1"]
    with pytest.raises(Refused, match="after 1: some of its jobs are forgotten"):
        store.submit([job(after=["1"])])
    assert store.submit([job(key="k")]) == ["1"]
    store.at(9000)
    assert store.call("prune", 500) == 1 and store.submit([job(key="k")]) == ["2"]
    with pytest.raises(Refused, match="1: there is no such job"):
        store.expanded(["1"])


def test_who_waits_for_a_damaged_job_is_told(store):
    each(store, job(), job(after=["1"]), job(after=["2"]))
    store.ask("hset", f"{PREFIX}job:1", "class", "}")
    store.call("register", "aria", about("aria"))
    assert holds(store) == {"1": "broken", "2": "cancelled", "3": "cancelled"}


@pytest.mark.parametrize(("field", "value"), [("alloc", "rubbish"), ("hosts", None), ("head", None), ("tag", None),
                                              ("class", '{"ranks":1}'), ("fence", "x")])
def test_one_damaged_record_does_not_keep_the_others(store, field, value):
    store.call("register", "octavia", about("octavia"))
    store.submit([job(1), job(1)])
    fences = {id: begin(store, id) for id in ("1", "2")}
    if field == "alloc":
        store.ask("hset", f"{PREFIX}alloc:1", "octavia", value)
    elif value is None:
        store.ask("hdel", f"{PREFIX}job:1", field)
    else:
        store.ask("hset", f"{PREFIX}job:1", field, value)
    words = [f"{id} {fence}" for id, fence in fences.items()]
    assert store.call("beat", "octavia", "a", *words) == ["ok", words[0]]
    assert store.job("1")["state"] == "broken" and store.job("2")["state"] == "running"
    store.call("register", "octavia", about("octavia", agent="c", attempts=words))
    store.call("confirm", "1", "0", "octavia")
    store.call("finish", "2", fences["2"], "done", 0, "")
    assert holds(store) == {"1": "broken", "2": "done"} and store.nodes()[0]["free"] == "4"


def test_what_is_in_the_queue_and_should_not_be_is_taken_out(store):
    """Entries without a record, and of jobs that run: a pass ends, and places neither."""
    store.call("register", "octavia", about("octavia"))
    store.submit([job(1), job(1, nodes=["aria"])])
    fence, need = begin(store, "1"), store.job("1")["class"]
    for id in ("1", "77", "78"):
        store.ask("zadd", f"{PREFIX}ready", {id: 5})
        store.ask("zadd", f"{PREFIX}ready:{need}", {id: 5})
    store.ask("zadd", f"{PREFIX}classes", {need: 5})
    store.ask("zadd", f"{PREFIX}ready:rubbish", {"79": 5})
    store.ask("zadd", f"{PREFIX}classes", {"rubbish": 5})
    assert store.submit([job(1)]) == ["3"]
    seen = holds(store)
    assert (seen["1"], seen["2"], seen["3"]) == ("running", "queued", "placed") and store.job("1")["fence"] == fence
    assert set(store.ask("zrange", f"{PREFIX}ready", 0, -1)) == {"2"}


def test_a_nodes_damaged_record_is_made_anew(store):
    for name in ("octavia", "aria"):
        store.call("register", name, about(name))
    store.ask("delete", f"{PREFIX}node:aria")
    store.ask("set", f"{PREFIX}node:aria", "rubbish")
    store.submit([job(4)])
    assert holds(store) == {"1": "placed"} and beat(store, "octavia", "aria") == [["ok"], ["unknown"]]
    store.call("register", "aria", about("aria"))
    assert store.submit([job(2)]) == ["2"] and holds(store)["2"] == "placed"


@pytest.mark.parametrize("state", ["waiting", "delayed", "placed", "ending"])
def test_a_record_that_is_missing(store, state):
    store.call("register", "octavia", about("octavia"))
    each(store, job(1, retries=3), job(1, after=["1"]))
    if state != "placed":
        fence = begin(store, "1")
        if state == "waiting":
            store.ask("delete", f"{PREFIX}job:2")
        store.call("finish", "1", fence, "done" if state == "waiting" else "failed", 1, "so")
        if state == "delayed":
            store.call("confirm", "1", fence, "octavia")
    if state != "waiting":
        assert holds(store)["1"] == state
        store.ask("delete", f"{PREFIX}job:1")
    pass_time(store, 30, "octavia")
    for word, id, fence, *_ in messages(store, "octavia"):
        if word == "kill":
            store.call("confirm", id, fence, "octavia")
    seen = holds(store)
    assert seen == ({"1": "done", "2": "broken"} if state == "waiting" else {"1": "broken", "2": "cancelled"})
    assert store.nodes()[0]["free"] == "4"


class World(RuleBasedStateMachine):
    """Clients, agents that die and come back, and attempts that live or die: against what must never be."""

    store = None
    jobs = Bundle("jobs")

    @initialize()
    def empty(self):
        store = self.store
        store.ask("flushall")
        store.sha = store.ask("script_load", store.text)
        self.now, self.accepted, self.agents, self.boots = 1000, set(), {}, dict.fromkeys(NODES, 0)
        self.alive, self.finished, self.serial = {}, [], 0  # alive: (id, fence) -> nodes with processes of it
        store.at(self.now)
        store.call("resume", "first", 0, 0)
        for name in NODES:
            self.start_agent(name)

    def start_agent(self, name):
        self.serial += 1
        self.agents[name] = f"agent{self.serial}"
        mine = [f"{id} {fence}" for (id, fence), nodes in self.alive.items() if name in nodes
                and self.store.job(id)["head"] == name]
        self.store.call("register", name, about(name, self.agents[name], f"boot{self.boots[name]}", mine))

    @rule(target=jobs, ranks=st.integers(1, 10), limit=st.sampled_from([0.0, 20.0, 200.0]), priority=st.integers(-1, 1),
          retries=st.integers(0, 1), cap=st.integers(0, 2), tags=st.sampled_from([[], ["compute"], ["aria"]]),
          before=st.integers(0, 3))
    def submit(self, ranks, limit, priority, retries, cap, tags, before):
        after = sorted(self.accepted, key=int)[-1:] if before == 0 else []
        made = job(ranks, limit, priority=priority, retries=retries, cap=cap, tags=tags, after=after)
        id = self.store.submit([made])[0]
        self.accepted.add(id)
        return id

    @rule(name=st.sampled_from(sorted(NODES)))
    def listen(self, name):
        """An agent does what it is told."""
        if name not in self.agents:
            return
        for word, id, fence, *_ in messages(self.store, name):
            if word == "run" and self.store.call("started", id, fence, name):
                assert not [other for other in self.alive if other[0] == id], "two live attempts of one job"
                self.alive[id, fence] = {part.split()[0] for part in self.store.job(id)["hosts"].split(",")}
            elif word == "kill":
                alive = name in self.alive.get((id, fence), ()) and self.store.job(id)["head"] == name
                if self.store.call("doomed", id, fence, name, int(alive)) == "yes":
                    self.killed(id, fence, name)
            elif word == "stop" and (id, fence) in self.alive:
                self.end(id, fence, "failed", 75)

    def killed(self, id, fence, name):
        """Nothing of an attempt is left on a node."""
        nodes = self.alive.get((id, fence), set())
        nodes.discard(name)
        if not nodes:
            self.alive.pop((id, fence), None)
        self.store.call("confirm", id, fence, name)

    def end(self, id, fence, result, code):
        head = self.store.job(id)["head"]
        if head not in self.agents:
            return
        if self.store.call("finish", id, fence, result, code, "so") == "ok":
            assert (id, fence) not in self.finished
            self.finished.append((id, fence))
        if result == "done":
            self.alive.pop((id, fence), None)
        elif (id, fence) in self.alive:
            self.killed(id, fence, head)

    @rule(
        pick=st.integers(0, 5),
        how=st.sampled_from([("done", 0), ("failed", 1), ("failed", 2), ("lost", 75), ("lost", 255)]),
    )
    def finish(self, pick, how):
        if self.alive:
            self.end(*sorted(self.alive)[pick % len(self.alive)], *how)

    @rule(id=jobs)
    def cancel(self, id):
        self.store.call("cancel", id)

    @rule(id=jobs)
    def requeue(self, id):
        self.store.call("requeue", id)

    @rule(seconds=st.integers(1, 40), awake=st.sets(st.sampled_from(sorted(NODES))))
    def time_passes(self, seconds, awake):
        for _ in range(0, seconds, 5):
            self.now += 5
            self.store.at(self.now)
            for name in sorted(awake & set(self.agents)):
                mine = [f"{id} {fence}" for (id, fence), nodes in self.alive.items()
                        if name in nodes and self.store.job(id).get("head") == name]
                said = self.store.call("beat", name, self.agents[name], *mine)
                assert said[0] == "ok"
                for word in said[1:]:
                    self.killed(*word.split(), name)

    @rule(name=st.sampled_from(sorted(NODES)))
    def agent_dies(self, name):
        self.agents.pop(name, None)

    @rule(name=st.sampled_from(sorted(NODES)))
    def agent_starts(self, name):
        self.start_agent(name)

    @rule(name=st.sampled_from(sorted(NODES)))
    def power_is_cut_and_comes_back(self, name):
        self.boots[name] += 1
        for pair in list(self.alive):
            self.alive[pair].discard(name)
            if not self.alive[pair]:
                del self.alive[pair]
        self.start_agent(name)

    @rule(jump=st.sampled_from([-10**5, 10**5]))
    def clock_jumps(self, jump):
        self.now += jump
        self.store.at(self.now)

    @rule(name=st.sampled_from(sorted(NODES)), how=st.sampled_from(["open", "drained"]))
    def drain(self, name, how):
        self.store.call("drain", name, how)

    @invariant()
    def always(self):
        if not hasattr(self, "accepted"):
            return
        seen = holds(self.store)
        assert set(seen) == self.accepted, "a job is missing"
        ids = [id for id, _ in self.alive]
        assert len(ids) == len(set(ids)), "two live attempts of one job"
        for id, _ in self.alive:
            assert seen[id] in ("running", "ending"), f"{id} is {seen[id]} and lives"
        assert self.store.call("reconcile") == []

    def teardown(self):
        """Left in peace, everything comes to an end."""
        if not hasattr(self, "accepted"):
            return
        for name in NODES:
            self.store.call("drain", name, "open")
            self.start_agent(name)
        for _ in range(400):
            if all(self.store.job(id)["state"] not in OPEN for id in self.accepted):
                break
            self.time_passes(5, set(NODES))
            for name in NODES:
                self.listen(name)
            for pair in sorted(self.alive):
                self.end(*pair, "done", 0)
            impossible = [id for id in self.accepted if json.loads(self.store.job(id)["class"])["ranks"] > 9
                          or json.loads(self.store.job(id)["class"])["tags"]]
            for id in impossible:
                self.store.call("cancel", id)
            self.always()
        else:
            raise AssertionError([self.store.job(id) for id in self.accepted if self.store.job(id)["state"] in OPEN])


def test_a_world_of_failures(store):
    World.store = store
    run_state_machine_as_test(World, settings=settings(
        max_examples=int(os.environ.get("BRMPI_EXAMPLES", 25)), stateful_step_count=40, deadline=None,
        suppress_health_check=list(HealthCheck), derandomize=False, print_blob=True,
        phases=[phase for phase in Phase if phase is not Phase.shrink or "BRMPI_SHRINK" in os.environ]))

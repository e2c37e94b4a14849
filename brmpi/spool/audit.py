"""What holds in every state of the spool, whatever failed: found out from Redis itself."""

import json

from brmpi.spool.store import PREFIX, STATES


def problems(store):
    """What should hold and does not.

    Parameters
    ----------
    store : Store

    Returns
    -------
    list of str, sentences: empty where all is well
    """
    said, seen = [], {}
    ids = {key.removeprefix(f"{PREFIX}job:") for key in store.keys("job:*")}
    for state in STATES:
        for id in store.ask("zrange", f"{PREFIX}state:{state}", 0, -1):
            if id in seen:
                said.append(f"job {id} is {state} and {seen[id]}")
            seen[id] = state
    said += [f"job {id} is in no state" for id in sorted(ids - set(seen))]
    said += [f"job {id} has no record" for id in sorted(set(seen) - ids)]
    ready, leases = (set(store.ask("zrange", f"{PREFIX}{name}", 0, -1)) for name in ("ready", "leases"))
    classes = store.ask("zrange", f"{PREFIX}classes", 0, -1)
    queued = {id for id, state in seen.items() if state == "queued"}
    known = {id for name in classes for id in store.ask("zrange", f"{PREFIX}ready:{name}", 0, -1)}
    said += [f"job {id} is queued and in no queue, or the other way round" for id in sorted((ready | known) ^ queued)]
    taken = {}
    for id in sorted(ids & set(seen)):
        state, held = seen[id], store.ask("hgetall", f"{PREFIX}alloc:{id}")
        told = store.ask("hget", f"{PREFIX}job:{id}", "state")
        if told != state:
            said.append(f"job {id} is {state}, and says {told}")
        if bool(held) != (state in ("placed", "running", "ending")) and state != "broken":
            said.append(f"job {id} is {state} and has {json.dumps(held)}")
        if (id in leases) != (state in ("placed", "running")):
            said.append(f"job {id} is {state} and has {'a' if id in leases else 'no'} lease")
        for name, value in held.items():
            slots, memory = map(int, value.split())
            before = taken.get(name, (0, 0))
            taken[name] = (before[0] + slots, before[1] + memory)
    for node in store.nodes():
        if "slots" not in node:  # an agent's attempt was taken over, and the agent has not reported yet
            continue
        for what, left, place in (("slots", "free", 0), ("memory", "room", 1)):
            used = taken.get(node["name"], (0, 0))[place]
            if int(node[left]) != int(node[what]) - used:
                said.append(f"{node['name']}: {node[left]} of {node[what]} {what} are free, and {used} taken")
            if int(node[left]) < 0:
                said.append(f"{node['name']}: {-int(node[left])} more {what} are taken than there are")
    return said

"""Sums of gradients beside C and gloo, training beside PyTorch's DDP, a server, and five unequal hosts of a lab."""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from brmpi import speeds
from brmpi.bench import report
from brmpi.bench.lab import ALONE, INVENTORY, ask
from brmpi.cluster.lab import Lab
from brmpi.errors import Fault

PARTS = ("sums", "steps", "serve", "lab")
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
PEER = [sys.executable, "-m", "brmpi.bench.trainpeer"]
MPIRUN = ["mpirun", "--bind-to", "core", "-np", "2"]
TRAINING = (("mlp plain numpy", ("mlp", "plain")), ("mlp fixed numpy", ("mlp", "fixed")),
            ("mlp adapter torch", ("adapter",)))
START = "shellfish"  # where jobs in the lab are started
SCENES = (("weighted auto", "speed", "auto"), ("weighted plain", "speed", "plain"),
          ("weighted fixed", "speed", "fixed"), ("equal plain", "equal", "plain"))
BARS = {("allreduce float32", "c"): (0.9, 10**6), ("mlp plain numpy", "ddp"): (1.0, 0),
        ("mlp adapter torch", "ddp"): (1.0, 0),
        ("serve mlp json", "limit"): (1.0, 0), ("serve latency p99", "limit"): (1.0, 0),
        ("conv weighted auto", "summed"): (0.85, 0)}


def said(command, **more):
    """Standard output of a command.

    Parameters
    ----------
    command : list of str
    **more : variables of its environment

    Returns
    -------
    str

    Raises
    ------
    Fault : it failed
    """
    done = subprocess.run(list(map(str, command)), env={**os.environ, **more}, capture_output=True, text=True,
                          timeout=600, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Fault(f"{' '.join(map(str, command))} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def under_gloo(*words):
    """What two processes of PyTorch's own print, the first one's.

    Parameters
    ----------
    *words : of ``trainpeer``

    Returns
    -------
    str

    Raises
    ------
    Fault : one failed
    """
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
           "GLOO_SOCKET_IFNAME": "lo"}
    made = [subprocess.Popen([*PEER, *map(str, words)], env={**env, "RANK": str(rank)}, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for rank in range(2)]
    try:
        found = [process.communicate(timeout=600) for process in made]
    finally:
        for process in made:
            process.kill()
    if any(process.returncode for process in made):
        raise Fault(f"{' '.join(map(str, words))} failed:\n{found[0][1][-3000:]}")
    return found[0][0]


def times(text):
    """Seconds by size.

    Parameters
    ----------
    text : str, of lines "size seconds"

    Returns
    -------
    dict of int to float
    """
    return {int(size): float(seconds) for size, seconds in map(str.split, text.strip().splitlines())}


def sums(repeats):
    """``GradientAllreduce`` beside ``MPI_Allreduce`` in C and gloo, on two ranks, in turns.

    Parameters
    ----------
    repeats : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    ours, c, theirs = [], [], []
    for _ in range(repeats):
        ours.append(times(said([*MPIRUN, *PEER, "allreduce", *SIZES])))
        c.append(times(said([*MPIRUN, "bench/c/build/allreduce", *SIZES])))
        theirs.append(times(under_gloo("gloo", *SIZES)) if has_torch() else None)
    rows = []
    for against, found in (("c", c), ("gloo", theirs)):
        if None not in found:
            rows += [report.row("allreduce float32", size, 2, [4 * size / one[size] for one in ours], "bytes/s",
                                against, [4 * size / one[size] for one in found]) for size in SIZES]
    return rows


def has_torch():
    """Whether PyTorch is installed: where it is not, its rows are left out.

    Returns
    -------
    bool
    """
    return importlib.util.find_spec("torch") is not None


def steps(repeats):
    """Samples per second of a perceptron 64-512-512-10 on two ranks beside PyTorch's wrapper, in turns.

    Parameters
    ----------
    repeats : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    if not has_torch():
        print("bench-train: PyTorch is not installed (pip install brmpi[torch]): its rows are left out",
              file=sys.stderr)
        return []
    found, peer = {what: [] for what, _ in TRAINING}, []
    for _ in range(repeats):
        peer.append(float(under_gloo("ddp")))
        for what, words in TRAINING:
            found[what].append(float(said([*MPIRUN, *PEER, *words])))
    return [report.row(what, "64-512-512-10", 2, values, "samples/s", "ddp", peer) for what, values in found.items()]


def serve(repeats, seconds=10):
    """Requests per second of the server of a digits perceptron, and their 99th percentile, by wrk over 32 connections.

    Parameters
    ----------
    repeats : int
    seconds : int, of each measurement

    Returns
    -------
    list of dict, from ``report.row``: latencies as their inverse, against 50 ms
    """
    if not shutil.which("wrk"):
        print("bench-train: wrk is not installed (apt-get install wrk): the server is left out", file=sys.stderr)
        return []
    rates, latencies = [], []
    with tempfile.TemporaryDirectory() as folder:
        run, script = f"{folder}/run", f"{folder}/digit.lua"
        said([sys.executable, "-m", "brmpi.train.mlp", "--epochs", "5", "--out", run, "--quiet"])
        pixels = ",".join(str(i % 17) for i in range(64))
        Path(script).write_text(f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
                                f"wrk.body = '{{\"inputs\": [{pixels}]}}'\n", encoding="utf-8")
        server = subprocess.Popen(["mpirun", "--bind-to", "none", "-np", "2", sys.executable, "-m", "brmpi.train.serve",
                                   run, "--port", "0"], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        try:
            address = re.search(r"http://\S+/predict", server.stdout.readline()).group(0)
            for _ in range(repeats):
                told = said(["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", "-s", script, address])
                if "Non-2xx" in told:
                    raise Fault(f"the server refused requests:\n{told}")
                rates.append(float(re.search(r"Requests/sec:\s+(\S+)", told).group(1)))
                number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", told).groups()
                latencies.append(float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit])
        finally:
            server.send_signal(signal.SIGUSR2)
            server.wait(30)
    count = len(rates)
    return [report.row("serve mlp json", "32 connections", 2, rates, "requests/s", "limit", [1000.0] * count),
            report.row("serve latency p99", "32 connections", 2, [1 / one for one in latencies], "1/s", "limit",
                       [20.0] * count)]


def lab(repeats, epochs):
    """A convolutional net on five throttled hosts beside octavia alone and beside the sum of all.

    Parameters
    ----------
    repeats, epochs : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    with Lab(INVENTORY, "bench") as made:
        ask(made, START, "brmpi", "probe")
        ask(made, START, "brmpi", "hostfiles")

        def _rate(*on, epochs=epochs, **keys):
            told = {"batch": 512, "epochs": epochs, "sample": 10**6, "test": 0.0, **keys}
            words = [word for key, value in told.items()
                     for word in ("--set", f"{key}={value}")]
            told = ask(made, START, "brmpi", "run", *on, "brmpi.train.conv", "--out", "/shared/bench", "--overwrite",
                       *words)
            methods.append(re.search(r"communication: (\w+)", told))
            return float(re.search(r"steps in .* ranks?, (\S+) samples/s", told).group(1))

        nodes, methods = list(speeds.records(made.state / "hostfiles")), []
        found = {name: [] for name, *_ in SCENES} | {"one": [], "summed": []}
        for _ in range(repeats):
            alone = {node: _rate("--on", node, epochs=max(1, epochs // 8), comm="plain") for node in nodes}
            found["one"].append(alone[ALONE])
            found["summed"].append(sum(alone.values()))
            for name, shares, comm in SCENES:
                found[name].append(_rate(shares=shares, comm=comm))
                chosen = methods[-1].group(1) if methods[-1] else ""
                print(f"{name} ({chosen}): {found[name][-1]:.4g} samples/s; alone: "
                      + ", ".join(f"{node} {one:.4g}" for node, one in alone.items()), flush=True)
    count = len(nodes)
    return [report.row(f"conv {name}", "batch 512", count, found[name], "samples/s", against, found[against])
            for name, *_ in SCENES for against in ("one", "summed")]


def wrong(rows):
    """What is slower than training has to be.

    Parameters
    ----------
    rows : list of dict, from ``report.row``

    Returns
    -------
    list of str, a sentence each
    """
    found = []
    for row in rows:
        bar, least = BARS.get((row["what"], row["against"]), (0, 0))
        if row["ratio"] < bar and (not least or row["size"] >= least):
            found.append(f"{row['what']} {row['size']} reaches {row['ratio']:.2f} of {row['against']}: "
                         f"must be >= {bar}")
    return found


def _part(row):
    """The part of the benchmark that a row is of."""
    return {"allreduce": "sums", "mlp": "steps", "serve": "serve", "conv": "lab"}[row["what"].partition(" ")[0]]


def main(argv=None):
    """Measure and publish; returns 1 where something is slower than it has to be.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement, interleaved; of the lab's, 3")
    parser.add_argument("--epochs", type=int, default=40, help="of a run in the lab")
    parser.add_argument("--only", choices=PARTS, help="one part; what is published of the others stays")
    options = parser.parse_args(argv)
    parts = {"sums": lambda: sums(options.repeats), "steps": lambda: steps(options.repeats),
             "serve": lambda: serve(options.repeats), "lab": lambda: lab(min(options.repeats, 3), options.epochs)}
    kept = report.last("train").get("rows", []) if options.only else []
    rows = []
    for part, measure in parts.items():
        rows += measure() if options.only in (None, part) else [row for row in kept if _part(row) == part]
    report.publish("train", rows)
    told = wrong(rows)
    for line in told:
        print(f"bench-train: {line}", file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())

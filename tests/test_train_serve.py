"""A server of predictions: answers, refusals, full queues, tokens, ranks that hang or die, how it ends."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import environment, mpirun_command

from brmpi.errors import BadInput
from brmpi.train import model, nets, serve

SHAPE = (4, 3)


@pytest.fixture
def net(tmp_path):
    made = nets.mlp(SHAPE, 3, [8])
    w = np.random.default_rng(3).standard_normal(made.size).astype(np.float32)
    found = model.Model("mlp", SHAPE, ["ant", "cat", "dog"], {"hidden": [8]}, w, np.zeros(SHAPE), np.ones(SHAPE))
    (tmp_path / "run").mkdir()
    found.save(tmp_path / "run/model.h5")
    return found


class Server:
    """A server under test, and requests to it."""

    def __init__(self, folder, ranks, *words, **variables):
        command = [sys.executable, "-m", "brmpi.train.serve", "run", "--port", "0", *map(str, words)]
        command = mpirun_command(ranks, *command) if ranks else command
        self.process = subprocess.Popen(command, cwd=folder, env=environment(**variables), text=True,
                                        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/predict, (\d+) rank", line)
        assert found, line + self.process.stderr.read()
        self.port, self.workers = map(int, found.groups())

    def ask(self, path, body=None, method=None, timeout=30, **headers):
        """(status, headers, body) of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            if isinstance(body, dict):
                body, headers = json.dumps(body), {"content-type": "application/json"} | headers
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def predict(self, inputs, **more):
        status, _, body = self.ask("/predict", {"inputs": np.asarray(inputs).tolist()}, **more)
        assert status == 200, body
        return json.loads(body)

    def ranks(self):
        """Process numbers of the ranks, in the order of ranks."""
        found = []
        for entry in [folder.name for folder in Path("/proc").iterdir() if folder.name.isdigit()]:
            with contextlib.suppress(OSError, ValueError):
                told = Path(f"/proc/{entry}/environ").read_text().split("\0")
                session = os.getsid(int(entry))
                number = [line for line in told if line.startswith("OMPI_COMM_WORLD_RANK=")]
                if number and session == os.getsid(self.process.pid):
                    found.append((int(number[0].partition("=")[2]), int(entry)))
        return [pid for _, pid in sorted(found)]

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@pytest.fixture
def server(tmp_path, net):
    made = []

    def _made(ranks, *words, **variables):
        made.append(Server(tmp_path, ranks, *words, **variables))
        return made[-1]

    yield _made
    for one in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGCONT)
        one.end()


@pytest.mark.parametrize("ranks", [0, 1, 2, 3])
def test_answers_are_the_networks(server, net, ranks):
    made = server(ranks)
    x = np.random.default_rng(1).standard_normal((150, *SHAPE))
    wanted = net.probabilities(x)
    for inputs, rows in ((x[0], [0]), (x[:1], [0]), (x[3].ravel(), [3]), (x[:7].reshape(7, -1), range(7)),
                         (x, range(150))):
        told = made.predict(inputs)
        assert told["classes"] == net.classes
        assert np.allclose(told["probabilities"], wanted[rows], atol=1e-6)
        assert told["answers"] == [net.classes[i] for i in wanted[rows].argmax(axis=1)]
    memory = io.BytesIO()
    np.save(memory, x[:9])
    status, headers, body = made.ask("/predict", memory.getvalue(), content_type="application/x-npy",
                                     accept="application/x-npy")
    assert status == 200 and headers["content-type"] == "application/x-npy"
    assert np.array_equal(np.load(io.BytesIO(body)), wanted[:9])
    assert made.workers == max(1, ranks - 1)


def test_many_at_once_share_batches_and_ranks(server, net):
    made = server(3, "--wait", "5", "--batch", "8")
    x = np.random.default_rng(2).standard_normal((24, *SHAPE))
    wanted, wrong = net.probabilities(x), []

    def _ask(i):
        for _ in range(10):
            told = made.predict(x[i])
            if not np.allclose(told["probabilities"], wanted[i:i + 1], atol=1e-6):
                wrong.append(i)

    threads = [threading.Thread(target=_ask, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    text = made.ask("/metrics")[2].decode()
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(told['brmpi_requests_total{code="200"}']) == 240 == float(told["brmpi_request_seconds_count"])
    assert float(told["brmpi_batches_total"]) < 200  # several requests a batch
    assert sum(float(told[f'brmpi_samples_total{{rank="{rank}"}}']) for rank in (1, 2)) == 240
    assert min(float(told[f'brmpi_samples_total{{rank="{rank}"}}']) for rank in (1, 2)) > 0
    assert float(told['brmpi_request_seconds_bucket{le="+Inf"}']) == 240


def _npy(head):
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


BAD = [
    *[(_npy(head), {"content_type": "application/x-npy"}, 400, "no npy file") for head in (
        b"(", b"{[]:1}", b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}")],
    (b"PK\x03\x04garbage", {"content_type": "application/x-npy"}, 400, "no npy file"),
    (json.dumps({"inputs": [1e300] * 12}).encode(), {"accept": "application/x-npy"}, 422, "so large"),
    (b"{", {}, 400, "not JSON"), (b"[1, 2]", {}, 422, '"inputs"'), (b'{"input": 1}', {}, 422, '"inputs"'),
    (b'{"inputs": [1, 2]}', {}, 422, "4 x 3"), (b'{"inputs": [[1, 2], [3]]}', {}, 422, "not all of one shape"),
    (b'{"inputs": ["a"]}', {}, 422, "not numbers"), (b'{"inputs": null}', {}, 422, "must be"),
    (b'{"inputs": []}', {}, 422, "must be"), (json.dumps({"inputs": [1e999] * 12}).encode(), {}, 422, "not finite"),
    (b"x", {"content_type": "text/plain"}, 415, "application/json"),
    (b"x", {"content_type": "application/x-npy"}, 400, "npy"),
    (b"0" * 3000, {}, 413, "2000 bytes"), (b"[" * 1500, {}, 400, "not JSON"), (b"\xff\xfe", {}, 400, "not JSON"),
]


def test_bad_requests_are_told_what_was_expected(server):
    made = server(2, "--body", "0.002")
    for body, headers, code, words in BAD:
        status, _, answer = made.ask("/predict", body, **({"content_type": "application/json"} | headers))
        assert status == code and words in json.loads(answer)["error"], (body[:30], status, answer)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object))
    assert made.ask("/predict", pickled.getvalue(), content_type="application/x-npy")[0] == 400
    assert made.ask("/predict")[0] == 405 and made.ask("/nothing")[0] == 404
    with socket.create_connection(("127.0.0.1", made.port), 10) as raw:  # a body without a length, which goes on
        raw.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
                    b"content-type: application/json\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(50):
                raw.sendall(b"80\r\n" + b"1" * 128 + b"\r\n")
        assert b" 413 " in raw.recv(100)
    assert made.predict(np.zeros(SHAPE))["answers"]  # it goes on


def test_a_full_queue_says_when_to_come_again(server):
    made = server(2, "--queue", "5")
    status, _, body = made.ask("/predict", {"inputs": np.zeros((6, *SHAPE)).tolist()})
    assert status == 413 and b"a request may have 5" in body  # which never fits
    assert len(made.predict(np.zeros((5, *SHAPE)))["answers"]) == 5
    worker = made.ranks()[1]
    os.kill(worker, signal.SIGSTOP)  # it holds two requests, one waits, and no second one may
    found = [threading.Thread(target=made.ask, args=("/predict", {"inputs": np.zeros((3, *SHAPE)).tolist()}))
             for _ in range(4)]
    for thread in found:
        thread.start()
        time.sleep(0.1)
    status, headers, body = made.ask("/predict", {"inputs": np.zeros((3, *SHAPE)).tolist()})
    os.kill(worker, signal.SIGCONT)
    assert status == 503 and headers["retry-after"] == "1" and b"5 may" in body
    for thread in found:
        thread.join(30)


def test_where_no_rank_is_left_those_who_wait_are_told_too(server):
    made = server(2, "--patience", "1", "--batch", "1")
    made.predict(np.zeros(SHAPE))
    worker = made.ranks()[1]
    os.kill(worker, signal.SIGSTOP)
    found, threads = [], []
    for _ in range(6):
        threads.append(threading.Thread(target=lambda: found.append(
            made.ask("/predict", {"inputs": np.zeros(SHAPE).tolist()}))))
        threads[-1].start()
    for thread in threads:
        thread.join(20)
    assert [status for status, *_ in found] == [503] * 6 and any(b"no rank is left" in body for _, _, body in found)
    assert made.ask("/healthz")[0] == 503
    os.kill(worker, signal.SIGCONT)
    end = time.monotonic() + 10
    while made.ask("/healthz")[0] != 200:  # it answers what it was given, and is taken back
        assert time.monotonic() < end
        time.sleep(0.05)
    made.predict(np.zeros(SHAPE))


def test_description_and_health(server):
    made = server(3)
    told = json.loads(made.ask("/healthz")[2])
    assert told["status"] == "ok" and told["ranks"] == 2 and told["run"] == "run"
    described = json.loads(made.ask("/openapi.json")[2])
    assert described["openapi"].startswith("3.") and "post" in described["paths"]["/predict"]
    assert {"200", "400", "401", "413", "415", "422", "503"} == set(described["paths"]["/predict"]["post"]["responses"])
    assert b"POST /predict" in made.ask("/")[2]


def test_a_token_of_the_environment_may_end_a_line(server):
    made = server(0, BRMPI_TOKEN="sesame\n")
    body = {"inputs": np.zeros(SHAPE).tolist()}
    assert made.ask("/predict", body)[0] == 401
    assert made.ask("/predict", body, authorization="Bearer sesame")[0] == 200


def test_a_token_is_asked_for(server, tmp_path):
    (tmp_path / "secret").write_text("sesame\n")
    made = server(0, "--token-file", "secret")
    body = {"inputs": np.zeros(SHAPE).tolist()}
    for given in ({}, {"authorization": "Bearer other"}, {"authorization": "Basic sesame"}):
        status, headers, _ = made.ask("/predict", body, **given)
        assert status == 401 and headers["www-authenticate"] == "Bearer"
    assert made.ask("/predict", body, authorization="Bearer sesame")[0] == 200
    assert made.ask("/metrics")[0] == 401 and made.ask("/healthz")[0] == 200


def test_a_rank_that_hangs_is_given_up_and_taken_back(server):
    made = server(3, "--patience", "1", "--wait", "0")
    for _ in range(20):
        made.predict(np.zeros(SHAPE))
    stopped = made.ranks()[1]
    os.kill(stopped, signal.SIGSTOP)
    found, threads = [], []
    for _ in range(8):
        threads.append(threading.Thread(target=lambda: found.append(
            made.ask("/predict", {"inputs": np.zeros((40, *SHAPE)).tolist()}))))
        threads[-1].start()
    for thread in threads:
        thread.join(30)
    codes = [status for status, *_ in found]
    assert set(codes) == {200, 503} and len(codes) == 8
    lost = next(answer for answer in found if answer[0] == 503)
    assert b"rank 1 has not answered for 1 s" in lost[2] and lost[1]["retry-after"]
    assert json.loads(made.ask("/healthz")[2])["lost"] == {"1": "rank 1 has not answered for 1 s"}
    for _ in range(20):
        made.predict(np.zeros(SHAPE))  # the other one goes on
    os.kill(stopped, signal.SIGCONT)
    end = time.monotonic() + 10
    while json.loads(made.ask("/healthz")[2])["lost"]:
        assert time.monotonic() < end
        made.predict(np.zeros(SHAPE))
        time.sleep(0.05)


def test_requests_of_a_rank_that_dies_are_told_so(server):
    made = server(2, "--patience", "60")
    made.predict(np.zeros(SHAPE))
    worker = made.ranks()[1]
    os.kill(worker, signal.SIGSTOP)
    found = []
    thread = threading.Thread(target=lambda: found.append(made.ask("/predict", {"inputs": np.zeros(SHAPE).tolist()})))
    thread.start()
    time.sleep(0.5)
    os.kill(worker, signal.SIGKILL)
    thread.join(30)
    assert found and found[0][0] == 503 and b"was lost" in found[0][2], found
    assert made.process.wait(20) != 0


def test_a_busy_rank_may_end_after_its_root(server):
    made = server(2, "--batch", "2000", "--body", "10")
    x = np.zeros((2000, *SHAPE)).tolist()
    made.predict(x)
    root, worker = made.ranks()
    os.kill(worker, signal.SIGSTOP)
    thread = threading.Thread(target=lambda: made.ask("/predict", {"inputs": x}))
    thread.start()
    time.sleep(0.5)
    os.kill(root, signal.SIGTERM)  # the root alone: mpirun would kill both
    time.sleep(1.5)
    os.kill(worker, signal.SIGCONT)
    thread.join(20)
    assert made.process.wait(20) == 0


@pytest.mark.parametrize("ranks", [0, 2])
def test_it_ends_in_good_order(server, ranks):
    made = server(ranks)
    made.predict(np.zeros(SHAPE))
    if ranks:
        os.kill(made.process.pid, signal.SIGUSR2)  # which mpirun passes on
    else:
        os.kill(made.process.pid, signal.SIGINT)
    assert made.process.wait(20) == 0, made.process.stderr.read()


@pytest.mark.parametrize(("words", "sentence"), [
    (["run", "--host", "0.0.0.0"], "others can reach that: set a token"),
    (["run", "--port", "70000"], "from 0 to 65535"),
    (["run", "--batch", "0"], "--batch 0: must be from 1"), (["nothing"], "nothing: holds no model.h5"),
    (["run", "--token-file", "none"], "cannot be read"), (["run", "--host", "300.1.1.1"], "token")])
def test_what_is_refused_before_it_starts(tmp_path, monkeypatch, net, words, sentence):
    from mpi4py import MPI

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(serve.TOKEN, raising=False)
    with pytest.raises(BadInput, match=sentence):
        serve.run(MPI.COMM_SELF, words)


def test_a_token_that_http_does_not_carry(tmp_path, monkeypatch, net):
    from mpi4py import MPI

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(serve.TOKEN, "S\u00e9same")
    with pytest.raises(BadInput, match="not ASCII"):
        serve.run(MPI.COMM_SELF, ["run"])


def test_a_port_that_is_taken(tmp_path, monkeypatch, net):
    from mpi4py import MPI

    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="cannot listen there"):
            serve.run(MPI.COMM_SELF, ["run", "--port", str(taken.getsockname()[1])])

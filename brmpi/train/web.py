"""What a server of predictions says over HTTP (Starlette), and how requests become batches."""

import asyncio
import contextlib
import hmac
import io
import json
import signal
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from brmpi import __version__

NPY = ("application/x-npy", "application/octet-stream")
JSON = "application/json"
LOOK = 1e-3  # seconds between looks at answers
BACK = 0.1  # and of those that were given up, while there is nothing else to do
DEEP = 2  # batches that a rank may have: one that it works on, and the next
GRACE = 0.5  # seconds that held requests have when the job ends: mpirun kills a second after it asks
RETRY = 1  # seconds, for Retry-After
GONE = 499  # the code of requests whose clients went before all was said
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)  # seconds


class Lost(Exception):
    """The rank that had a request is gone, or the server ends."""


class Batcher:
    """Requests of the same moment as one batch, to the rank that will be done first.

    Parameters
    ----------
    crew : workers.Crew
    batch : int, most samples of a batch
    wait : float, how long a request may wait for others [s]
    room : int, samples that may wait
    """

    def __init__(self, crew, batch, wait, room):
        self.crew, self.batch, self.wait, self.room = crew, batch, wait, room
        self.queue, self.queued, self.held = deque(), 0, {}
        self.wake, self.batches, self.closing = asyncio.Event(), 0, ""

    async def answer(self, inputs):
        """Probabilities of some samples.

        Parameters
        ----------
        inputs : (n, …) array

        Returns
        -------
        (n, classes) array

        Raises
        ------
        HTTPException : 503, where too many wait already, or nobody is left to classify
        Lost : the rank that had them is gone
        """
        if self.closing:
            raise Lost(self.closing)
        if not self.crew.left():
            raise Lost(self._nobody())
        if len(inputs) > self.room:
            raise HTTPException(413, f"{len(inputs)} samples: a request may have {self.room}, as many as may wait")
        if self.queued + len(inputs) > self.room:
            raise HTTPException(503, f"{self.queued} samples wait already, {self.room} may: try again",
                                {"retry-after": str(RETRY)})
        loop, parts = asyncio.get_running_loop(), []
        for i in range(0, len(inputs), self.batch):
            part = inputs[i:i + self.batch]
            parts.append(loop.create_future())
            self.queue.append((time.monotonic(), part, parts[-1]))
            self.queued += len(part)
        self.wake.set()
        return np.concatenate(await asyncio.gather(*parts))

    async def run(self):
        """Send and fetch, until it is cancelled."""
        while True:
            if not self.queue and not self.held:
                self.wake.clear()
                with contextlib.suppress(asyncio.TimeoutError):  # a rank that was given up may come back
                    await asyncio.wait_for(self.wake.wait(), BACK if self.crew.lost else None)
            pause = self._send()
            self._fetch()
            await asyncio.sleep(pause)

    def _send(self):
        """Send what is due; returns for how long there is nothing to do."""
        while self.queue:
            rank = self.crew.first_free(DEEP)
            if rank is None:
                return LOOK
            left = self.queue[0][0] + self.wait - time.monotonic()
            idle = not self.crew.waiting[rank]
            if left > 0 and self.queued < self.batch and not (idle and self.wait == 0):
                return min(left, LOOK) if self.held else left
            taken, count = [], 0
            while self.queue and (not taken or count + len(self.queue[0][1]) <= self.batch):
                taken.append(self.queue.popleft())
                count += len(taken[-1][1])
            self.queued -= count
            taken = [one for one in taken if not one[2].done()]  # whose clients have not gone
            if not taken:
                continue
            inputs = np.concatenate([part for _, part, _ in taken])
            number = self.crew.send(rank, inputs)
            self.held[number], self.batches = taken, self.batches + 1
            if not rank:
                self._settle(number, self.crew.own(number, inputs))
        return LOOK if self.held else 0

    def _fetch(self):
        for number, found in self.crew.answers():
            self._settle(number, found)
        for number, why in self.crew.given_up():
            self._fail(number, why)
        if not self.crew.left():
            self._refuse(self._nobody())

    def _settle(self, number, found):
        """Hand a batch's answers to its requests."""
        end = 0
        for _, part, future in self.held.pop(number, ()):
            if not future.done():
                future.set_result(found[end:end + len(part)])
            end += len(part)

    def _fail(self, number, why):
        for _, _, future in self.held.pop(number, ()):
            if not future.done():
                future.set_exception(Lost(why))

    def _nobody(self):
        return "no rank is left: " + "; ".join(self.crew.lost.values())

    def _refuse(self, why):
        """Tell those who wait that nobody will have them."""
        for _, _, future in self.queue:
            if not future.done():
                future.set_exception(Lost(why))
        self.queue.clear()
        self.queued = 0

    async def close(self, why):
        """Give what is held a moment, and tell the rest why.

        Parameters
        ----------
        why : str
        """
        self.closing = why
        end = time.monotonic() + GRACE
        while (self.held or self.queue) and time.monotonic() < end:
            await asyncio.sleep(LOOK)
        for number in list(self.held):
            self._fail(number, why)
        self._refuse(why)


class Door:
    """What is known of the network and of the requests so far, and the answers to them.

    Parameters
    ----------
    batcher : Batcher
    net : model.Model
    name : str, of the run
    token : str, that requests have to bring; empty for none
    largest : int, bytes of a body
    """

    def __init__(self, batcher, net, name, token, largest):
        self.batcher, self.net, self.name, self.token, self.largest = batcher, net, name, token, largest
        self.codes, self.times, self.total, self.counts = {}, [0] * (len(BUCKETS) + 1), 0.0, 0

    def app(self):
        """The application.

        Returns
        -------
        starlette.applications.Starlette
        """
        routes = [Route("/predict", self.predict, methods=["POST"]), Route("/healthz", self.health),
                  Route("/metrics", self.metrics), Route("/openapi.json", self.openapi), Route("/", self.home)]
        return Starlette(routes=routes, exception_handlers={HTTPException: _told, Lost: _lost, Exception: _told})

    def _allow(self, request):
        """Refuse who does not bring the token."""
        if not self.token:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise HTTPException(401, "a token is needed: Authorization: Bearer …", {"www-authenticate": "Bearer"})

    async def predict(self, request):
        """Classify samples.

        Parameters
        ----------
        request : starlette.requests.Request
        """
        begin, code = time.perf_counter(), 500
        try:
            self._allow(request)
            kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
            if kind not in (JSON, *NPY):
                raise HTTPException(415, f"content-type {kind!r}: must be {JSON} or {NPY[0]}")
            body = await self._body(request)
            inputs = self._json(body) if kind == JSON else self._npy(body)
            found = await self.batcher.answer(inputs)
            response, code = self._response(request, found), 200
        except HTTPException as error:
            code = error.status_code
            raise
        except Lost:
            code = 503
            raise
        except ClientDisconnect:
            code = GONE
            return Response(status_code=GONE)  # which nobody reads
        finally:
            self._note(code, time.perf_counter() - begin)
        return response

    def _response(self, request, found):
        if not np.isfinite(found).all():
            raise HTTPException(422, "inputs are so large that nothing can be said of them")
        if NPY[0] in request.headers.get("accept", ""):
            memory = io.BytesIO()
            np.save(memory, found.astype(np.float32))
            return Response(memory.getvalue(), media_type=NPY[0])
        answers = [self.net.classes[i] for i in found.argmax(axis=1)]
        return JSONResponse({"answers": answers, "probabilities": found.round(6).tolist(), "classes": self.net.classes})

    async def _body(self, request):
        """The body, if it is not too large."""
        told = request.headers.get("content-length", "")
        too_large = HTTPException(413, f"the body may have {self.largest} bytes")
        if told.isdigit() and int(told) > self.largest:
            raise too_large
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.largest:
                raise too_large
        return bytes(body)

    def _json(self, body):
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400, f"the body is not JSON: {self._wanted()}") from None
        if not isinstance(told, dict) or "inputs" not in told:
            raise HTTPException(422, f"the body is not an object with \"inputs\": {self._wanted()}")
        try:
            inputs = np.array(told["inputs"])
        except ValueError:
            raise HTTPException(422, f"inputs are not all of one shape: {self._wanted()}") from None
        return self._shaped(inputs)

    def _npy(self, body):
        try:
            inputs = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
        except Exception:  # a header is Python's text: what it may end in is not to be counted
            raise HTTPException(400, f"the body is no npy file: {self._wanted()}") from None
        return self._shaped(inputs)

    def _wanted(self):
        shape = " x ".join(map(str, self.net.shape))
        return f"numbers of shape {shape}, or samples of that"

    def _shaped(self, inputs):
        """Inputs as the network takes them: one or several samples, in their shape or flat."""
        shape, width = self.net.shape, int(np.prod(self.net.shape))
        if inputs.dtype.kind not in "biuf":
            raise HTTPException(422, f"inputs are not numbers: must be {self._wanted()}")
        if inputs.shape in (shape, (width,)):
            inputs = inputs[None]
        if inputs.shape[1:] not in (shape, (width,)):
            raise HTTPException(422, f"inputs have shape {list(inputs.shape)}: must be {self._wanted()}")
        if not len(inputs):
            raise HTTPException(422, f"inputs hold no sample: must be {self._wanted()}")
        if not np.isfinite(inputs).all():
            raise HTTPException(422, "inputs hold a number that is not finite")
        return inputs.reshape(-1, *shape).astype(float)

    def _note(self, code, seconds):
        self.codes[code] = self.codes.get(code, 0) + 1
        self.times[next((i for i, top in enumerate(BUCKETS) if seconds <= top), len(BUCKETS))] += 1
        self.total += seconds
        self.counts += 1

    async def health(self, request):
        """Whether anybody can classify.

        Parameters
        ----------
        request : starlette.requests.Request
        """
        crew = self.batcher.crew
        ok = bool(crew.left()) and not self.batcher.closing
        told = {"status": "ok" if ok else "lost", "run": self.name, "ranks": len(crew.left()),
                "lost": {str(rank): why for rank, why in crew.lost.items()}}
        return JSONResponse(told, 200 if ok else 503)

    async def home(self, request):
        """What there is.

        Parameters
        ----------
        request : starlette.requests.Request
        """
        return PlainTextResponse(f"{self.name}, served by brmpi {__version__}\nPOST /predict  {self._wanted()}, as "
                                 f'{{"inputs": …}} or npy\nGET /healthz /metrics /openapi.json\n')

    async def metrics(self, request):
        """Counts and times, as Prometheus reads them.

        Parameters
        ----------
        request : starlette.requests.Request
        """
        self._allow(request)
        return PlainTextResponse("\n".join(self._metrics()) + "\n", media_type="text/plain; version=0.0.4")

    def _metrics(self):
        crew = self.batcher.crew
        yield from _series("brmpi_requests_total", "counter", "Requests to /predict, by status code.",
                           [(f'{{code="{code}"}}', count) for code, count in sorted(self.codes.items())])
        yield from ("# HELP brmpi_request_seconds How long requests to /predict took.",
                    "# TYPE brmpi_request_seconds histogram")
        for top, count in zip((*BUCKETS, "+Inf"), np.cumsum(self.times)):
            yield f'brmpi_request_seconds_bucket{{le="{top}"}} {count}'
        yield f"brmpi_request_seconds_sum {self.total:.6f}"
        yield f"brmpi_request_seconds_count {self.counts}"
        yield from _series("brmpi_queue_samples", "gauge", "Samples that wait.", [("", self.batcher.queued)])
        yield from _series("brmpi_batches_total", "counter", "Batches that were sent.", [("", self.batcher.batches)])
        ranks = range(min(1, self.batcher.crew.comm.size - 1), crew.comm.size)
        yield from _series("brmpi_samples_total", "counter", "Samples that each rank classified.",
                           [(f'{{rank="{rank}"}}', crew.samples[rank]) for rank in ranks])
        yield from _series("brmpi_rank_up", "gauge", "Whether a rank answers.",
                           [(f'{{rank="{rank}"}}', int(rank not in crew.lost)) for rank in ranks])

    async def openapi(self, request):
        """A description that programs read.

        Parameters
        ----------
        request : starlette.requests.Request
        """
        width = int(np.prod(self.net.shape))
        answers = {code: {"description": why} for code, why in (
            ("400", "the body is neither JSON nor npy"), ("401", "a token is needed"),
            ("413", "the body is too large, or has more samples than may wait"),
            ("415", "another content-type"), ("422", "inputs of another shape, or not finite"),
            ("503", "too many requests wait (Retry-After), or a rank was lost"))}
        numbers = {"type": "array", "items": {}, "description": f"{self._wanted()}; {width} numbers each"}
        result = {"type": "object", "properties": {
            "answers": {"type": "array", "items": {"type": "string", "enum": self.net.classes}},
            "probabilities": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            "classes": {"type": "array", "items": {"type": "string"}}}}
        binary = {NPY[0]: {"schema": {"type": "string", "format": "binary"}}}
        wanted = {"type": "object", "required": ["inputs"], "properties": {"inputs": numbers}}
        body = {JSON: {"schema": wanted}, **binary}
        post = {"summary": "Classify samples", "requestBody": {"required": True, "content": body},
                "responses": {"200": {"description": "classes and their probabilities",
                                      "content": {JSON: {"schema": result}, **binary}}, **answers}}
        told = {"openapi": "3.1.0", "info": {"title": f"{self.name}, a {self.net.kind} network", "version": _version()},
                "paths": {"/predict": {"post": post},
                          "/healthz": {"get": {"responses": {"200": {"description": "ranks answer"},
                                                             "503": {"description": "none does"}}}},
                          "/metrics": {"get": {"responses": {"200": {"description": "Prometheus text"}}}}}}
        if self.token:
            told["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
            post["security"] = [{"token": []}]
        return JSONResponse(told)


def _version():
    try:
        return version("brmpi")
    except PackageNotFoundError:
        return __version__


def _series(name, kind, meaning, values):
    """Lines of one metric."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{labels} {value}"


async def _told(request, error):
    """An error as JSON."""
    if not isinstance(error, HTTPException):
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _lost(request, error):
    return JSONResponse({"error": str(error)}, 503, headers={"retry-after": str(RETRY)})


class _Server(uvicorn.Server):
    """A server whose signals are ours."""

    def install_signal_handlers(self):
        """None of its own."""

    @contextlib.contextmanager
    def capture_signals(self):
        """None of its own."""
        yield


def serve(door, crew, options, token, name):
    """Serve until a signal says to end. On the root.

    Parameters
    ----------
    door : socket.socket that listens
    crew : workers.Crew
    options : namespace: batch, wait [ms], queue, body [MB]
    token : str, empty for none
    name : str, of the run
    """
    async def _main():
        batcher = Batcher(crew, options.batch, options.wait / 1e3, options.queue)
        app = Door(batcher, crew.net, name, token, int(options.body * 1e6)).app()
        server = _Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off",
                                        server_header=False))
        loop, ends = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, ends.set)
        serving = asyncio.ensure_future(server.serve([door]))
        batching = asyncio.ensure_future(batcher.run())
        ending = asyncio.ensure_future(ends.wait())
        await asyncio.wait([serving, batching, ending], return_when=asyncio.FIRST_COMPLETED)
        await batcher.close("the server ends: a person stopped it, or one of its ranks was lost")
        server.should_exit = True
        await asyncio.wait([serving], timeout=GRACE)
        batching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await batching

    asyncio.run(_main())

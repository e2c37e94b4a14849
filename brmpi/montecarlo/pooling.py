"""A pool of ranks for ordinary functions: ``map``, ``starmap``, ``submit``.

    from brmpi.montecarlo import pool

    def f(x):
        ...

    with pool() as ranks:              # all ranks but the first stay in this line, work, and end with it
        results = ranks.map(f, things)

Tasks go out in chunks that last a moment, as long as tasks were measured to take on that rank; before that, single ones
by the nodes' speeds. A rank has a second chunk in hand while it works on the first. The first rank hands out and
collects, and works too, as long as tasks are short. Functions are pickled by name: they have to be defined above
``pool()``. A rank that dies takes the job with it, under mpirun: the first rank then tells which tasks it held.
"""

import atexit
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Executor, Future

from brmpi import speeds
from brmpi.errors import Fault
from brmpi.montecarlo import messages

HELLO = 7400  # tag
CHUNK = 0.02  # seconds that a chunk is to last
SHORT = 0.02  # seconds of a task up to which the root works too
LINGER = 0.3  # seconds
AHEAD = 2  # chunks in a rank's hands
NAPS = 5e-5, 2e-3  # seconds between looks when nothing happens, first and longest
_serving = False  # a pool within a task is a serial one


class RemoteTraceback(Exception):
    """What a task's rank had to say, a traceback; the cause of the exception that came from there."""

    def __str__(self):
        return f"\n{self.args[0]}"


class Ended(RuntimeError):
    """A task that would have ended its process, as by ``sys.exit``, or whose result cannot be sent."""


class Batch:
    """Tasks of one function.

    Parameters
    ----------
    number : int
    function : callable
    tasks : iterable of tuples of arguments
    done : callable of index, result or exception, and whether it is an exception
    """

    def __init__(self, number, function, tasks, done):
        self.number, self.function, self.done = number, function, done
        self.pickled = pickle.dumps(function)
        self.count = _length(tasks)
        self.tasks, self.next, self.out = iter(tasks), 0, 0
        self.pace, self.empty = {}, False  # seconds a task, by rank
        self.failure = None  # what the tasks themselves raised

    def take(self, count):
        """The next tasks.

        Parameters
        ----------
        count : int >= 1

        Returns
        -------
        first : int, index of the first
        taken : list of tuples of arguments; empty where none is left
        """
        first, taken = self.next, []
        while len(taken) < count and not self.empty:
            try:
                taken.append(next(self.tasks))
            except StopIteration:
                self.empty = True
            except BaseException as error:  # told to who asked for the results, in whichever thread this is
                self.empty, self.failure = True, error
        self.next += len(taken)
        self.out += len(taken)
        return first, taken


def _length(things):
    """How many there are, None where nobody knows."""
    try:
        return len(things)
    except TypeError:
        return None


def attempt(function, first, tasks, remote=False):
    """Do tasks.

    Parameters
    ----------
    function : callable
    first : int, index of the first task
    tasks : list of tuples of arguments
    remote : bool, whether answers will be sent, and a person's Ctrl-C is not meant for this process

    Returns
    -------
    list of (bool, object): whether it failed, and the result or (exception, text of the traceback)
    """
    answers = []
    for number, arguments in enumerate(tasks, first):
        try:
            answers.append((False, function(*arguments)))
        except Exception as error:
            answers.append((True, (_sendable(error) if remote else error, traceback.format_exc())))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not remote:
                raise
            answers.append((True, (Ended(f"task {number} ended with {error!r}"), traceback.format_exc())))
    return answers


def _sendable(error):
    """An exception, or one that says the same, if that cannot be made again from what is sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return Ended(f"{type(error).__name__}: {error}")
    return error


def _told(answers):
    """Answers as buffers; those that cannot be pickled as exceptions that say so."""
    try:
        return messages.packed(answers)
    except Exception:
        plain = []
        for failed, answer in answers:
            try:
                pickle.loads(pickle.dumps(answer))
                plain.append((failed, answer))
            except Exception as error:
                text = answer[1] if failed else traceback.format_exc()
                what = f"{type(answer[0]).__name__}: {answer[0]}" if failed else f"its result cannot be sent: {error}"
                plain.append((True, (Ended(what), text)))
        return messages.packed(plain)


class _Nap:
    """Longer and longer sleeps until something happens."""

    def __init__(self):
        self.seconds = NAPS[0]

    def __call__(self, busy):
        self.seconds = NAPS[0] if busy else min(self.seconds * 1.3, NAPS[1])
        if not busy:
            time.sleep(self.seconds)


def _heard(comm, source, status, head=True):
    """The next message of a rank, which is there or on its way."""
    if not head:
        comm.Probe(source, _any(), status)
    return messages.receive(comm, status)


def _any():
    from mpi4py import MPI

    return MPI.ANY_TAG


def _linger(number, frame):
    """End a moment later than asked to: the root then sees which rank was gone before."""
    time.sleep(LINGER)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def serve(comm):
    """Work for the root until it closes the pool. On every other rank.

    Parameters
    ----------
    comm : communicator
    """
    global _serving
    from mpi4py import MPI

    _serving = True
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _linger)  # a program with a handler of its own knows what it does
    functions, status, nap, sent = {}, MPI.Status(), _Nap(), []
    comm.send((socket.gethostname(), os.getpid()), 0, HELLO)
    try:
        while True:
            if not comm.Iprobe(0, MPI.ANY_TAG, status):
                nap(False)
                continue
            nap(True)
            number, first, count, function = _heard(comm, 0, status)
            if number is None:
                break
            if function is not None:
                functions = {number: function}
            begin = time.perf_counter()
            try:
                tasks = _heard(comm, 0, status, head=False)
                answers = attempt(pickle.loads(functions[number]), first, tasks, remote=True)
            except Exception as error:
                answers = [(True, (Ended(f"{error}: is it defined above pool()?"), traceback.format_exc()))] * count
            seconds = time.perf_counter() - begin
            MPI.Request.Waitall([request for request, _ in sent])
            parts = messages.packed((number, first, count, seconds)), _told(answers)
            sent = [(request, part) for part in parts for request in messages.send(comm, part, 0)]
        MPI.Request.Waitall([request for request, _ in sent])
    finally:
        _serving = False
        if signal.getsignal(signal.SIGTERM) is _linger:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Serial(Executor):
    """A pool of one rank, and the part of one with more that all have alike.

    Attributes
    ----------
    size : int, ranks
    """

    size = 1

    def is_master(self):
        """Whether this rank hands out tasks: where a pool is used, it does.

        Returns
        -------
        True
        """
        return True

    def wait(self):
        """Nothing: other ranks have worked before they come here. For scripts written for other pools."""

    def completed(self, function, tasks, idle=None):
        """Do tasks, and tell of each as it is done.

        Parameters
        ----------
        function : callable
        tasks : iterable of tuples of arguments
        idle : callable, called now and then while nothing has come, or None; what it raises is raised here

        Yields
        ------
        index : int
        failed : bool
        answer : the result, or (exception, text of its traceback)
        """
        for index, arguments in enumerate(tasks):
            yield index, *attempt(function, index, [arguments])[0]

    def starmap(self, function, tasks, callback=None):
        """Results of a function of several arguments, in order.

        Parameters
        ----------
        function : callable
        tasks : iterable of tuples of arguments
        callback : callable of each result, in the order in which they come, or None

        Returns
        -------
        list

        Raises
        ------
        whatever the first task that failed has raised, with the traceback of its rank as its cause
        """
        found, wrong = {}, {}
        for index, failed, answer in self.completed(function, _Stopping(tasks, wrong)):
            if failed:
                wrong[index] = answer
            else:
                found[index] = answer
                if callback is not None:
                    callback(answer)
        if wrong:
            first = min(wrong)
            raise raised(first, wrong[first])
        return [found[index] for index in range(len(found))]

    def map(self, function, *things, callback=None, timeout=None, chunksize=None):
        """Results of a function of each thing, in order.

        Parameters
        ----------
        function : callable
        *things : iterables, one for each argument of the function
        callback : as in ``starmap``
        timeout, chunksize : not used, for scripts written for other pools

        Returns
        -------
        list

        Raises
        ------
        as ``starmap``
        """
        return self.starmap(function, _Zipped(things), callback)

    def submit(self, function, /, *arguments, **options):
        """Begin one task.

        Parameters
        ----------
        function : callable
        *arguments, **options : of it

        Returns
        -------
        concurrent.futures.Future
        """
        future = Future()
        future.set_running_or_notify_cancel()
        _settle(future, 0, *attempt(_Call(function, options), 0, [arguments])[0])
        return future

    def close(self):
        """End the pool. May be called twice."""

    def shutdown(self, wait=True, *, cancel_futures=False):
        """As ``close``.

        Parameters
        ----------
        wait, cancel_futures : not used
        """
        self.close()

    def __exit__(self, *_):
        self.close()


class _Stopping:
    """Tasks that end once something went wrong."""

    def __init__(self, tasks, wrong):
        self.tasks, self.wrong, self.count = iter(tasks), wrong, _length(tasks)

    def __iter__(self):
        return self

    def __next__(self):
        if self.wrong:
            raise StopIteration
        return next(self.tasks)

    def __len__(self):
        return _known(self.count)


class _Zipped:
    """Several iterables as one of tuples, with a length where all have one."""

    def __init__(self, things):
        self.things = things
        lengths = [_length(thing) for thing in things]
        self.count = None if None in lengths else min(lengths, default=0)

    def __iter__(self):
        return zip(*self.things)

    def __len__(self):
        return _known(self.count)


def _known(count):
    if count is None:
        raise TypeError("nobody knows how many there are")
    return count


class _Call:
    """A function with its keyword arguments."""

    def __init__(self, function, options):
        self.function, self.options = function, options

    def __call__(self, *arguments):
        return self.function(*arguments, **self.options)


def raised(index, answer):
    """The exception of a task as its pool raises it.

    Parameters
    ----------
    index : int
    answer : (exception, text of its traceback)

    Returns
    -------
    exception
    """
    error, text = answer
    error.__cause__ = RemoteTraceback(text)
    error.add_note(f"task {index} of the pool")
    return error


def _settle(future, index, failed, answer):
    if failed:
        future.set_exception(raised(index, answer))
    else:
        future.set_result(answer)


class _Rank:
    """What the root knows of a rank that works for it."""

    def __init__(self, rank, speed):
        self.rank, self.speed = rank, speed
        self.hands = deque()  # (batch, first index, count), in the order in which they went out
        self.host, self.process = None, None
        self.batch = None  # the one whose function it has
        self.sent = []  # requests and their buffers


class Pool(Serial):
    """The first rank's end of a pool of several.

    Parameters
    ----------
    comm : communicator, the pool's own
    told : (ranks,) float64 > 0, speeds
    """

    def __init__(self, comm, told):
        self.comm, self.size = comm, comm.size
        self.ranks = [_Rank(rank, told[rank]) for rank in range(1, comm.size)]
        self.own = told[0]
        self.batches, self.numbers, self.open = deque(), 0, True
        self.lock, self.thread = threading.RLock(), None
        atexit.register(self.close)

    # ---- what people call ------------------------------------------------------------------------------------------

    def completed(self, function, tasks, idle=None):
        """Do tasks, and tell of each as it is done.

        Parameters
        ----------
        function, tasks, idle : as ``Serial.completed`` has them

        Yields
        ------
        index, failed, answer : as there

        Raises
        ------
        whatever taking the next task raised, after those that were out have come
        """
        came = deque()
        with self.lock:
            batch = self._begin(function, tasks, lambda *one: came.append(one))
        nap = _Nap()
        with _Watch(self):
            try:
                while came or not self._finished(batch):
                    if not came:
                        with self.lock:
                            busy = self._turn() or self._work(batch)
                        nap(busy)
                        if idle is not None and not busy:
                            idle()
                    while came:
                        yield came.popleft()
                if batch.failure is not None:
                    raise batch.failure
            finally:
                with self.lock:
                    batch.tasks, batch.empty = iter(()), True  # where nobody wants the rest
                    while not self._finished(batch):
                        nap(self._turn())

    def submit(self, function, /, *arguments, **options):
        """Begin one task.

        Parameters
        ----------
        function : callable
        *arguments, **options : of it

        Returns
        -------
        concurrent.futures.Future
        """
        future = Future()
        with self.lock:
            self._begin(_Call(function, options), [arguments], lambda *one: _settle(future, *one))
            future.set_running_or_notify_cancel()
            if self.thread is None:
                self.thread = threading.Thread(target=self._pump, daemon=True)
                self.thread.start()
        return future

    def close(self):
        """End the pool: the other ranks are done. May be called twice."""
        atexit.unregister(self.close)
        with self.lock:
            if not self.open:
                return
            nap = _Nap()
            while self.batches:
                nap(self._turn())
            self.open = False
            end = messages.packed((None, 0, 0, None))
            for rank in self.ranks:
                self._let_go(rank, wait=True)
                for request in messages.send(self.comm, end, rank.rank):
                    request.Wait()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

    # ---- the work --------------------------------------------------------------------------------------------------

    def _begin(self, function, tasks, done):
        if not self.open:
            raise RuntimeError("the pool is closed")
        self.numbers += 1
        batch = Batch(self.numbers, function, tasks, done)
        self.batches.append(batch)
        return batch

    @staticmethod
    def _finished(batch):
        return batch.empty and not batch.out

    def _pump(self):
        """Go on with tasks that were submitted, whoever waits for them and how."""
        nap = _Nap()
        while self.open:
            with self.lock:
                busy = self._turn() if self.open and self.batches else False
            nap(busy)

    def _turn(self):
        """Collect what has come and hand out what there is to do; whether anything happened."""
        from mpi4py import MPI

        status, busy = MPI.Status(), False
        while self.comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            busy = True
            rank = self.ranks[status.source - 1]
            if status.tag == HELLO:
                rank.host, rank.process = self.comm.recv(None, status.source, HELLO)
            else:
                self._collect(rank, status)
        while self.batches and self._finished(self.batches[0]):
            self.batches.popleft()
        for depth in range(AHEAD):
            for rank in self.ranks:
                if len(rank.hands) == depth and rank.host is not None:
                    busy = self._hand_out(rank) or busy
        return busy

    def _collect(self, rank, status):
        """Take in the answers of a chunk."""
        _, first, count, seconds = _heard(self.comm, rank.rank, status)
        batch, _, _ = rank.hands.popleft()
        try:
            answers = _heard(self.comm, rank.rank, status, head=False)
        except Exception as error:
            answers = [(True, (Ended(f"the result cannot be understood: {error}"), traceback.format_exc()))] * count
        batch.pace[rank.rank] = seconds / count
        batch.out -= count
        for index, (failed, answer) in enumerate(answers, first):
            batch.done(index, failed, answer)

    def _hand_out(self, rank):
        """Give a rank its next chunk; whether there was one."""
        for batch in self.batches:
            if batch.empty:
                continue
            first, tasks = batch.take(self._length(batch, rank.rank, rank.speed))
            if not tasks:
                continue
            try:
                told = messages.packed(tasks)
            except Exception:
                self._at_home(batch, first, tasks)
                return True
            function = None if rank.batch is batch else batch.pickled
            rank.batch = batch
            self._let_go(rank)
            parts = messages.packed((batch.number, first, len(tasks), function)), told
            rank.sent += [(request, part) for part in parts for request in messages.send(self.comm, part, rank.rank)]
            rank.hands.append((batch, first, len(tasks)))
            return True
        return False

    @staticmethod
    def _at_home(batch, first, tasks):
        """What to do with a chunk that cannot be sent: those of its tasks that could are done here."""
        batch.out -= len(tasks)
        for index, arguments in enumerate(tasks, first):
            try:
                messages.packed(arguments)
                answer = _done_here(batch.function, index, [arguments])[0]
            except Exception as error:
                answer = True, (Ended(f"task {index}: its arguments cannot be sent: {error}"), traceback.format_exc())
            batch.done(index, *answer)

    def _length(self, batch, rank, speed):
        """How many tasks last a moment, fewer near the end."""
        if not batch.pace:
            return 1
        pace = batch.pace.get(rank)
        if pace is None:  # as others were measured, by the nodes' speeds
            other, known = next(iter(batch.pace.items()))
            pace = known * (self.own if other == 0 else self.ranks[other - 1].speed) / speed
        count = CHUNK / max(pace, 1e-7)
        if batch.count is not None:
            total = self.own + sum(one.speed for one in self.ranks)
            count = min(count, (batch.count - batch.next) * speed / total / AHEAD)
        return max(1, int(count))

    def _work(self, batch):
        """Do a task here, where tasks are short; whether one was done."""
        if batch.empty or not batch.pace or min(batch.pace.values()) > SHORT:
            return False
        first, tasks = batch.take(max(1, int(1e-3 / max(min(batch.pace.values()), 1e-7))))  # answers may wait for 1 ms
        if not tasks:
            return False
        begin = time.perf_counter()
        try:
            answers = _done_here(batch.function, first, tasks)
        except BaseException:
            batch.out -= len(tasks)
            raise
        batch.pace[0] = (time.perf_counter() - begin) / len(tasks)
        batch.out -= len(tasks)
        for index, (failed, answer) in enumerate(answers, first):
            batch.done(index, failed, answer)
        return True

    @staticmethod
    def _let_go(rank, wait=False):
        """Forget what has left."""
        while rank.sent and (wait or rank.sent[0][0].Test()):
            rank.sent.pop(0)[0].Wait()

    def out(self):
        """What each rank has in its hands, for people.

        Returns
        -------
        list of str
        """
        lines = []
        for rank in self.ranks:
            if rank.hands:
                first, count = rank.hands[0][1], sum(count for *_, count in rank.hands)
                which = f"task {first}" if count == 1 else f"tasks {first} to {first + count - 1}"
                gone = rank.host == socket.gethostname() and not _alive(rank.process)
                lines.append(f"rank {rank.rank} on {rank.host}{', which is gone' if gone else ''}: {which}")
        return sorted(lines, key=lambda line: "which is gone" not in line)


def _done_here(function, first, tasks):
    """Do tasks on the root, where a pool within a task is a serial one, too."""
    global _serving
    before, _serving = _serving, True
    try:
        return attempt(function, first, tasks)
    finally:
        _serving = before


def _alive(process):
    """Whether a process of this host is there, and more than an entry in the table."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:  # noqa: PTH123, a path would take as long again
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class _Watch:
    """Tells of tasks that are out when the job is ended, as mpirun does where a rank has died."""

    def __init__(self, pool):
        self.pool = pool

    def __enter__(self):
        self.before = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self._tell)

    def _tell(self, number, frame):
        lines = self.pool.out()
        gone = [line for line in lines if "which is gone" in line]
        print("\n".join(["pool: the job is ended while tasks are out:", *(gone or lines)]), file=sys.stderr, flush=True)
        if callable(self.before):
            self.before(number, frame)
        else:
            signal.signal(signal.SIGTERM, self.before)
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_):
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)


def pool(comm=None, leave=True):
    """A pool of all ranks. Collective: all ranks but the first work in here until the first closes the pool.

    Parameters
    ----------
    comm : communicator; all ranks of the job, if none is given
    leave : bool, whether ranks that have worked end their process with that; else they get a closed pool, whose
        ``is_master()`` is False, and go on

    Returns
    -------
    Pool, or Serial where there is but one rank, or within a task
    """
    if _serving:
        return Serial()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return Serial()
    comm = MPI.COMM_WORLD if comm is None else comm
    if comm.size == 1:
        return Serial()
    told = speeds.speeds(comm, "events")
    own = comm.Dup()
    if comm.rank == 0:
        return Pool(own, told)
    serve(own)
    own.Free()
    if leave:
        sys.exit(0)
    return _Done()


class _Done(Serial):
    """What a rank has after it worked."""

    def is_master(self):
        """Whether this rank hands out tasks.

        Returns
        -------
        False
        """
        return False

    def completed(self, function, tasks, idle=None):
        """Refuse.

        Parameters
        ----------
        function, tasks, idle : not used

        Raises
        ------
        Fault : always
        """
        raise Fault("this rank worked for a pool, and hands out nothing itself: ask is_master() first")

"""One run of mpirun: what it prints is passed on, it is stopped in good order, and nothing of it stays alive."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brmpi.cluster.inventory import is_local
from brmpi.cluster.probing import SSH, login
from brmpi.cluster.screen import Screen

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
GRACE = 30.0  # seconds in which a job that was asked to stop may finish its step and save
PATIENCE = 5.0  # seconds in which mpirun ends when all its logins have
WORDS = 15.0  # seconds after which what mpirun says without ending is no last word: it may take 12 to give a node up
TIMED_OUT, LOST = 124, 255  # as timeout(1) has it, and ssh
HELPERS = ("ssh", "hydra_pmi_proxy"[:15])  # of mpirun, which are no ranks; the kernel cuts their names


@dataclass
class Outcome:
    """How a run of mpirun ended."""

    code: int
    screen: Screen  # what the job and mpirun printed
    stopped: bool = False  # a person asked for it
    late: bool = False  # the limit of time ended it
    lost: bool = False  # mpirun waited for a host that it had lost

    @property
    def said(self):
        """What mpirun itself printed."""
        return self.screen.said.decode(errors="replace")


def run(mpi, job, command, launch, timeout=None, gentle=True):
    """Run mpirun to its end.

    Parameters
    ----------
    mpi : one of ``mpirun``'s classes
    job : Job
    command : list of str
    launch : str, what run.json is told
    timeout : float, limit of time [s], optional
    gentle : bool, whether the program saves and stops at SIGUSR2, as brmpi's do

    Returns
    -------
    Outcome

    Raises
    ------
    OSError : mpirun cannot be started
    """
    env = dict(os.environ)
    for name, value in (mpi.environment(job) | {"BRMPI_LAUNCH": launch}).items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    outcome = Outcome(0, Screen(mpi.tag if job.tagged else None))
    asked = []
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in SIGNALS
              if signal.getsignal(number) != signal.SIG_IGN}  # as under nohup
    try:
        process = _started(command, env, outcome.screen)
        with _guarded(process):
            try:
                _wait(process, outcome, asked, timeout, gentle, _Logins(process.pid) if mpi.waits else None)
            finally:
                _end(process)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    outcome.screen.close()
    code = process.returncode
    outcome.code = TIMED_OUT if outcome.late else LOST if outcome.lost else 128 - code if code < 0 else code
    return outcome


def _started(command, env, screen):
    out, err = screen.doors()
    try:
        return subprocess.Popen(command, env=env, stdout=out, stderr=err, start_new_session=True)
    finally:
        os.close(out)
        os.close(err)


@contextlib.contextmanager
def _guarded(process):
    """See to it that mpirun is told to end if this process is killed: what holds the other end of a pipe notices."""
    # not the kernel's signal to orphans: it comes once for each thread, and a second SIGTERM makes mpirun leave ranks
    guard = subprocess.Popen(["sh", "-c", 'read well || kill -TERM "$0"', str(process.pid)], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate(b"\n")


def _wait(process, outcome, asked, timeout, gentle, logins):
    """Until mpirun has ended, or has been asked to in vain, or waits for a host that is lost."""
    start, told, pressed, saving = time.monotonic(), None, 0, False
    while process.poll() is None:
        now = time.monotonic()
        if timeout is not None and now - start > timeout:
            outcome.late = True
            return
        if len(asked) > pressed:
            saving = not pressed and _saves(process.pid, gentle)
            told, pressed, outcome.stopped = now, len(asked), True
            process.send_signal(signal.SIGUSR2 if saving else signal.SIGTERM)
        if told is not None and now - told > GRACE:
            if not saving:
                return
            asked.append(signal.SIGTERM)
        if logins and logins.lost():
            outcome.lost = True
            return
        outcome.screen.tell(WORDS)
        outcome.screen.resize()
        time.sleep(0.05)


def _saves(launcher, otherwise):
    """Whether mpirun and its ranks on this machine take SIGUSR2 as a wish, as they do once they are under way.

    Parameters
    ----------
    launcher : int, process of mpirun
    otherwise : bool, what to believe where no rank is on this machine
    """
    ranks = [process for process, name in _below(launcher) if name not in HELPERS]
    with contextlib.suppress(OSError):  # it has ended
        for process in (launcher, *ranks):
            if not int(_status(process)["SigCgt"], 16) >> signal.SIGUSR2 - 1 & 1:
                return False
    return bool(ranks) or otherwise


def _below(process):
    """(number, name) of all processes that one has started, and that those have."""
    with contextlib.suppress(OSError):  # it has ended
        for child in map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()):
            yield child, _status(child)["Name"]
            yield from _below(child)


def _status(process):
    return dict(re.findall(r"^(\w+):\t(.*)$", Path(f"/proc/{process}/status").read_text(), re.M))


class _Logins:
    """The logins by which mpirun holds its hosts. Where one ends and mpirun does not, that host is lost.

    Parameters
    ----------
    process : int, mpirun's
    """

    def __init__(self, process):
        self.process, self.seen, self.since = process, set(), None

    def lost(self):
        """Whether one has been gone for so long that mpirun would have ended if all were well."""
        now = {child for child, name in _below(self.process) if name == "ssh"}
        self.seen |= now
        if now == self.seen:
            return False
        self.since = self.since or time.monotonic()
        return time.monotonic() - self.since > PATIENCE


def _end(process):
    """End mpirun: in order if it listens."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clean(job, seconds=12.0):
    """End whatever is left of a job on every host that can be reached.

    Parameters
    ----------
    job : Job
    seconds : float, limit of time [s]

    Returns
    -------
    ended : dict, address: number of processes that were ended
    lost : set of str, addresses of hosts that did not answer
    """
    # A process carries its job's name in its environment; grep itself runs without it.
    script = (f'p=$(grep -lzsx BRMPI_JOB={job.id} /proc/[0-9]*/environ | cut -d/ -f3); [ -z "$p" ] || kill -9 $p; '
              'echo cleaned $(echo $p | wc -w)')
    answers = _everywhere(job.hosts, script, seconds)
    ended = {address: int(said) for address, said in answers.items() if said is not None}
    return {address: count for address, count in ended.items() if count}, set(answers) - set(ended)


def alive(hosts, seconds=12.0):
    """Which hosts answer.

    Parameters
    ----------
    hosts : sequence of Host
    seconds : float, limit of time [s]

    Returns
    -------
    set of str, addresses
    """
    return {address for address, said in _everywhere(hosts, "echo cleaned 0", seconds).items() if said is not None}


def _everywhere(hosts, script, seconds):
    def ask(host):
        env = {name: value for name, value in os.environ.items() if name != "BRMPI_JOB"}
        command = ["sh", "-c", script] if is_local(host) else [*SSH, login(host), f"sh -c {shlex.quote(script)}"]
        try:
            said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env,
                                  timeout=seconds)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.search(r"^cleaned (\d+)", said.stdout, re.M)
        return found.group(1) if found else None

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return dict(zip([host.address for host in hosts], pool.map(ask, hosts)))

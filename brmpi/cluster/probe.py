"""What a node is and how fast: one self-contained program that prints one JSON object.

It runs where nothing but Python >= 3.8 is certain: ``python3 - < probe.py``. What a node lacks is null, with the reason
under ``reasons``. Libraries that may crash are called in a child process, and a limit of time holds for the whole.
Speeds are of all the cores that this process may use, one thread a core, as ranks of a job would use them.
"""

import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SCHEMA = 1
LIMIT = 16.0  # s, until the last speed; what follows takes 3 at most
REPEATS = 5
REPEAT = 0.12  # s, one repeat
KINDS = {"compute": "GFLOP/s", "gravity": "interactions/s", "memory": "GB/s", "events": "events/s"}
SETTINGS = ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS")
FLAGS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")  # bits 0-3 now, 16-19 since boot
ARM = {"0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}
UNTOLD = {"cores": "no quota is set", "frequency": "the kernel does not tell", "ram": "no limit is set",
          "python": "not installed", "blas": "the library does not tell", "environment": "not set"}
BLAS = (("mkl_rt", "MKL"), ("openblas", "OpenBLAS"), ("blis", "BLIS"), ("armpl", "ArmPL"), ("nvpl", "NVPL"),
        ("flexiblas", "FlexiBLAS"), ("atlas", "ATLAS"), ("blas", "reference BLAS"))
CPUS = Path("/sys/devices/system/cpu")


class Lacking(Exception):
    """An item that this node cannot tell; the message is the reason."""


def text(path):
    """A file's text, without the blanks and zero bytes at its ends.

    Parameters
    ----------
    path : str or Path
    """
    return Path(path).read_text(errors="replace").strip("\0 \n")


def output(*command, seconds=3):
    """Standard output of a command.

    Parameters
    ----------
    *command : str
    seconds : float, its limit of time [s]
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/opt/vc/bin"]
    program = shutil.which(command[0], path=os.pathsep.join(places))
    if program is None:
        raise Lacking(command[0] + " is not installed")
    try:
        done = subprocess.run([program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
                              env=dict(os.environ, LC_ALL="C"))
    except subprocess.TimeoutExpired:
        raise Lacking("%s took more than %g s" % (command[0], seconds)) from None  # noqa: UP031
    said = (done.stdout + (done.stderr if done.returncode else b"")).decode(errors="replace").strip()
    if done.returncode:
        raise Lacking(f"{command[0]} failed with exit code {done.returncode}: {said[-200:]}")
    return said


def guarded(work):
    """``(value, None)``, or ``(None, reason)`` whatever goes wrong.

    Parameters
    ----------
    work : function of nothing
    """
    try:
        return work(), None
    except Lacking as lacking:
        return None, str(lacking)
    except ImportError as error:
        return None, str(error)
    except Exception as error:  # a probe must go on, whatever a strange node does
        return None, f"{type(error).__name__}: {error}"


def isolated(work, seconds):
    """Yield what ``work`` yields (JSON values), from a child process that may crash or hang.

    Parameters
    ----------
    work : generator function of nothing
    seconds : float, limit of time [s]; at its end the child is killed

    Raises
    ------
    Lacking : after the values, if the child did not come to its end
    """
    deadline = time.monotonic() + seconds
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0) + 1)  # an orphan ends too
            os.dup2(2, 1)  # what libraries print does not mix into the answer
            with os.fdopen(sending, "w") as pipe:
                for item in work():
                    print(json.dumps(item), file=pipe, flush=True)
            code = 0
        finally:
            os._exit(code)
    os.close(sending)
    ended = False
    try:
        with os.fdopen(receiving, "rb", buffering=0) as pipe:
            rest = b""
            while not ended:
                if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
                    raise Lacking("out of time")
                received = pipe.read(65536)
                *whole, rest = (rest + received).split(b"\n")
                for line in whole:
                    yield json.loads(line.decode())
                ended = not received
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        raise Lacking(f"its process died of signal {os.WTERMSIG(status)}")
    if status:
        raise Lacking("its process failed")


def cpu():
    """Name of the processor."""
    known = dict(re.findall(r"^(model name|CPU part)\s*:\s*(.*)$", text("/proc/cpuinfo"), re.M))
    if "model name" in known:
        return known["model name"]
    named = re.search(r"^Model name:\s*(.+)$", output("lscpu"), re.M)
    return named.group(1) if named and named.group(1) != "-" else ARM[known["CPU part"]]


def board():
    """Name of the computer: a board's model, else what its firmware calls it."""
    for path in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        if Path(path).exists() and text(path):
            return text(path)
    raise Lacking("neither a device tree nor firmware tells")


def control_groups(controller, new, old):
    """Texts of a control group's file, of this process's groups and all above them, in versions 2 and 1.

    Parameters
    ----------
    controller : str, "cpu" or "memory"
    new : str, file of version 2
    old : str, file of version 1
    """
    root = Path("/sys/fs/cgroup")
    for line in text("/proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mounts, name = (root, root / "unified"), new
        elif controller in controllers.split(","):
            mounts, name = (root / controller, root / controllers), old
        else:
            continue
        for mount in mounts:
            group = mount / path.lstrip("/")
            for folder in (group, *group.parents):
                if mount in (folder, *folder.parents) and (folder / name).exists():
                    yield folder, text(folder / name)


def quota():
    """Cores' worth of time that control groups allow this process; None where none is set."""
    allowed = []
    for folder, said in control_groups("cpu", "cpu.max", "cpu.cfs_quota_us"):
        limit, period = said.split() if " " in said else (said, text(folder / "cpu.cfs_period_us"))
        if limit not in ("max", "-1"):
            allowed.append(int(limit) / int(period))
    return min(allowed, default=None)


def cores():
    """Cores of the node, and those that this process may use.

    Returns
    -------
    dict: ``physical`` and ``threads`` of the node; ``usable`` physical cores and ``usable_threads`` by affinity and
    quota; ``quota`` in cores, None where none is set
    """
    siblings = {}
    for path in CPUS.glob("cpu[0-9]*/topology/thread_siblings_list"):
        siblings[int(path.parts[-3][3:])] = text(path)
    mine = os.sched_getaffinity(0)
    threads = len(siblings) or os.cpu_count()
    known = set(siblings.values()) or set(range(threads))
    usable = {siblings.get(thread, thread) for thread in mine}
    limit = guarded(quota)[0]
    most = threads if limit is None else max(1, int(limit))
    return {"physical": len(known), "threads": threads, "usable": min(len(usable), most),
            "usable_threads": min(len(mine), most), "quota": limit}


def frequency():
    """Clock of the fastest core: its limit, and now [MHz]."""
    most = [int(text(path)) / 1e3 for path in CPUS.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq")]
    now = [int(text(path)) / 1e3 for path in CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    now = now or [float(clock) for clock in re.findall(r"^cpu MHz\s*: (.*)$", text("/proc/cpuinfo"), re.M)]
    if not most and not now:
        raise Lacking("the kernel tells no clock")
    return {"max": max(most, default=None), "now": max(now, default=None)}


def ram():
    """Memory: in all, available now, and the control groups' limit or None [bytes]."""
    sizes = dict(re.findall(r"^(\w+):\s*(\d+) kB$", text("/proc/meminfo"), re.M))
    total = int(sizes["MemTotal"]) * 1024
    allowed = control_groups("memory", "memory.max", "memory.limit_in_bytes")
    limits = [int(said) for _, said in allowed if said.isdigit()]
    limit = min(limits, default=total)
    return {"total": total, "available": int(sizes["MemAvailable"]) * 1024, "limit": limit if limit < total else None}


def system():
    """Name and version of the operating system."""
    return re.search(r'^PRETTY_NAME="?([^"\n]*)', text("/etc/os-release"), re.M).group(1)


def python():
    """Version and path of Python, versions of NumPy and Numba or None."""
    from importlib import metadata

    found = {"version": platform.python_version(), "executable": sys.executable}
    for name in ("numpy", "numba"):
        found[name] = guarded(lambda name=name: metadata.version(name))[0]
    return found


def mpi():
    """Name and version of the MPI whose ``mpirun`` is found first."""
    said = output("mpirun", "--version")
    for name, pattern in (("Open MPI", r"\(Open MPI\) (\S+)"), ("Intel MPI", r"Intel\(R\) MPI .*Version (\S+)"),
                          ("MPICH", r"^\s*Version:\s+(\S+)")):
        found = re.search(pattern, said, re.M)
        if found:
            return {"name": name, "version": found.group(1)}
    raise Lacking(f"mpirun --version says {said[:60]!r}")


def interfaces():
    """Network interfaces, without loopback: name, speed [Mbit/s] or None, state, IPv4 address or None."""
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for link in sorted(Path("/sys/class/net").iterdir()):
            if link.name == "lo":
                continue
            request = link.name.encode().ljust(256, b"\0")
            answer = guarded(lambda r=request: fcntl.ioctl(query.fileno(), 0x8915, r))[0]  # SIOCGIFADDR
            address = socket.inet_ntoa(answer[20:24]) if answer else None
            speed = guarded(lambda at=link: int(text(at / "speed")))[0]
            found.append({"name": link.name, "speed": speed if speed and speed > 0 else None,
                          "state": guarded(lambda at=link: text(at / "operstate"))[0], "address": address})
    return found


def disk():
    """Space of the file system that holds the home folder: free and in all [bytes]."""
    space = shutil.disk_usage(str(Path.home()))
    return {"path": str(Path.home()), "free": space.free, "total": space.total}


def temperature():
    """Temperature of the processor [degrees Celsius]."""
    known = {}
    for zone in Path("/sys/class/thermal").glob("thermal_zone*"):
        known[guarded(lambda at=zone: text(at / "type"))[0]] = guarded(lambda at=zone: int(text(at / "temp")) / 1e3)[0]
    for sensor in Path("/sys/class/hwmon").glob("hwmon*"):
        name = guarded(lambda at=sensor: text(at / "name"))[0]
        known.setdefault(name, guarded(lambda at=sensor: int(text(at / "temp1_input")) / 1e3)[0])
    for name in ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "coretemp", "k10temp"):
        if known.get(name) is not None:
            return known[name]
    raise Lacking("no sensor of the processor")


def throttling():
    """Throttling of a Raspberry Pi: flags set now and since boot, and the number they were read from."""
    try:
        said = output("vcgencmd", "get_throttled").partition("=")[2]
    except Lacking:
        files = list(Path("/sys/devices/platform").glob("*/*firmware/get_throttled"))
        if not files:
            raise
        said = text(files[0])
    bits = int(said, 16)
    return {"now": [flag for bit, flag in enumerate(FLAGS) if bits >> bit & 1],
            "since_boot": [flag for bit, flag in enumerate(FLAGS) if bits >> bit + 16 & 1], "raw": hex(bits)}


def opencl():
    """OpenCL devices, from pyopencl, else from clinfo: platform, name, type (CPU, GPU or ACCELERATOR)."""
    import pyopencl

    kinds = [(kind, getattr(pyopencl.device_type, kind)) for kind in ("CPU", "GPU", "ACCELERATOR")]
    return [{"platform": owner.name.strip(), "name": device.name.strip(),
             "type": " | ".join(kind for kind, bit in kinds if device.type & bit)}
            for owner in pyopencl.get_platforms() for device in owner.get_devices()]


def opencl_listed():
    """OpenCL devices as ``clinfo --raw`` lists them."""
    found = {}
    pattern = r"^\[(\w+/\d+)\]\s+CL_DEVICE_(NAME|TYPE)\s+(.+)$"
    for place, key, said in re.findall(pattern, output("clinfo", "--raw"), re.M):
        device = found.setdefault(place, {"platform": place.split("/")[0], "name": None, "type": None})
        device[key.lower()] = said.strip().replace("CL_DEVICE_TYPE_", "")
    return list(found.values())


def vulkan():
    """Vulkan devices as ``vulkaninfo`` lists them: name, type, driver."""
    devices = re.split(r"^GPU\d+:$", output("vulkaninfo", "--summary", seconds=4), flags=re.M)[1:]
    found = [dict(re.findall(r"^\s*(device\w+|driver\w+)\s*= (.*)$", device, re.M)) for device in devices]
    return [{"name": device.get("deviceName"), "driver": device.get("driverName"),
             "type": device.get("deviceType", "").replace("PHYSICAL_DEVICE_TYPE_", "")} for device in found]


def blas():
    """The BLAS that NumPy has loaded: name, version or None, file or None."""
    import ctypes

    import numpy as np

    np.ones((4, 4)) @ np.ones((4, 4))
    loaded = sorted(set(re.findall(r"/\S+\.so\S*", text("/proc/self/maps"))))
    for mark, name in BLAS:
        for file in loaded:
            if mark not in Path(file).name.lower():
                continue
            number = re.search(r"(\d+\.\d+(\.\d+)*)\.so", file)
            version = number.group(1) if number else None
            for symbol in ("openblas_get_config", "scipy_openblas_get_config64_", "scipy_openblas_get_config"):
                config = getattr(ctypes.CDLL(file), symbol, None) if name == "OpenBLAS" else None
                if config is not None:
                    config.restype = ctypes.c_char_p
                    version = config().decode().replace("OpenBLAS", "").strip()
            return {"name": name, "version": version, "file": file}
    config = getattr(np.__config__, "CONFIG", None)
    known = config["Build Dependencies"]["blas"] if config else np.__config__.get_info("blas_opt_info")
    return {"name": known.get("name") or " ".join(known["libraries"]), "version": known.get("version"), "file": None}


def rate(call, work, threads, **said):
    """Median rate of ``call(thread)`` run by all threads at once.

    Parameters
    ----------
    call : function of a thread's number; it must let other threads run
    work : float, what one call does
    threads : int
    **said : what else to note

    Returns
    -------
    dict: ``value`` [work/s], ``spread`` = (max - min) / median, ``repeats``, ``threads`` and what was said
    """
    from concurrent.futures import ThreadPoolExecutor

    def _turn(count):
        start = time.perf_counter()
        list(pool.map(lambda thread: [call(thread) for _ in range(count)], range(threads)))
        return time.perf_counter() - start

    with ThreadPoolExecutor(threads) as pool:
        _turn(1)  # warm-up
        count = max(1, round(REPEAT / _turn(1)))
        times = sorted(_turn(count) for _ in range(REPEATS))
    median = times[REPEATS // 2]
    rates = [work * count * threads / seconds for seconds in times]
    return dict(value=work * count * threads / median, spread=(rates[0] - rates[-1]) / rates[REPEATS // 2],
                repeats=REPEATS, threads=threads, **said)


def compute(threads):
    """DGEMM of NumPy's BLAS, one thread a core [GFLOP/s]; n = 1024, less where that is slow.

    Parameters
    ----------
    threads : int
    """
    import numpy as np

    a, b, c = np.full((256, 256), 1.0), np.full((256, 256), 0.5), np.empty((256, 256))
    np.matmul(a, b, out=c)
    start = time.perf_counter()
    np.matmul(a, b, out=c)
    speed = 2 * 256**3 / (time.perf_counter() - start)
    n = next((n for n in (1024, 768, 512) if 2 * n**3 < REPEAT * speed), 256)
    matrices = [(np.full((n, n), 1.0), np.full((n, n), 0.5), np.empty((n, n))) for _ in range(threads)]
    return rate(lambda thread: np.matmul(*matrices[thread][:2], out=matrices[thread][2]), 2e-9 * n**3, threads, size=n)


def compiled(function, signature):
    """A function compiled by Numba that lets other threads run.

    Parameters
    ----------
    function : function
    signature : str
    """
    import numba

    return numba.njit(signature, nogil=True, fastmath=True, error_model="numpy")(function)


def pull(x, y, z, mass, out):
    """Softened attraction on each body by all, G = 1, eps**2 = 1e-4 (to be compiled).

    Parameters
    ----------
    x, y, z, mass : (n,) float64
    out : (n, 3) float64, accelerations
    """
    for i in range(x.size):
        ax = ay = az = 0.0
        for j in range(x.size):
            dx = x[j] - x[i]
            dy = y[j] - y[i]
            dz = z[j] - z[i]
            inverse = 1.0 / (dx * dx + dy * dy + dz * dz + 1e-4) ** 0.5
            pulled = mass[j] * inverse * inverse * inverse
            ax += pulled * dx
            ay += pulled * dy
            az += pulled * dz
        out[i, 0] = ax
        out[i, 1] = ay
        out[i, 2] = az


def gravity(threads):
    """Gravity among 1024 bodies in float64, one thread a core [interactions/s].

    Parameters
    ----------
    threads : int
    """
    import numpy as np

    n = 1024
    x, y, z = np.random.default_rng(0).random((3, n))
    mass = np.full(n, 1 / n)
    out = [np.empty((n, 3)) for _ in range(threads)]
    loop = compiled(pull, "void(float64[::1], float64[::1], float64[::1], float64[::1], float64[:, ::1])")
    return rate(lambda thread: loop(x, y, z, mass, out[thread]), n * n, threads, size=n)


def add(a, b, c):
    """``a = b + 3 c`` (to be compiled).

    Parameters
    ----------
    a, b, c : (n,) float64
    """
    for i in range(a.size):
        a[i] = b[i] + 3.0 * c[i]


def triad(threads):
    """STREAM's triad in float64, counting 24 bytes an element, one thread a core [GB/s].

    Parameters
    ----------
    threads : int
    """
    import numpy as np

    unit = {"K": 2**10, "M": 2**20}
    caches = [guarded(lambda at=path: int(text(at)[:-1]) * unit[text(at)[-1]])[0] or 0
              for path in (CPUS / "cpu0/cache").glob("index*/size")]
    room = ram()
    size = min(max(4 * max(caches, default=0), 2**24), 2**27, (room["limit"] or room["available"]) // 16)
    n = size // 8 // threads
    arrays = [[np.full(n, value) for value in (0.0, 1.0, 2.0)] for _ in range(threads)]
    loop = compiled(add, "void(float64[::1], float64[::1], float64[::1])")
    return rate(lambda thread: loop(*arrays[thread]), 24e-9 * n, threads, size=n * threads)


def primes(most):
    """Primes from 3 to ``most``, by trial division, as sysbench's cpu test counts them (to be compiled).

    Parameters
    ----------
    most : uint64
    """
    found = 0
    one = most // most
    c = one + one + one
    while c <= most:
        divisor = one + one
        while divisor * divisor <= c and c % divisor:
            divisor += one
        if divisor * divisor > c:
            found += 1
        c += one
    return found


def events(threads):
    """Events of sysbench's cpu test: the primes up to 10,000, one thread a core [events/s].

    Parameters
    ----------
    threads : int
    """
    import numpy as np

    loop = compiled(primes, "int64(uint64)")
    most = np.uint64(10000)
    return rate(lambda thread: loop(most), 1, threads, size=10000)


def numbers(threads, deadline):
    """Yield ``[item, value, reason]`` for all that needs NumPy and Numba.

    Parameters
    ----------
    threads : int
    deadline : float, when to begin nothing more, on the monotonic clock [s]
    """
    for name in THREADS:
        os.environ[name] = "1"
    yield ["blas", *guarded(blas)]
    for kind, work in zip(KINDS, (compute, gravity, triad, events)):
        if time.monotonic() > deadline:
            return
        yield [kind, *guarded(lambda work=work: work(threads))]


def measured(limit=LIMIT):
    """The probe of this node.

    Parameters
    ----------
    limit : float, limit of time [s]; what does not fit is null, "out of time"

    Returns
    -------
    dict, as hostfiles/README.md describes
    """
    deadline = time.monotonic() + limit
    probe = {"schema": SCHEMA, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    reasons = {}

    def _note(item, value, reason):
        if item in KINDS:
            probe["speeds"][item] = {"value": None, "reason": reason} if reason else dict(value, unit=KINDS[item])
        else:
            probe[item] = value
        if reason:
            reasons[item] = reason
        if item in UNTOLD and value:
            reasons.update({f"{item}.{key}": UNTOLD[item] for key, part in value.items() if part is None})
        for link in value or () if item == "interfaces" else ():
            untold = [key for key, part in link.items() if part is None]
            reasons.update({f"{item}.{link['name']}.{key}": "none, or its driver does not tell" for key in untold})

    for item, work in (("hostname", socket.gethostname), ("architecture", platform.machine), ("board", board),
                       ("cpu", cpu), ("cores", cores), ("frequency", frequency), ("ram", ram), ("os", system),
                       ("kernel", platform.release), ("python", python), ("mpi", mpi), ("vulkan", vulkan),
                       ("interfaces", interfaces), ("disk", disk), ("idle_temperature", temperature)):
        _note(item, *guarded(work))
    _note("environment", {name: os.environ.get(name) for name in SETTINGS}, None)
    probe["speeds"] = {}
    threads = probe["cores"]["usable"] if probe["cores"] else 1
    missing = ["blas", *KINDS]
    why = "out of time"
    try:
        for answer in isolated(lambda: numbers(threads, deadline), deadline - time.monotonic()):
            _note(*answer)
            missing.remove(answer[0])
    except Lacking as lacking:
        why = str(lacking)
    for item in missing:
        _note(item, None, why)
    answer, died = guarded(lambda: next(isolated(lambda: iter([guarded(opencl)]), 3)))
    value, reason = answer or (None, died)
    if reason:
        value, other = guarded(opencl_listed)
        reason = reason + "; " + other if other else None
    _note("opencl", value, reason)
    _note("temperature", *guarded(temperature))
    _note("throttled", *guarded(throttling))
    probe["reasons"] = reasons
    probe["duration"] = round(time.monotonic() - deadline + limit, 2)
    return probe


if __name__ == "__main__":
    print(json.dumps(measured()), flush=True)

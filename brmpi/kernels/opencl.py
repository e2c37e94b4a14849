"""The OpenCL device of this process: sources compiled once, arrays brought there and back, clear words on what lacks.

``BRMPI_OPENCL`` names a device by a part of its name; without it the first one that is no processor is taken, else the
first processor. Sources are ``kernels/<name>.cl``.
"""

import contextlib
import functools
import os
import re
import warnings
from importlib import resources
from pathlib import Path

import numpy as np

import brmpi
from brmpi.errors import BadInput
from brmpi.kernels import threads

INSTALL = "apt-get install python3-pyopencl pocl-opencl-icd"


class Unavailable(BadInput):
    """OpenCL cannot do what is asked here; the message is the reason."""


class Device:
    """A device with its queue.

    Parameters
    ----------
    device : pyopencl.Device
    """

    def __init__(self, device):
        import pyopencl as cl

        self.cl, self.device, self.name = cl, device, device.name.strip()
        with _told(f"OpenCL device {self.name}"):
            self.context = cl.Context([device])
            self.queue = cl.CommandQueue(self.context)
        self.shares_memory = bool(device.type & cl.device_type.CPU)
        self._programs = {}

    @property
    def has_float64(self):
        """Whether it computes in float64."""
        return bool(self.device.double_fp_config)

    def width(self, dtype):
        """Numbers in one of its vectors: 1, 2, 4, 8 or 16.

        Parameters
        ----------
        dtype : float32 or float64
        """
        kind = "double" if np.dtype(dtype) == np.float64 else "float"
        return max(1, getattr(self.device, f"native_vector_width_{kind}"))

    def program(self, name, **defines):
        """A compiled source.

        Parameters
        ----------
        name : str, of ``kernels/<name>.cl``
        **defines : values of macros

        Returns
        -------
        pyopencl.Program

        Raises
        ------
        Unavailable : it does not compile for this device
        """
        key = (name, *sorted(defines.items()))
        if key not in self._programs:
            options = [f"-D{macro}={value}" for macro, value in defines.items()]
            with _told(f"kernels/{name}.cl on OpenCL device {self.name}"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's remarks
                self._programs[key] = self.cl.Program(self.context, source(name)).build(options, cache_dir=False)
        return self._programs[key]

    def bring(self, array, write=False):
        """An array on the device; where it computes in this memory, the array itself.

        Parameters
        ----------
        array : C-contiguous array
        write : bool, whether kernels write to it; ``take`` it back then

        Returns
        -------
        pyopencl.Buffer, or None for an empty array

        Raises
        ------
        Unavailable : it does not fit
        """
        if array.size == 0:
            return None
        flags = self.cl.mem_flags
        use = flags.USE_HOST_PTR if self.shares_memory else flags.COPY_HOST_PTR
        with _told(f"OpenCL device {self.name}: an array of {array.nbytes:,} bytes"):
            return self.cl.Buffer(self.context, (flags.READ_WRITE if write else flags.READ_ONLY) | use, hostbuf=array)

    def take(self, buffer, array):
        """Bring back what kernels wrote.

        Parameters
        ----------
        buffer : pyopencl.Buffer, from ``bring``
        array : the array that was brought
        """
        with _told(f"OpenCL device {self.name}"):
            if self.shares_memory:  # mapping is what makes it seen here
                mapped, _ = self.cl.enqueue_map_buffer(self.queue, buffer, self.cl.map_flags.READ, 0, array.shape,
                                                       array.dtype)
                mapped.base.release(self.queue)
                self.queue.finish()
            else:
                self.cl.enqueue_copy(self.queue, array, buffer)

    def run(self, kernel, size, group, *arguments):
        """Run a kernel to its end.

        Parameters
        ----------
        kernel : pyopencl.Kernel
        size : tuple of int, work items; rounded up to whole groups
        group : tuple of int or None for the device's own choice
        *arguments : buffers and NumPy scalars
        """
        if group is not None:
            size = tuple(-(-items // of) * of for items, of in zip(size, group))
        with _told(f"OpenCL device {self.name}: {kernel.function_name}"):
            kernel(self.queue, size, group, *arguments)
            self.queue.finish()


@functools.cache
def device():
    """The device that is used here.

    Returns
    -------
    Device

    Raises
    ------
    Unavailable : there is none
    """
    found = devices()
    wanted = os.environ.get("BRMPI_OPENCL", "")
    named = [one for one in found if wanted.lower() in one.name.lower()]
    if not named:
        raise Unavailable(f"BRMPI_OPENCL = {wanted!r}: no OpenCL device has that in its name; there are "
                          + ", ".join(one.name.strip() for one in found))
    import pyopencl as cl

    return Device(min(named, key=lambda one: bool(one.type & cl.device_type.CPU)))


def devices():
    """All devices of this computer.

    Returns
    -------
    list of pyopencl.Device, not empty

    Raises
    ------
    Unavailable : there are none, or no pyopencl
    """
    # as many threads as OpenMP would have here: a rank's cores are not all of the computer's
    os.environ.setdefault("POCL_MAX_PTHREAD_COUNT", str(threads()))
    try:
        import pyopencl as cl
    except ImportError:
        raise Unavailable(f"OpenCL: pyopencl is not installed ({INSTALL})") from None
    found = []
    with contextlib.suppress(cl.Error):  # no platform, or one without devices
        for platform in cl.get_platforms():
            with contextlib.suppress(cl.Error):
                found += platform.get_devices()
    if not found:
        raise Unavailable(f"OpenCL: there is no device here ({INSTALL})")
    return found


def source(name):
    """OpenCL source, from a checkout or from the installed package; lines that include another one are replaced by it.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    root = Path(brmpi.__file__).parent.parent
    folder = root / "kernels" if (root / "setup.cfg").exists() else resources.files("brmpi.kernels.cl")
    text = folder.joinpath(f"{name}.cl").read_text(encoding="utf-8")
    return re.sub(r'^#include "(\w+)\.cl"$', lambda line: source(line[1]), text, flags=re.MULTILINE)


def need_float64(device):
    """Refuse a device that does not compute in float64.

    Parameters
    ----------
    device : Device

    Raises
    ------
    Unavailable
    """
    if not device.has_float64:
        raise Unavailable(f"OpenCL device {device.name} does not compute in float64: take float32, or Numba")


@contextlib.contextmanager
def _told(what):
    """OpenCL's errors in a sentence."""
    import pyopencl as cl

    try:
        yield
    except cl.MemoryError as error:
        raise Unavailable(f"{what}: out of device memory ({_first(error)})") from error
    except cl.Error as error:
        raise Unavailable(f"{what}: {_first(error)}") from error


def _first(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__)

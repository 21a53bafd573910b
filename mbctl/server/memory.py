"""How the process of a server deals with the memory that it frees."""

import ctypes
import sys
from collections.abc import Callable
from typing import cast

from mbctl.model import MIB

# Names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


# What stays with the process: where all is on disk that is kept, what is under way at most times;
# where it is in memory, a backlog that comes and goes too.
_KEPT_BYTES, _KEPT_IN_MEMORY_BYTES = 64 * MIB, 256 * MIB


def unset_memory(size: int) -> bytearray:
    """Memory whose content is whatever was there: to be received into, all of it."""
    return _new_bytearray(None, size)


def _bytearray_maker() -> Callable[[None, int], bytearray]:
    try:
        # Clearing it first costs as much as receiving a third of it.
        make = ctypes.pythonapi.PyByteArray_FromStringAndSize
    except AttributeError:
        return lambda _, size: bytearray(size)
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
    return cast("Callable[[None, int], bytearray]", make)


_new_bytearray = _bytearray_maker()


def keep_freed_memory(*, is_in_memory: bool) -> None:
    """Let memory that is freed be used again, instead of giving it to the system and asking anew.

    glibc gives back large blocks at once. The next frame then is received into pages that the
    system has to make first, which takes ten times as long as to receive it. Some of it stays
    with the process for that. Elsewhere than with glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * MIB)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_IN_MEMORY_BYTES if is_in_memory else _KEPT_BYTES)
    mallopt(_M_TOP_PAD, 4 * MIB)

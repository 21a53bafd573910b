"""The machine that figures were measured on, and what ran there."""

import os
import platform
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("msgspec", "uvloop", "hdrhistogram")


def machine() -> dict[str, str | float]:
    """What to know of this machine and its software to read figures."""
    from mbctl import __version__

    found: dict[str, str | float] = {
        "mbctl": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
    }
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

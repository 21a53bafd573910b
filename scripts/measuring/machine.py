"""The machine that figures were measured on, and how busy it was with other things."""

import os
import platform
from typing import Any


def machine() -> dict[str, Any]:
    """What to know of this machine to read the figures."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }

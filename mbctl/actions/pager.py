"""Long answers through the user's pager: only at a terminal, only if they do not fit.

``PAGER`` says which; empty or ``cat`` means none. Without it, less if it is there.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
_NONE = ("", "cat")


def show_in_pager(written: str) -> bool:
    """Show ``written`` in a pager and return True, if it needs one and there is one."""
    command = _pager()
    if command is None or not sys.stdin or not sys.stdin.isatty() or not _is_tall(written):
        return False
    environment = {"LESS": "-FRX", **os.environ}
    # Ctrl-C is the pager's: it must not end the shell, nor the command half way.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        subprocess.run(
            command, input=written.encode("utf-8", "backslashreplace"), env=environment, check=False
        )
    except OSError:
        # It is not there: show the answer without it.
        return False
    finally:
        signal.signal(signal.SIGINT, handler)
    return True


def _pager() -> list[str] | None:
    if os.environ.get("TERM") in ("dumb", "unknown", None):
        return None
    said = os.environ.get("PAGER")
    if said is None:
        return ["less"] if shutil.which("less") else None
    try:
        return None if said.strip() in _NONE else shlex.split(said)
    except ValueError:
        return None


def _is_tall(written: str) -> bool:
    """Whether the terminal has fewer lines than ``written`` takes, and one for the prompt."""
    size = shutil.get_terminal_size()
    rows = sum(
        1 + max(0, len(_CONTROL.sub("", line)) - 1) // size.columns for line in written.splitlines()
    )
    return rows >= size.lines

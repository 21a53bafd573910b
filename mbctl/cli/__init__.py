"""The command line: parse, act, render."""

import gc
import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run ``mbctl`` with ``args``, or with those of this process; return the exit code."""
    # What importing makes stays: looking through it for garbage takes a tenth of the time
    # that a one-shot needs to start.
    gc.disable()
    try:
        from mbctl.cli.app import run
    except KeyboardInterrupt:
        # Importing takes a noticeable moment, and Ctrl-C there is no reason for a traceback.
        return 130
    gc.enable()
    return run(sys.argv[1:] if args is None else list(args))

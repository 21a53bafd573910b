"""The command line: parse, act, render."""

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run ``mbctl`` with ``args``, or with those of this process; return the exit code."""
    try:
        from mbctl.cli.app import run
    except KeyboardInterrupt:
        # Importing takes a noticeable moment, and Ctrl-C there is no reason for a traceback.
        return 130
    return run(sys.argv[1:] if args is None else list(args))

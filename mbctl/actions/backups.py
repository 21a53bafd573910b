"""What is done with backups of a running server: take one, and show how far it has got."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mbctl.actions import text
from mbctl.actions.output import Output

if TYPE_CHECKING:
    from mbctl import Admin


def backup(admin: "Admin", output: Output, path: str, *, overwrite: bool = False) -> int:
    """Write a backup to ``path``, or to stdout if that is ``-``, and say so; its bytes."""
    with progress_on(output) as progress:
        if path == "-":
            size = admin.backup(sys.stdout.buffer, progress=progress)
        else:
            size = admin.backup(path, overwrite=overwrite, progress=progress)
    sentence = f"wrote a backup of {text.size(size)} to {text.escape(path)}"
    if path == "-":
        output.note(sentence)
    else:
        output.done({"file": path, "bytes": size}, sentence)
    return size


@contextmanager
def progress_on(output: Output) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on the terminal that is told how much is done; None where nobody would see it."""
    # Where nothing can be drawn over, a bar is an empty line and no more.
    can_draw = output.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    if output.quiet or not can_draw:
        yield None
        return
    # Slow to import, and rarely needed.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(file=output.stderr)
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("backup", total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)

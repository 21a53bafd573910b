"""A bar on a terminal that says what is measured now."""

from collections.abc import Iterator
from contextlib import contextmanager

from mbctl.bench.running import Watch


@contextmanager
def progress_bar() -> Iterator[Watch]:
    """A bar on stderr, for as long as the block lasts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def watch(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield watch


def say_nothing(what: str, done: int, total: int) -> None:
    """Show no progress."""

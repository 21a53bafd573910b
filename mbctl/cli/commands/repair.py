"""``mbctl repair``."""

import time
from typing import Annotated

import typer

from mbctl.cli.command import DirectoryCommand, make_app
from mbctl.cli.damage import DataDirectory, directory_at, exit_code_of, nobody, show
from mbctl.cli.options import output_of

app = make_app()


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl repair ./broker
    mbctl repair --accept-loss ./broker
    """,
)
def repair(
    context: typer.Context,
    directory: DataDirectory,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Give up what is damaged, and keep the rest.")
    ] = False,
) -> int:
    """Make a damaged data directory one that a server can serve.

    No server may use the directory. The files that are replaced are kept in its lost+found.

    Without --accept-loss it says what would be given up, changes nothing, and exits 8 if
    there is anything to repair. With it, it exits 0 when the directory is repaired.
    """
    from mbctl.actions.backups import progress_on
    from mbctl.offline import repair as offline

    output = output_of(context)
    place = directory_at(directory)
    with progress_on(output) as progress:
        if accept_loss:
            report = offline.repair(place, progress or nobody, created=time.time_ns())
        else:
            report = offline.verify(place, progress or nobody)
    show(output, report)
    return exit_code_of(report) if not accept_loss else 0

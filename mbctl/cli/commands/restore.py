"""``mbctl restore``."""

from pathlib import Path
from typing import Annotated

import typer

from mbctl.cli.command import DirectoryCommand, make_app
from mbctl.cli.damage import check_path, nobody, show_restored
from mbctl.cli.options import output_of

app = make_app()


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl restore broker.backup ./restored
    """,
)
def restore(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The backup.", show_default=False)],
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="A new or an empty directory.",
            show_default=False,
            callback=check_path,
        ),
    ],
) -> None:
    """Make a data directory of a backup.

    It is checked as mbctl verify does, and appears when all of it is there and on disk. FILE
    and DIR are told apart by which one is a file, so that their order does not matter.
    """
    from mbctl.actions.backups import progress_on
    from mbctl.offline.restore import restore as act

    output = output_of(context)
    backup, target = Path(file), Path(directory)
    if target.is_file() and not backup.is_file():
        backup, target = target, backup
    with progress_on(output) as progress:
        report = act(backup, target, progress or nobody)
    show_restored(output, report)

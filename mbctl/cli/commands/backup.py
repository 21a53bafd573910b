"""``mbctl backup``."""

import sys
from typing import Annotated

import typer

from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl backup broker.backup
    mbctl backup - | gzip > broker.backup.gz
    """,
)
def backup(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Where to write it, or - for stdout.", show_default=False
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE if it is there.")
    ] = False,
) -> None:
    """Write a backup of a running server to a file.

    It has everything that was on the server's disk at one moment. Publishers and subscribers
    go on meanwhile. The file appears when it is complete; mbctl restore makes a data
    directory of it.
    """
    from mbctl.actions import backups

    client = client_of(context)
    if file == "-" and sys.stdout.isatty():
        raise typer.BadParameter("a backup is not written to a terminal.", param_hint="'FILE'")
    with client.admin() as admin:
        backups.backup(admin, client.output, file, overwrite=overwrite)

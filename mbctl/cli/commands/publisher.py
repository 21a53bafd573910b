"""``mbctl publisher``."""

from typing import Annotated

import typer

from mbctl.cli.arguments import Yes
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.shells import Commands, File, KeepGoing, shell_options

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl publisher
    mbctl publisher -c 'createTopic orders' -c 'send orders {"id": 1}'
    """,
)
def publisher(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The publisher's name, a label.")
    ] = None,
    command: Commands = None,
    file: File = None,
    keep_going: KeepGoing = False,
    yes: Yes = False,
) -> int:
    """Open the publisher shell.

    It creates topics and sends messages.

    With -c, -f or piped stdin it runs those commands, prints results only and exits 7 if
    one fails.
    """
    from mbctl.shell import run

    options = shell_options(
        context, name, command=command, file=file, keep_going=keep_going, yes=yes
    )
    return run("publisher", options)

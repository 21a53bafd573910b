"""``mbctl subscriber``."""

from typing import Annotated

import typer

from mbctl.cli.arguments import Yes, complete_subscriber
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.shells import Commands, File, KeepGoing, shell_options

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl subscriber --name billing
    mbctl subscriber --name billing -c 'subscribe orders' -c 'pull orders -n 5'
    """,
)
def subscriber(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="The subscriber's name. Without one nothing is kept when you leave.",
            autocompletion=complete_subscriber,
        ),
    ] = None,
    command: Commands = None,
    file: File = None,
    keep_going: KeepGoing = False,
    yes: Yes = False,
) -> int:
    """Open the subscriber shell.

    It subscribes to topics and pulls messages.

    With -c, -f or piped stdin it runs those commands, prints results only and exits 7 if
    one fails.
    """
    from mbctl.shell import run

    options = shell_options(
        context, name, command=command, file=file, keep_going=keep_going, yes=yes
    )
    return run("subscriber", options)

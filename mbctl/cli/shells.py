"""The two interactive shells and their batch mode: publisher, subscriber."""

from typing import Annotated, Literal

import typer

from mbctl.cli.options import client_of

PUBLISHER_EXAMPLES = """
mbctl publisher
mbctl publisher -c 'createTopic orders' -c 'send orders {"id": 1, "note": "a b"}'
"""

SUBSCRIBER_EXAMPLES = """
mbctl subscriber --name billing
mbctl subscriber --name billing -c 'subscribe orders' -c 'pull orders -n 5'
"""

Commands = Annotated[
    list[str] | None,
    typer.Option("-c", "--command", metavar="COMMAND", help="Run this and leave; repeatable."),
]
File = Annotated[
    str | None,
    typer.Option("-f", "--file", metavar="FILE", help="Run the commands of a file and leave."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Do not stop at the first command that fails.")
]


def publisher(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The publisher's name, a label.")
    ] = None,
    command: Commands = None,
    file: File = None,
    keep_going: KeepGoing = False,
) -> int:
    """Open the publisher shell: create topics, send messages.

    With -c, -f or piped stdin it runs those commands, prints results only and exits 7 if
    one fails.
    """
    return _shell(context, "publisher", name, _Script(command, file, keep_going))


def subscriber(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="The subscriber's name. Without one nothing is kept when you leave.",
        ),
    ] = None,
    command: Commands = None,
    file: File = None,
    keep_going: KeepGoing = False,
) -> int:
    """Open the subscriber shell: subscribe to topics, pull messages.

    With -c, -f or piped stdin it runs those commands, prints results only and exits 7 if
    one fails.
    """
    return _shell(context, "subscriber", name, _Script(command, file, keep_going))

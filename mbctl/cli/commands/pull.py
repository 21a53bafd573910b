"""``mbctl pull``."""

from typing import Annotated

import typer

from mbctl.actions.receiving import PULL_COUNT
from mbctl.cli.arguments import FormatOption, FullOption, Topic, complete_subscriber, make_look
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of, not_negative

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl pull orders --name billing
    mbctl pull orders --name billing -n 100000 -o raw > orders.txt
    mbctl pull orders --name billing --format '%o %k %p\\n'
    mbctl pull orders --name audit --min 1 --wait 10 -o json
    """,
)
def pull(
    context: typer.Context,
    topic: Topic,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="SUBSCRIBER",
            help="The subscriber's name.",
            autocompletion=complete_subscriber,
        ),
    ],
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            metavar="MAX",
            min=1,
            help=f"Stop after this many messages. Default: {PULL_COUNT}, or --min if more.",
            show_default=False,
        ),
    ] = None,
    minimum: Annotated[
        int,
        typer.Option("--min", metavar="N", min=0, help="Wait for this many, else exit 6."),
    ] = 0,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            callback=not_negative,
            help="How long to wait for a first message, or for --min. Default: not at all,"
            " or as long as --timeout with --min.",
            show_default=False,
        ),
    ] = None,
    no_ack: Annotated[
        bool, typer.Option("--no-ack", help="Look only: the messages will be delivered again.")
    ] = False,
    template: FormatOption = None,
    full: FullOption = False,
) -> None:
    """Print unread messages and acknowledge them.

    Goes on until MAX messages or nothing is left. A message is acknowledged after it was
    written to stdout.
    """
    from mbctl.actions import receiving

    if count is not None and minimum > count:
        raise typer.BadParameter(f"--min {minimum} is more than -n {count}.")
    look = make_look(template, full)
    client = client_of(context)
    if wait is None:
        wait = client.options.timeout if minimum else 0.0
    with client.subscriber(name) as subscriber:
        receiving.pull(
            subscriber,
            client.output,
            topic,
            count=count,
            minimum=minimum,
            wait=wait,
            ack=not no_ack,
            look=look,
        )

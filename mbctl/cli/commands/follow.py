"""``mbctl follow``."""

from typing import Annotated

import typer

from mbctl.cli.arguments import (
    FormatOption,
    FromOption,
    FullOption,
    check_names,
    complete_subscriber,
    complete_topic,
    make_look,
    parse_start,
)
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl follow orders
    mbctl follow orders --rate
    mbctl follow orders packages --name billing -o jsonl
    """,
)
def follow(
    context: typer.Context,
    topics: Annotated[
        list[str],
        typer.Argument(
            metavar="TOPIC...",
            help="The topics.",
            show_default=False,
            callback=check_names,
            autocompletion=complete_topic,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="SUBSCRIBER",
            help="A durable subscriber's name. Without one nothing is kept when you stop.",
            autocompletion=complete_subscriber,
        ),
    ] = None,
    start: FromOption = None,
    template: FormatOption = None,
    full: FullOption = False,
    rate: Annotated[
        bool, typer.Option("--rate", help="Print how many come each second, not what they are.")
    ] = False,
) -> None:
    """Print messages as they come, until Ctrl-C.

    Subscribes if need be. A message is acknowledged after it was written to stdout.
    """
    from mbctl.actions import receiving

    begin = parse_start(start)
    look = make_look(template, full)
    if rate and (full or template is not None):
        raise typer.BadParameter("--rate goes with neither --format nor --full.")
    client = client_of(context)
    with client.subscriber(name) as subscriber:
        if rate:
            receiving.follow_rate(subscriber, client.output, topics, start=begin, subscribe=True)
        else:
            receiving.follow(
                subscriber, client.output, topics, start=begin, subscribe=True, look=look
            )

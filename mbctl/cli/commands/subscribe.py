"""``mbctl subscribe``."""

from typing import Annotated

import typer

from mbctl.cli.arguments import FromOption, Topic, parse_start
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import above_zero, client_of
from mbctl.model import ACK_WAIT_MAX_S

AckWait = Annotated[
    float,
    typer.Option(
        "--ack-wait",
        metavar="SECONDS",
        max=ACK_WAIT_MAX_S,
        callback=above_zero,
        help="How long a message may go unacknowledged before it is delivered again.",
    ),
]


app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl subscribe orders --name billing
    mbctl subscribe orders --name audit --from earliest
    """,
)
def subscribe(
    context: typer.Context,
    topic: Topic,
    name: Annotated[
        str, typer.Option("--name", metavar="SUBSCRIBER", help="The subscriber's name.")
    ],
    start: FromOption = None,
    ack_wait: AckWait = 30.0,
) -> None:
    """Subscribe a named subscriber to a topic.

    From then on the topic keeps every message until this subscriber has acknowledged it.
    Subscribing again keeps the place.
    """
    from mbctl.actions import receiving

    begin = parse_start(start)
    client = client_of(context)
    with client.subscriber(name) as subscriber:
        receiving.subscribe(subscriber, client.output, topic, start=begin, ack_wait=ack_wait)

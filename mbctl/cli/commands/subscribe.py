"""``mbctl subscribe``."""

from typing import Annotated

import typer

from mbctl.cli.arguments import (
    FromOption,
    Topic,
    check_maybe_name,
    complete_subscriber,
    complete_topic,
    parse_start,
)
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import above_zero, client_of
from mbctl.model import ACK_WAIT_MAX_S, DELIVERIES_MAX, SubscribeOptions

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
    mbctl subscribe orders --name reports --from 2h --ack-wait 120
    mbctl subscribe orders --name audit --max-deliveries 5 --dead-letter packages
    """,
)
def subscribe(
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
    start: FromOption = None,
    ack_wait: AckWait = 30.0,
    max_deliveries: Annotated[
        int | None,
        typer.Option(
            "--max-deliveries",
            metavar="N",
            min=1,
            max=DELIVERIES_MAX,
            help="Give a message up after this many deliveries. Default: never.",
            show_default=False,
        ),
    ] = None,
    dead_letter: Annotated[
        str | None,
        typer.Option(
            "--dead-letter",
            metavar="TOPIC",
            callback=check_maybe_name,
            autocompletion=complete_topic,
            help="The topic that takes what is given up. Without it that is parked.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Subscribe a named subscriber to a topic.

    From then on the topic keeps every message until this subscriber has acknowledged it.
    Subscribing again keeps the place and takes the options given.
    """
    from mbctl.actions import receiving

    if dead_letter is not None and max_deliveries is None:
        raise typer.BadParameter("it needs --max-deliveries.", param_hint="'--dead-letter'")
    options = SubscribeOptions(
        start=parse_start(start),
        ack_wait=ack_wait,
        max_deliveries=max_deliveries,
        dead_letter=dead_letter,
    )
    client = client_of(context)
    with client.subscriber(name) as subscriber:
        receiving.subscribe(subscriber, client.output, topic, options)

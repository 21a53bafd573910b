"""Commands that move messages: send, subscribe, pull, follow."""

import os
import sys
from typing import Annotated, BinaryIO

import typer

from mbctl.actions.receiving import PULL_COUNT
from mbctl.cli.arguments import FromOption, Topic, parse_headers, parse_start
from mbctl.cli.options import above_zero, client_of, not_negative
from mbctl.model import ACK_WAIT_MAX_S, LIMITS

SEND_EXAMPLES = """
mbctl send orders '{"id": 1}' --create
mbctl send orders 'with a key' --key customer-7 -H type=new
mbctl send orders --lines < lines.txt
"""

SUBSCRIBE_EXAMPLES = """
mbctl subscribe orders --name billing
mbctl subscribe orders --name audit --from earliest
"""

PULL_EXAMPLES = """
mbctl pull orders --name billing
mbctl pull orders --name billing -n 100000 -o raw > orders.txt
mbctl pull orders --name audit --min 1 --wait 10 -o json
"""

FOLLOW_EXAMPLES = """
mbctl follow orders
mbctl follow orders packages --name billing -o jsonl
"""

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


def send(
    context: typer.Context,
    topic: Topic,
    message: Annotated[
        str | None,
        typer.Argument(
            metavar="[MESSAGE]", help="The message; - takes all of stdin.", show_default=False
        ),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Send each line of stdin as a message.")
    ] = False,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="A key.")] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("-H", "--header", metavar="NAME=VALUE", help="A header; repeatable."),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the topic if it is not there.")
    ] = False,
) -> None:
    """Send one message, or each line of stdin.

    Returns when the server has stored it. Stdin is read only for - and --lines.
    """
    from mbctl.actions import sending
    from mbctl.actions.topics import ensure_topic

    headers = parse_headers(header or [])
    if lines and (message is not None or key is not None or headers):
        raise typer.BadParameter("--lines goes with neither MESSAGE nor --key nor -H.")
    if not lines and message is None:
        raise typer.BadParameter("say what to send: a MESSAGE, - for stdin, or --lines.")
    client = client_of(context)
    # Read before connecting: a server should not wait for a slow stdin.
    payload = _payload(message) if message is not None else b""
    with client.publisher() as publisher:
        if create:
            ensure_topic(publisher, topic)
        if lines:
            sending.send_lines(publisher, client.output, topic, _stdin())
            return
        coded = None if key is None else os.fsencode(key)
        sending.send(publisher, client.output, topic, payload, key=coded, headers=headers)


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


def pull(
    context: typer.Context,
    topic: Topic,
    name: Annotated[
        str, typer.Option("--name", metavar="SUBSCRIBER", help="The subscriber's name.")
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
) -> None:
    """Print the messages that a subscriber has not read, and acknowledge them.

    Goes on until MAX messages or nothing is left. A message is acknowledged after it was
    written to stdout.
    """
    from mbctl.actions import receiving

    if count is not None and minimum > count:
        raise typer.BadParameter(f"--min {minimum} is more than -n {count}.")
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
        )


def follow(
    context: typer.Context,
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC...", help="The topics.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="SUBSCRIBER",
            help="A durable subscriber's name. Without one nothing is kept when you stop.",
        ),
    ] = None,
    start: FromOption = None,
) -> None:
    """Print messages as they come, until Ctrl-C.

    Subscribes if need be. A message is acknowledged after it was written to stdout.
    """
    from mbctl.actions import receiving

    begin = parse_start(start)
    client = client_of(context)
    with client.subscriber(name) as subscriber:
        receiving.follow(subscriber, client.output, topics, start=begin)


def _payload(message: str) -> bytes:
    if message != "-":
        # Exactly the bytes that stood on the command line.
        return os.fsencode(message)
    # No message is larger than a frame, so more need not be read to be refused.
    return _stdin().read(LIMITS.frame_bytes + 1)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise typer.BadParameter("there is no stdin to read.")
    return sys.stdin.buffer

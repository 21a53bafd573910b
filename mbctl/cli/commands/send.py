"""``mbctl send``."""

import os
import sys
from typing import Annotated, BinaryIO

import typer

from mbctl.cli.arguments import Topic, parse_headers
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl send orders '{"id": 1}' --create
    mbctl send orders 'with a key' --key customer-7 -H type=new
    mbctl send orders --lines < lines.txt
    gzip -c lines.txt | mbctl send orders -
    """,
)
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
    with client.publisher() as publisher:
        if create:
            ensure_topic(publisher, topic)
        if message is None:
            sending.send_lines(publisher, client.output, topic, _stdin())
            return
        sending.send(
            publisher,
            client.output,
            topic,
            _payload(message, publisher.limits.message_bytes),
            key=None if key is None else os.fsencode(key),
            headers=headers,
        )


def _payload(message: str, size_max: int) -> bytes:
    if message != "-":
        # Exactly the bytes that stood on the command line.
        return os.fsencode(message)
    # One byte above the limit is enough to be refused, whatever else stdin holds.
    return _stdin().read(size_max + 1)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise typer.BadParameter("there is no stdin to read.")
    return sys.stdin.buffer

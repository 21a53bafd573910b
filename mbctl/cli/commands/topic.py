"""``mbctl topic``: create, list, show, why, delete."""

import sys
from typing import Annotated

import typer

from mbctl.actions import text
from mbctl.cli.arguments import MaxMessages, Topic, parse_size
from mbctl.cli.command import ClientCommand, Group, make_app
from mbctl.cli.options import Client, client_of

app = make_app(cls=Group, help="Create, look at and delete topics.")


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl topic create orders
    mbctl topic create recent --max-messages 100000 --max-bytes 64M
    """,
)
def create(
    context: typer.Context,
    topic: Topic,
    max_messages: MaxMessages = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes",
            metavar="SIZE",
            parser=parse_size,
            help="Refuse sends above this size of unread messages, such as 64M.",
        ),
    ] = None,
) -> None:
    """Create a topic.

    It is no error if the topic is there with the same settings.
    """
    from mbctl.actions import topics

    client = client_of(context)
    with client.publisher() as publisher:
        topics.create_topic(
            publisher, client.output, topic, max_messages=max_messages, max_bytes=max_bytes
        )


@app.command("list", cls=ClientCommand, epilog="mbctl topic list")
def list_(context: typer.Context) -> None:
    """List all topics."""
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        topics.list_topics(admin, client.output)


@app.command(cls=ClientCommand, epilog="mbctl topic show orders")
def show(context: typer.Context, topic: Topic) -> None:
    """Show one topic with its settings."""
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        topics.show_topic(admin, client.output, topic)


@app.command(cls=ClientCommand, epilog="mbctl topic why orders")
def why(context: typer.Context, topic: Topic) -> None:
    """Say which subscription keeps messages of a topic alive.

    A message is kept until every durable subscription has acknowledged it.
    """
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        topics.why_topic(admin, client.output, topic)


@app.command(cls=ClientCommand, epilog="mbctl topic delete orders --yes")
def delete(
    context: typer.Context,
    topic: Topic,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete a topic with its messages and subscriptions.

    Asks first, on a terminal.
    """
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        if not yes and sys.stdin.isatty() and client.output.terminal:
            info = admin.topic(topic)
            what = (
                f"delete topic {topic} with {text.counted(info.messages, 'message')}"
                f" and {text.counted(info.subscriptions, 'subscription')}?"
            )
            if not confirm(client, what):
                return 1
        topics.delete_topic(admin, client.output, topic)
    return 0


def confirm(client: Client, question: str) -> bool:
    """Ask on the terminal; anything but yes leaves everything as it is and says so."""
    if typer.confirm(question, err=True):
        return True
    client.output.note("nothing was deleted")
    return False

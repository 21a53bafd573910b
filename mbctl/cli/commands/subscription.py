"""``mbctl subscription``: list, show, delete."""

import sys
from typing import Annotated

import typer

from mbctl.actions import text
from mbctl.cli.arguments import Topic, check_maybe_name, complete_topic
from mbctl.cli.command import ClientCommand, Group, make_app
from mbctl.cli.commands.topic import confirm
from mbctl.cli.options import client_of
from mbctl.model import check_name

app = make_app(cls=Group, help="Look at and delete subscriptions.")


def check_subscriber(name: str) -> str:
    """Check the label of a subscriber; an ephemeral one has ``~`` before its digits."""
    check_name(name.removeprefix("~"))
    return name


SubscriberArgument = Annotated[
    str,
    typer.Argument(
        metavar="SUBSCRIBER",
        help="The subscriber's name.",
        show_default=False,
        callback=check_subscriber,
    ),
]


@app.command(
    "list",
    cls=ClientCommand,
    epilog="""
    mbctl subscription list
    mbctl subscription list orders -o json
    """,
)
def list_(
    context: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]",
            help="Only those of this topic.",
            show_default=False,
            callback=check_maybe_name,
            autocompletion=complete_topic,
        ),
    ] = None,
) -> None:
    """List subscriptions of one topic, or of all.

    The last pull of each shows which have been abandoned.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        subscriptions.list_subscriptions(admin, client.output, topic)


@app.command(cls=ClientCommand, epilog="mbctl subscription show orders billing")
def show(context: typer.Context, topic: Topic, subscriber: SubscriberArgument) -> None:
    """Show one subscription.

    Everything below its cursor is acknowledged; leased messages are with a subscriber.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        subscriptions.show_subscription(admin, client.output, topic, subscriber)


@app.command(cls=ClientCommand, epilog="mbctl subscription delete orders billing --yes")
def delete(
    context: typer.Context,
    topic: Topic,
    subscriber: SubscriberArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete a subscription.

    What only it had not read is reclaimed. Asks first, on a terminal.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        if not yes and sys.stdin.isatty() and client.output.terminal:
            info = admin.subscription(topic, subscriber)
            unread = text.counted(info.unread, "unread message")
            question = f"delete the subscription of {subscriber} to {topic} with {unread}?"
            if not confirm(client, question):
                return 1
        subscriptions.delete_subscription(admin, client.output, topic, subscriber)
    return 0

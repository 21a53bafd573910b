"""``mbctl subscription``: list, show, seek, release, drop, delete."""

from typing import Annotated

import typer

from mbctl.actions import places, text
from mbctl.cli.arguments import (
    Topic,
    Yes,
    check_maybe_name,
    complete_subscriber,
    complete_topic,
    parse_place,
)
from mbctl.cli.command import ClientCommand, Group, make_app
from mbctl.cli.commands.topic import confirm, must_ask
from mbctl.cli.options import client_of
from mbctl.model import check_name

app = make_app(cls=Group, help="Look at, move and delete subscriptions.")


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
        autocompletion=complete_subscriber,
    ),
]


Offsets = Annotated[
    list[int] | None,
    typer.Option(
        "--offset",
        metavar="N",
        min=0,
        help="Only the message at this offset; may be given several times. Default: all.",
        show_default=False,
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

    Everything below its cursor is acknowledged; leased messages are with a subscriber. What
    needs somebody to act is said in words.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        subscriptions.show_subscription(admin, client.output, topic, subscriber)


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl subscription seek orders billing --to earliest
    mbctl subscription seek orders billing --to 2026-01-02T03:04:05Z
    """,
)
def seek(
    context: typer.Context,
    topic: Topic,
    subscriber: SubscriberArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar=places.PLACES,
            help="The next message to read; TIME is 2026-01-02T03:04:05Z, or 2h for two hours ago.",
        ),
    ],
) -> None:
    """Move a subscription, back or forward.

    Back, messages count as unread again, as far as they are still kept. Forward, what is
    passed over counts as acknowledged. Messages that a process has at the moment are taken
    from it.
    """
    from mbctl.actions import subscriptions

    start = parse_place(to, "--to")
    client = client_of(context)
    with client.admin() as admin:
        subscriptions.seek_subscription(admin, client.output, topic, subscriber, start)


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl subscription release orders billing
    mbctl subscription release orders billing --offset 3 --offset 7
    """,
)
def release(
    context: typer.Context,
    topic: Topic,
    subscriber: SubscriberArgument,
    offsets: Offsets = None,
) -> None:
    """Let parked messages be delivered again.

    A message is parked when it was delivered --max-deliveries times and not acknowledged, and
    there is no dead-letter topic that takes it.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        subscriptions.release_parked(admin, client.output, topic, subscriber, offsets or None)


@app.command(cls=ClientCommand, epilog="mbctl subscription drop orders billing --yes")
def drop(
    context: typer.Context,
    topic: Topic,
    subscriber: SubscriberArgument,
    offsets: Offsets = None,
    yes: Yes = False,
) -> int:
    """Give parked messages up for one subscription.

    They count as acknowledged. Asks first, on a terminal.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        if must_ask(client, yes):
            parked = admin.subscription(topic, subscriber).parked
            what = text.counted(min(parked, len(offsets or range(parked))), "parked message")
            if not confirm(client, f"give up {what} of {subscriber} in {topic}?", subscriber):
                return 1
        subscriptions.drop_parked(admin, client.output, topic, subscriber, offsets or None)
    return 0


@app.command(cls=ClientCommand, epilog="mbctl subscription delete orders billing --yes")
def delete(
    context: typer.Context, topic: Topic, subscriber: SubscriberArgument, yes: Yes = False
) -> int:
    """Delete a subscription.

    What only it had not read is reclaimed. Asks first, on a terminal.
    """
    from mbctl.actions import subscriptions

    client = client_of(context)
    with client.admin() as admin:
        if must_ask(client, yes):
            info = admin.subscription(topic, subscriber)
            unread = text.amount(info.unread, info.unread_batches, "unread")
            question = f"delete the subscription of {subscriber} to {topic} with {unread}?"
            if not confirm(client, question, subscriber):
                return 1
        subscriptions.delete_subscription(admin, client.output, topic, subscriber)
    return 0

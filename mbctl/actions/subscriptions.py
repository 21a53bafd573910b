"""What is done with subscriptions from outside: list, show, delete."""

from typing import TYPE_CHECKING

import msgspec

from mbctl.actions import text
from mbctl.actions.output import Column, Output

if TYPE_CHECKING:
    from mbctl import Admin

LIST_COLUMNS = (
    Column("topic", "TOPIC"),
    Column("subscriber", "SUBSCRIBER"),
    Column("durable", "DURABLE"),
    Column("cursor", "CURSOR", "number"),
    Column("unread", "UNREAD", "count"),
    Column("leased", "LEASED", "count"),
    Column("last_pull", "LAST PULL", "ago"),
)

SHOW_COLUMNS = (
    Column("topic", "Topic"),
    Column("subscriber", "Subscriber"),
    Column("durable", "Durable"),
    Column("cursor", "Cursor", "number"),
    Column("unread", "Unread", "count"),
    Column("leased", "Leased", "count"),
    Column("redeliver", "To redeliver", "count"),
    Column("lost", "Lost", "count"),
    Column("ranges", "Ranges", "count"),
    Column("waiting_pulls", "Waiting pulls", "count"),
    Column("ack_wait", "Ack wait", "seconds"),
    Column("created", "Created", "time"),
    Column("last_pull", "Last pull", "ago"),
)


def list_subscriptions(admin: "Admin", output: Output, topic: str | None = None) -> None:
    """Show the subscriptions of one topic, or of all."""
    rows = [msgspec.structs.asdict(info) for info in admin.subscriptions(topic)]
    where = f" of topic {text.escape(topic)}" if topic is not None else ""
    output.rows(LIST_COLUMNS, rows, empty=f"no subscriptions{where}")


def show_subscription(admin: "Admin", output: Output, topic: str, subscriber: str) -> None:
    """Show one subscription."""
    info = admin.subscription(topic, subscriber)
    output.record(SHOW_COLUMNS, msgspec.structs.asdict(info))


def delete_subscription(admin: "Admin", output: Output, topic: str, subscriber: str) -> None:
    """Delete a subscription, which gives up what it has not read, and say so."""
    admin.delete_subscription(topic, subscriber)
    output.done(
        {"topic": topic, "subscriber": subscriber, "deleted": True},
        f"deleted the subscription of {text.escape(subscriber)} to {text.escape(topic)}",
    )

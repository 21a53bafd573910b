"""What is done with subscriptions from outside: list, show, seek, release, drop, delete."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions import text
from mbctl.actions.output import Column, Output, told
from mbctl.actions.receiving import show_sought
from mbctl.model import Range, Start

if TYPE_CHECKING:
    from mbctl import Admin
    from mbctl.model import SubscriptionInfo

LIST_COLUMNS = (
    Column("topic", "TOPIC"),
    Column("subscriber", "SUBSCRIBER"),
    Column("durable", "DURABLE"),
    Column("cursor", "CURSOR", "number"),
    Column("unread", "UNREAD", "count"),
    Column("unread_batches", "UNREAD BATCHES", "count"),
    Column("leased", "LEASED", "count"),
    Column("last_pull", "LAST PULL", "ago"),
)

SHOW_COLUMNS = (
    Column("topic", "Topic"),
    Column("subscriber", "Subscriber"),
    Column("durable", "Durable"),
    Column("cursor", "Cursor", "number"),
    Column("unread", "Unread", "count"),
    Column("unread_batches", "Unread batches", "count"),
    Column("leased", "Leased", "count"),
    Column("redeliver", "To redeliver", "count"),
    Column("parked", "Parked", "count"),
    Column("dropped", "Dropped", "count"),
    Column("expired", "Expired", "count"),
    Column("lost", "Lost", "count"),
    Column("ranges", "Ranges", "count"),
    Column("waiting_pulls", "Waiting pulls", "count"),
    Column("ack_wait", "Ack wait", "seconds"),
    Column("max_deliveries", "Deliveries at most", "count"),
    Column("dead_letter", "Dead letters to"),
    Column("created", "Created", "time"),
    Column("last_pull", "Last pull", "ago"),
)


def list_subscriptions(admin: "Admin", output: Output, topic: str | None = None) -> None:
    """Show the subscriptions of one topic, or of all."""
    where = f" of topic {text.escape(topic)}" if topic is not None else ""
    show_subscriptions(admin.subscriptions(topic), output, f"no subscriptions{where}")


def show_subscriptions(infos: "list[SubscriptionInfo]", output: Output, empty: str) -> None:
    """Show what subscriptions there are, or say that it is ``empty``."""
    # Only JSON has all values, and no column that says that this one is a time.
    rows = [
        {**msgspec.structs.asdict(info), "created": text.rfc3339(info.created)} for info in infos
    ]
    output.rows(told(LIST_COLUMNS, rows, "unread_batches"), rows, empty=empty)


def show_subscription(admin: "Admin", output: Output, topic: str, subscriber: str) -> None:
    """Show one subscription, and say what somebody should do about it."""
    info = admin.subscription(topic, subscriber)
    row = msgspec.structs.asdict(info)
    output.record(told(SHOW_COLUMNS, [row], "unread", "unread_batches", "dropped", "expired"), row)
    for sentence in advice(info):
        output.note(sentence)


def advice(info: "SubscriptionInfo") -> list[str]:
    """What is out of the ordinary with a subscription, and what can be done, in sentences."""
    of = f"{text.escape(info.topic)} {text.escape(info.subscriber)}"
    sentences = []
    if info.parked:
        verb = "is" if info.parked == 1 else "are"
        sentences.append(
            f"{text.counted(info.parked, 'message')} {verb} parked, delivered as often as may be:"
            f" {_ranges_text(info.parked_ranges, info.parked)}; deliver again with:"
            f" mbctl subscription release {of}, or give up with: mbctl subscription drop {of}"
        )
    if info.dropped:
        sentences.append(
            f"{text.counted(info.dropped, 'unread message')} fell to the bounds of the topic;"
            f" see them with: mbctl topic show {text.escape(info.topic)}"
        )
    if info.expired:
        sentences.append(
            f"{text.counted(info.expired, 'unread message')} fell to the topic's max_age;"
            f" see it with: mbctl topic show {text.escape(info.topic)}"
        )
    if info.at_limit:
        sentences.append(
            f"it holds {text.counted(info.ranges, 'range')}, which is the most: no new message is"
            " delivered until the oldest open ones are acknowledged"
        )
    return sentences


def _ranges_text(ranges: Sequence[Range], count: int) -> str:
    """Offsets as ``#3, #7 to #9``, and a sign that there are more."""
    shown = [
        f"#{first}" if next == first + 1 else f"#{first} to #{next - 1}" for first, next in ranges
    ]
    if sum(next - first for first, next in ranges) < count:
        shown.append("…")
    return ", ".join(shown)


def seek_subscription(
    admin: "Admin", output: Output, topic: str, subscriber: str, start: Start
) -> None:
    """Move a subscription and show where it stands."""
    show_sought(output, admin.seek(topic, subscriber, start))


def release_parked(
    admin: "Admin", output: Output, topic: str, subscriber: str, offsets: Sequence[int] | None
) -> None:
    """Let parked messages be delivered again, and say how many."""
    count = admin.release(topic, subscriber, offsets)
    output.done(
        {"topic": topic, "subscriber": subscriber, "released": count},
        f"{text.counted(count, 'message')} will be delivered to {text.escape(subscriber)} again",
    )


def drop_parked(
    admin: "Admin", output: Output, topic: str, subscriber: str, offsets: Sequence[int] | None
) -> None:
    """Give parked messages up for a subscription, and say how many."""
    count = admin.drop(topic, subscriber, offsets)
    output.done(
        {"topic": topic, "subscriber": subscriber, "dropped": count},
        f"gave up {text.counted(count, 'message')} for {text.escape(subscriber)}",
    )


def delete_subscription(admin: "Admin", output: Output, topic: str, subscriber: str) -> None:
    """Delete a subscription, which gives up what it has not read, and say so."""
    admin.delete_subscription(topic, subscriber)
    output.done(
        {"topic": topic, "subscriber": subscriber, "deleted": True},
        f"deleted the subscription of {text.escape(subscriber)} to {text.escape(topic)}",
    )

"""What is done with topics: create, list, show, why, delete."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from mbctl.actions import text
from mbctl.actions.output import Column, Output
from mbctl.errors import TopicExists

if TYPE_CHECKING:
    from mbctl import Admin, Publisher
    from mbctl.model import TopicHolds, TopicInfo

LIST_COLUMNS = (
    Column("topic", "TOPIC"),
    Column("messages", "MESSAGES", "count"),
    Column("bytes", "SIZE", "size"),
    Column("first_offset", "FIRST", "number"),
    Column("next_offset", "NEXT", "number"),
    Column("subscriptions", "SUBSCRIPTIONS", "count"),
)

SHOW_COLUMNS = (
    Column("topic", "Topic"),
    Column("messages", "Messages", "count"),
    Column("bytes", "Size", "size"),
    Column("first_offset", "First offset", "number"),
    Column("next_offset", "Next offset", "number"),
    Column("subscriptions", "Subscriptions", "count"),
    Column("max_messages", "Messages at most", "count"),
    Column("max_bytes", "Size at most", "size"),
    Column("durability", "Durability"),
    Column("topic_id", "Topic id", "number"),
    Column("created", "Created", "time"),
)

HOLD_COLUMNS = (
    Column("subscriber", "SUBSCRIBER"),
    Column("cursor", "CURSOR", "number"),
    Column("messages", "KEEPS", "count"),
    Column("bytes", "SIZE", "size"),
    Column("since", "LAST MOVED", "ago"),
    Column("last_pull", "LAST PULL", "ago"),
)


def create_topic(
    client: "Publisher | Admin",
    output: Output,
    topic: str,
    *,
    max_messages: int | None = None,
    max_bytes: int | None = None,
) -> bool:
    """Create a topic and say so; True if it was not there.

    Raises:
        TopicExists: it is there with other settings.
    """
    created = client.create_topic(topic, max_messages=max_messages, max_bytes=max_bytes)
    what = "created topic" if created else "there is already a topic"
    output.done({"topic": topic, "created": created}, f"{what} {text.escape(topic)}")
    return created


def ensure_topic(publisher: "Publisher", topic: str) -> None:
    """Create a topic unless it is there, with whatever settings."""
    with suppress(TopicExists):
        publisher.create_topic(topic)


def delete_topic(client: "Publisher | Admin", output: Output, topic: str) -> None:
    """Delete a topic with its messages and subscriptions, and say so."""
    client.delete_topic(topic)
    output.done({"topic": topic, "deleted": True}, f"deleted topic {text.escape(topic)}")


def list_topics(admin: "Admin", output: Output) -> None:
    """Show all topics."""
    rows = [_listed(info) for info in admin.topics()]
    output.rows(LIST_COLUMNS, rows, empty="no topics; create one with: mbctl topic create NAME")


def show_topic(admin: "Admin", output: Output, topic: str) -> None:
    """Show one topic with its settings."""
    info = admin.topic(topic)
    row = {
        **_listed(info),
        "max_messages": info.settings.max_messages,
        "max_bytes": info.settings.max_bytes,
        "durability": info.durability,
        "topic_id": info.topic_id,
        "created": info.created,
    }
    output.record(SHOW_COLUMNS, row)


def why_topic(admin: "Admin", output: Output, topic: str) -> None:
    """Show which subscriptions keep messages of a topic alive, the one furthest behind first."""
    holds = admin.why(topic)
    rows = [msgspec.structs.asdict(hold) for hold in holds.holds]
    if output.as_json:
        for row in rows:
            row["since"] = text.rfc3339(row["since"])
            row["last_pull"] = text.rfc3339(row["last_pull"]) if row["last_pull"] else None
        output.record((), {**msgspec.structs.asdict(holds), "holds": rows})
        return
    output.note(explanation(holds))
    output.rows(HOLD_COLUMNS, rows)


def explanation(holds: "TopicHolds") -> str:
    """In one sentence, why a topic keeps what it keeps."""
    name = text.escape(holds.topic)
    if not holds.messages:
        return f"{name} keeps nothing"
    kept = f"{name} keeps {text.counted(holds.messages, 'message')} ({text.size(holds.bytes)})"
    if not holds.holds:
        return f"{kept} because it has no subscription, and without one nothing is reclaimed"
    slowest = holds.holds[0]
    unread = text.counted(slowest.messages, "message")
    return f"{kept} because {text.escape(slowest.subscriber)} has not acknowledged {unread}"


def _listed(info: "TopicInfo") -> dict[str, Any]:
    return {column.name: getattr(info, column.name) for column in LIST_COLUMNS}

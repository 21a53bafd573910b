"""What is done with topics: create, list, show, why, read, purge, delete."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from mbctl.actions import text
from mbctl.actions.output import Column, Output, told
from mbctl.actions.places import age_text
from mbctl.errors import TopicExists
from mbctl.model import Start, TopicSettings, check_settings

if TYPE_CHECKING:
    from mbctl import Admin, Publisher
    from mbctl.actions.messages import Look
    from mbctl.model import TopicHolds, TopicInfo

READ_COUNT = 10
"""Messages of a read that does not say how many: a look, as for a pull."""

SETTINGS = ("max-messages", "max-bytes", "max-age", "retain-age", "retain-bytes", "when-full")
"""The settings of a topic, as the options of ``topic create`` are called."""

# Messages asked for at a time: each may be as large as messages get.
_READ_CHUNK = 200

LIST_COLUMNS = (
    Column("topic", "TOPIC"),
    Column("messages", "MESSAGES", "count"),
    Column("batches", "BATCHES", "count"),
    Column("bytes", "SIZE", "size"),
    Column("first_offset", "FIRST", "number"),
    Column("next_offset", "NEXT", "number"),
    Column("subscriptions", "SUBSCRIPTIONS", "count"),
)

SHOW_COLUMNS = (
    Column("topic", "Topic"),
    Column("messages", "Messages", "count"),
    Column("batches", "Batches", "count"),
    Column("bytes", "Size", "size"),
    Column("first_offset", "First offset", "number"),
    Column("next_offset", "Next offset", "number"),
    Column("subscriptions", "Subscriptions", "count"),
    Column("max_messages", "Messages at most", "count"),
    Column("max_bytes", "Size at most", "size"),
    Column("max_age", "Age at most", "age"),
    Column("retain_age", "Kept when read", "age"),
    Column("retain_bytes", "Size kept when read", "size"),
    Column("when_full", "When full"),
    Column("durability", "Durability"),
    Column("note", "That is"),
    Column("topic_id", "Topic id", "number"),
    Column("created", "Created", "time"),
)

HOLD_COLUMNS = (
    Column("subscriber", "SUBSCRIBER"),
    Column("cursor", "CURSOR", "number"),
    Column("messages", "KEEPS", "count"),
    Column("batches", "BATCHES", "count"),
    Column("bytes", "SIZE", "size"),
    Column("since", "LAST MOVED", "ago"),
    Column("last_pull", "LAST PULL", "ago"),
)


def create_topic(
    client: "Publisher | Admin",
    output: Output,
    topic: str,
    settings: TopicSettings,
) -> bool:
    """Create a topic and say so; True if it was not there.

    Raises:
        TopicExists: it is there with other settings.
        InvalidArgument: a setting makes no sense, or is above what a request can carry.
    """
    check_settings(settings)
    created = client.create_topic(topic, **msgspec.structs.asdict(settings))
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


def purge_topic(admin: "Admin", output: Output, topic: str) -> None:
    """Give up all messages of a topic, and say so."""
    count = admin.purge_topic(topic)
    what = f"{text.counted(count, 'message')} of {text.escape(topic)}"
    output.done({"topic": topic, "purged": count}, f"gave up {what}")


def read_topic(
    admin: "Admin",
    output: Output,
    topic: str,
    *,
    start: Start = "earliest",
    count: int,
    look: "Look | None" = None,
) -> int:
    """Show messages from ``start`` on, without a subscription, until there are ``count``.

    Ends at the end of the topic; returns how many it showed.
    """
    shown = 0
    with output.messages(look) as writer:
        while shown < count:
            peeked = admin.peek(topic, start, min(count - shown, _READ_CHUNK))
            if peeked.skipped:
                gone = text.counted(peeked.skipped, "message")
                output.note(f"{gone} of {text.escape(topic)} were gone before these")
            if not peeked:
                break
            writer.write(peeked)
            writer.flush()
            shown += len(peeked)
            start = peeked.next_offset
    return shown


def list_topics(admin: "Admin", output: Output) -> None:
    """Show all topics, with their settings for those who want to know more."""
    infos = admin.topics()
    rows = [_listed(info) for info in infos]
    columns = told(LIST_COLUMNS, rows, "batches")
    if output.verbose and not output.as_json:
        columns.append(Column("settings", "SETTINGS"))
        for row, info in zip(rows, infos, strict=True):
            row["settings"] = settings_text(info.settings)
    output.rows(columns, rows, empty="no topics; create one with: mbctl topic create NAME")


def show_topic(admin: "Admin", output: Output, topic: str) -> None:
    """Show one topic with its settings."""
    info = admin.topic(topic)
    row = {
        **_listed(info),
        **msgspec.structs.asdict(info.settings),
        "durability": info.durability,
        "note": info.note or None,
        "topic_id": info.topic_id,
        "created": info.created,
    }
    output.record(told(SHOW_COLUMNS, [row], "messages", "batches", "note"), row)


def settings_text(settings: TopicSettings) -> str:
    """The settings that are not the default, as ``topic create`` takes them."""
    shown = {
        "max-messages": settings.max_messages,
        "max-bytes": settings.max_bytes and text.size(settings.max_bytes).replace(" ", ""),
        "max-age": settings.max_age and age_text(settings.max_age),
        "retain-age": settings.retain_age and age_text(settings.retain_age),
        "retain-bytes": settings.retain_bytes and text.size(settings.retain_bytes).replace(" ", ""),
        "when-full": settings.when_full.replace("_", "-") if settings.when_full != "refuse" else "",
    }
    return " ".join(f"{name}={value}" for name, value in shown.items() if value)


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
    is_read = not holds.holds and any(info.durable for info in admin.subscriptions(topic))
    output.note(explanation(holds, is_read=is_read))
    output.rows(told(HOLD_COLUMNS, rows, "batches"), rows)


def explanation(holds: "TopicHolds", *, is_read: bool = False) -> str:
    """In one sentence, why a topic keeps what it keeps.

    ``is_read`` says that it has durable subscriptions and none of them is behind.
    """
    name = text.escape(holds.topic)
    if holds.messages == 0:
        return f"{name} keeps nothing"
    kept = f"{name} keeps {text.amount(holds.messages, holds.batches)} ({text.size(holds.bytes)})"
    if is_read:
        return f"{kept} that all have read, because its retain_age or retain_bytes says so"
    if not holds.holds:
        return f"{kept} because it has no subscription, and without one nothing is reclaimed"
    slowest = holds.holds[0]
    unread = text.amount(slowest.messages, slowest.batches)
    return f"{kept} because {text.escape(slowest.subscriber)} has not acknowledged {unread}"


def _listed(info: "TopicInfo") -> dict[str, Any]:
    row = {column.name: getattr(info, column.name) for column in LIST_COLUMNS}
    if info.batches is None:
        del row["batches"]
    return row

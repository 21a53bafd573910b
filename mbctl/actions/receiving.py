"""What a subscriber does: subscribe, unsubscribe, pull, follow."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions import text
from mbctl.actions.output import Output
from mbctl.actions.rates import RateWriter
from mbctl.errors import InvalidArgument, NotSubscribed, Timeout
from mbctl.model import Sought, Start, Subscribed, SubscribeOptions

if TYPE_CHECKING:
    from mbctl import Subscriber
    from mbctl.actions.messages import Look, MessageWriter
    from mbctl.client.messages import Batch

PULL_COUNT = 10
"""Messages of a pull that does not say how many: a look, not a flood."""

# As many as one reply can hold of small messages; memory for a few MiB.
_PULL_CHUNK = 10_000


def subscribe(
    subscriber: "Subscriber",
    output: Output,
    topic: str,
    options: SubscribeOptions,
) -> Subscribed:
    """Subscribe to a topic and show where the subscription stands."""
    answer = subscriber.subscribe(topic, **msgspec.structs.asdict(options))
    row = {
        "topic": answer.topic,
        "subscriber": answer.subscriber,
        "offset": answer.offset,
        "skipped": answer.skipped,
        "created": answer.created,
    }
    output.done(row, standing(answer))
    return answer


def standing(answer: Subscribed) -> str:
    """In one sentence, where a subscription stands."""
    who = text.escape(answer.subscriber)
    topic = text.escape(answer.topic)
    if not answer.created:
        return f"{who} was subscribed to {topic} before and stays at #{answer.offset}"
    skipped = f", skipping {text.counted(answer.skipped, 'message')}" if answer.skipped else ""
    return f"{who} is subscribed to {topic} from #{answer.offset}{skipped}"


def seek(subscriber: "Subscriber", output: Output, topic: str, start: Start) -> None:
    """Move the subscription of a topic and show where it stands."""
    show_sought(output, subscriber.seek(topic, start))


def show_sought(output: Output, sought: Sought) -> None:
    """Say where a subscription has been moved to."""
    gone = ""
    if sought.skipped:
        gone = f", {text.counted(sought.skipped, 'message')} before that being gone"
    who, topic = text.escape(sought.subscriber), text.escape(sought.topic)
    sentence = f"{who} reads {topic} from #{sought.offset} on{gone}"
    output.done(msgspec.structs.asdict(sought), sentence)


def unsubscribe(subscriber: "Subscriber", output: Output, topic: str) -> None:
    """End the subscription of a topic and say so."""
    subscriber.unsubscribe(topic)
    who = text.escape(subscriber.subscriber)
    output.done(
        {"topic": topic, "subscriber": subscriber.subscriber, "deleted": True},
        f"{who} is no longer subscribed to {text.escape(topic)}",
    )


def pull(
    subscriber: "Subscriber",
    output: Output,
    topic: str,
    *,
    count: int | None = None,
    minimum: int = 0,
    wait: float = 0.0,
    ack: bool = True,
    look: "Look | None" = None,
) -> int:
    """Show messages until there are ``count`` or nothing is left; return how many.

    Waits up to ``wait`` seconds in all for the first message, or for ``minimum``. What was
    shown is acknowledged once it has left this process, unless ``ack`` is False.

    Raises:
        Timeout: fewer than ``minimum`` came; those are shown and acknowledged.
    """
    count_max = max(PULL_COUNT, minimum) if count is None else count
    if minimum > count_max:
        raise InvalidArgument(reason=f"a pull of at most {count_max} cannot bring {minimum}")
    deadline = time.monotonic() + wait
    shown = 0
    with output.messages(look) as writer:
        while shown < count_max:
            patience = max(0.0, deadline - time.monotonic()) if shown < max(minimum, 1) else 0.0
            chunk = min(count_max - shown, _PULL_CHUNK)
            batch = subscriber.pull(topic, chunk, wait=patience, auto_ack=False)
            if not batch:
                # A wait may end a moment early; only the clock here decides.
                if patience and time.monotonic() < deadline:
                    continue
                break
            write_batch(output, writer, batch)
            if ack:
                batch.ack()
            shown += len(batch)
    if shown < minimum:
        came = f"{shown} came" if shown else "none came"
        what = f"the pull of {text.counted(minimum, 'message')} from {topic!r}, of which {came},"
        raise Timeout(what=what, seconds=f"{wait:g}")
    return shown


def show_batch(output: Output, batch: "Batch") -> None:
    """Show the messages of one pull; they have left this process on return."""
    with output.messages() as writer:
        write_batch(output, writer, batch)


def follow(
    subscriber: "Subscriber",
    output: Output,
    topics: Sequence[str],
    *,
    start: Start | None = None,
    subscribe: bool = False,
    look: "Look | None" = None,
) -> None:
    """Show messages of several topics as they come, until interrupted.

    With ``subscribe``, topics without a subscription get one that begins at ``start``. A
    message is acknowledged after it has left this process; those that an interrupt cuts
    short are delivered again.
    """
    with output.messages(look) as writer:
        _follow_all(subscriber, output, writer, topics, start=start, subscribe=subscribe)


def follow_rate(
    subscriber: "Subscriber",
    output: Output,
    topics: Sequence[str],
    *,
    start: Start | None = None,
    subscribe: bool = False,
) -> None:
    """The same, but show once a second how many came instead of what they are."""
    with RateWriter(output) as writer:
        _follow_all(subscriber, output, writer, topics, start=start, subscribe=subscribe)


def _follow_all(
    subscriber: "Subscriber",
    output: Output,
    writer: "MessageWriter | RateWriter",
    topics: Sequence[str],
    *,
    start: Start | None,
    subscribe: bool,
) -> None:
    unasked = set(topics) if subscribe else set()
    while True:
        try:
            _follow(subscriber, output, writer, topics)
        except NotSubscribed as error:
            # One that someone deletes meanwhile stays deleted.
            if error.topic not in unasked:
                raise
            unasked.remove(error.topic)
            output.note(standing(subscriber.subscribe(error.topic, start)))


def _follow(
    subscriber: "Subscriber",
    output: Output,
    writer: "MessageWriter | RateWriter",
    topics: Sequence[str],
) -> None:
    # Closing at once gives back what was not shown, whatever holds on to the traceback.
    with closing(subscriber.follow(*topics)) as messages:
        batch = None
        for message in messages:
            if message.batch is not batch:
                batch = message.batch
                _note_gap(output, batch)
            writer.write_one(message)
            # Asking for the message after the last of a batch acknowledges that batch.
            if message.offset + 1 == batch.next_offset:
                writer.flush()


def write_batch(output: Output, writer: "MessageWriter", batch: "Batch") -> None:
    """Write the messages of one pull, after a note of what was missed before them."""
    _note_gap(output, batch)
    writer.write(batch)
    writer.flush()


def _note_gap(output: Output, batch: "Batch") -> None:
    if batch.skipped:
        missed = text.counted(batch.skipped, "message")
        output.note(f"{missed} of {text.escape(batch.topic)} were gone before these")

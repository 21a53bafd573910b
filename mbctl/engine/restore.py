"""From what a journal held to core, before the first verb."""

from collections.abc import Sequence

import msgspec

from mbctl.core.broker import Broker
from mbctl.core.topic import Topic
from mbctl.journal.records import Recovered, RecoveredTopic, SubscriptionState


class Clamped(msgspec.Struct, frozen=True):
    """A subscription whose place did not fit what its topic keeps: messages were lost.

    It was at ``claimed``, or had acknowledged up to there, and stands at ``cursor`` now.
    """

    topic: str
    subscriber: str
    claimed: int
    cursor: int


class Restored(msgspec.Struct, frozen=True):
    """What there is to do about what was restored.

    ``places`` are those of batches that nobody needs, topic by topic.
    """

    places: list[Sequence[int]]
    clamped: list[Clamped]


def restore(core: Broker, recovered: Recovered, now_ns: int) -> Restored:
    """Fill ``core``, which is new, with all that was recovered."""
    restored = Restored([], [])
    for topic in recovered.topics:
        found, places = _restore_topic(core, topic)
        if places:
            restored.places.append(places)
        for state in topic.subscriptions:
            clamped = _restore_subscription(core, found, state)
            if clamped is not None:
                restored.clamped.append(clamped)
    for session in recovered.sessions:
        core.restore_session(session.session, session.answers, now_ns)
    return restored


def _restore_topic(core: Broker, topic: RecoveredTopic) -> tuple[Topic, Sequence[int]]:
    return core.restore_topic(
        topic.topic_id,
        topic.name,
        topic.settings,
        created=topic.created,
        runs=(
            (run.firsts, run.places, run.timestamps, run.sizes, run.next_offset)
            for run in topic.runs
        ),
        first_offset=topic.first_offset,
        next_offset=topic.next_offset,
        timestamp=topic.timestamp,
    )


def _restore_subscription(core: Broker, topic: Topic, state: SubscriptionState) -> Clamped | None:
    subscription, is_whole = core.restore_subscription(
        topic,
        state.subscriber,
        cursor=state.cursor,
        acknowledged=state.acknowledged,
        ack_wait_ns=state.ack_wait_ns,
        created=state.created,
        max_deliveries=state.max_deliveries,
        dead_letter=state.dead_letter,
        counts=state.counts,
        dropped=state.dropped,
        expired=state.expired,
    )
    if is_whole:
        return None
    claimed = max([state.cursor, *(next_offset for _, next_offset in state.acknowledged)])
    return Clamped(topic.name, state.subscriber, claimed, subscription.cursor)

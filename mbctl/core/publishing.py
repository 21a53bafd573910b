"""The verbs of publishers: sessions, sends, topics, and where their batches are."""

from collections.abc import Sequence

from mbctl.core.grant import Wake
from mbctl.core.parts import Parts
from mbctl.core.publisher import Stored
from mbctl.core.topic import Topic
from mbctl.errors import RequestRefused, TopicNotFound
from mbctl.model import Receipt, TopicSettings


class Publishing(Parts):
    """Takes batches in, and lets them be seen and given up."""

    # --- publishers -----------------------------------------------------------------------

    @property
    def session_count(self) -> int:
        """Publisher sessions remembered."""
        return len(self._publishers)

    def register_publisher(self, session: bytes, now_ns: int) -> None:
        """Make the session known.

        Raises:
            LimitExceeded: there are ``limits.sessions`` already.
        """
        self._publishers.use(session, now_ns)

    def send(
        self,
        session: bytes,
        sequence: int,
        topic: str,
        *,
        count: int,
        size: int,
        refusal: RequestRefused | None = None,
        age_ns: int,
        now_ns: int,
        wall_ns: int,
    ) -> Stored:
        """Give a batch its offsets, or answer a retry as its first attempt was.

        A new batch is in the index and not visible yet. The caller stores it and says
        where with ``set_place``, before any other verb. ``refusal`` is why the caller
        would refuse it if it is new; ``age_ns`` is how long ago the first attempt was;
        ``wall_ns`` the time for the batch's timestamp.

        Raises:
            OutcomeUnknown: the retry is too old to be told from a new send.
            LimitExceeded: the session is not known and there are too many.
            TopicNotFound, TopicFull: refused, and remembered for a retry.
        """
        publisher = self._publishers.use(session, now_ns)
        self._publishers.check_age(sequence, age_ns)
        earlier = publisher.earlier_answer(sequence)
        if earlier is not None:
            if not earlier.topic:
                # Its topic was deleted before a restart; the retry says what its name was.
                earlier = Receipt(topic, earlier.offset, earlier.count)
            return Stored(earlier, 0, 0, is_new=False)
        try:
            if refusal is not None:
                raise refusal
            target = self.topics.named(topic)
            self._retention.make_room(target, count, size)
        except RequestRefused as error:
            publisher.remember(sequence, error)
            raise
        first, timestamp = target.index.append(count, size, wall_ns)
        self._retention.watch(target, now_ns, wall_ns)
        receipt = Receipt(target.name, first, count)
        publisher.remember(sequence, receipt)
        return Stored(receipt, target.topic_id, timestamp, is_new=True)

    def set_place(self, topic_id: int, place: int) -> None:
        """Say where the batch that ``send`` accepted last for this topic is stored."""
        topic = self.topics.with_id(topic_id)
        assert topic is not None
        topic.index.set_last_place(place)

    def reveal(self, topic_id: int, next_offset: int, now_ns: int) -> list[Wake]:
        """Make messages below ``next_offset`` visible; they are durable."""
        topic = self.topics.with_id(topic_id)
        if topic is None:
            return []
        topic.reveal(next_offset)
        return self._pulls.serve(list(topic.waiting), now_ns)

    # --- topics ---------------------------------------------------------------------------

    def create_topic(
        self, name: str, settings: TopicSettings, *, exist_ok: bool, created: int
    ) -> tuple[Topic, bool]:
        """Return the topic and whether it was created now.

        Raises:
            InvalidName: the name breaks the rules.
            InvalidArgument: a setting makes no sense.
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            LimitExceeded: there are ``limits.topics`` already.
        """
        return self.topics.create(name, settings, exist_ok=exist_ok, created=created)

    def delete_topic(self, name: str) -> tuple[Topic, list[Wake]]:
        """Delete the topic with its subscriptions; it, and the pulls that waited there.

        The places in its index are left to the caller, there may be millions.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self.topics.named(name)
        wakes: list[Wake] = []
        for subscription in list(topic.subscriptions.values()):
            wakes += self._end_subscription(subscription, TopicNotFound(topic=name))
        self.topics.remove(topic)
        self._retention.forget(topic)
        self._untaken.remove_topic(topic)
        return topic, wakes

    def purge(self, name: str, now_ns: int) -> tuple[int, list[Wake]]:
        """Give up all messages of the topic, read or not; how many it kept, and whom that woke.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self.topics.named(name)
        count = topic.messages
        self._retention.trim(topic, topic.next_offset, "purged")
        return count, self._pulls.serve(list(topic.waiting), now_ns)

    def give_up_retained(self) -> bool:
        """Give up all that is only retained, of every topic; whether there was any."""
        return self._retention.give_up_retained()

    # --- where batches are ----------------------------------------------------------------

    def live_batches(
        self, topic_id: int, firsts: Sequence[int], places: Sequence[int]
    ) -> list[int]:
        """The positions, in these columns, of batches that are kept and at these places.

        ``firsts`` are their first offsets, rising.
        """
        topic = self.topics.with_id(topic_id)
        return [] if topic is None else topic.index.live(firsts, places)

    def move_batches(self, topic_id: int, moves: Sequence[tuple[int, int, int]]) -> list[int]:
        """Let batches be elsewhere; the new places of those no longer kept, or not there.

        ``moves`` are ``(first offset, place, new place)``, by rising first offset.
        """
        topic = self.topics.with_id(topic_id)
        if topic is None:
            return [new_place for _, _, new_place in moves]
        return topic.index.move(moves)

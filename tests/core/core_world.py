"""A broker in virtual time, with its verbs in short and ``check()`` after each of them."""

from collections.abc import Iterable
from typing import Any

from mbctl.core.broker import Broker
from mbctl.core.changes import Changes
from mbctl.core.exhausted import DeadLettered, Exhausted
from mbctl.core.grant import Grant, Piece, Wake
from mbctl.core.publisher import Stored
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.errors import RequestRefused
from mbctl.model import (
    NS_PER_S,
    Limits,
    Range,
    Sought,
    Subscribed,
    SubscribeOptions,
    TopicSettings,
)

BYTES = 1 << 20


class World:
    """One broker, one clock, and a journal that gives places 1, 2, 3…"""

    def __init__(self, limits: Limits | None = None) -> None:
        self.core = Broker(limits or Limits())
        self.now = 1_000 * NS_PER_S
        self.wall = 1_700_000_000 * NS_PER_S
        self.places = 0
        self.tokens = 0
        self.sequences: dict[bytes, int] = {}

    # --- publishing -------------------------------------------------------------------------

    def topic(self, name: str = "orders", **settings: Any) -> Topic:
        """Create a topic, or find it."""
        chosen = TopicSettings(**settings)
        topic, _ = self.core.create_topic(name, chosen, exist_ok=True, created=self.wall)
        self.core.check()
        return topic

    def accept(
        self,
        count: int = 1,
        topic: str = "orders",
        *,
        size: int | None = None,
        session: bytes = b"s",
        sequence: int | None = None,
        age_s: float = 0,
        refusal: RequestRefused | None = None,
    ) -> Stored:
        """Send a batch that is not durable yet."""
        sequence = sequence or self.sequences.get(session, 0) + 1
        self.sequences[session] = max(sequence, self.sequences.get(session, 0))
        try:
            stored = self.core.send(
                session,
                sequence,
                topic,
                count=count,
                size=size if size is not None else 10 * count,
                refusal=refusal,
                age_ns=round(age_s * NS_PER_S),
                now_ns=self.now,
                wall_ns=self.wall,
            )
            if stored.is_new:
                self.places += 1
                self.core.set_place(stored.topic_id, self.places)
        finally:
            self.core.check()
        return stored

    def reveal(self, topic: str = "orders") -> list[Wake]:
        """Let all that was accepted be durable."""
        found = self.core.topics.named(topic)
        return self.checked(self.core.reveal(found.topic_id, found.next_offset, self.now))

    def send(self, count: int = 1, topic: str = "orders", **what: Any) -> int:
        """Send a batch that is durable at once; its first offset."""
        stored = self.accept(count, topic, **what)
        self.reveal(topic)
        return stored.receipt.offset

    # --- reading ----------------------------------------------------------------------------

    def register(self, member: bytes, name: str | None = "billing") -> list[Wake]:
        """Register a reading process."""
        _, wakes = self.core.register_subscriber(member, name, self.now)
        return self.checked(wakes)

    def close(self, member: bytes) -> list[Wake]:
        """Let its connection be gone."""
        return self.checked(self.core.close_member(member, self.now))

    def subscribe(
        self,
        member: bytes = b"a",
        topic: str = "orders",
        start: Any = None,
        ack_wait: float = 30.0,
        **other: Any,
    ) -> Subscribed:
        """Subscribe."""
        options = SubscribeOptions(start=start, ack_wait=ack_wait, **other)
        try:
            member_ = self.core.member(member)
            return self.core.subscribe(member_, topic, options, wall_ns=self.wall)[0]
        finally:
            self.core.check()

    def reader(
        self,
        member: bytes = b"a",
        name: str | None = "billing",
        topic: str = "orders",
        **options: Any,
    ) -> Subscription:
        """Register and subscribe."""
        self.register(member, name)
        subscribed = self.subscribe(member, topic, **options)
        return self.core.subscription(topic, subscribed.subscriber)

    def pull(
        self,
        member: bytes = b"a",
        count: int = 1000,
        *,
        topic: str = "orders",
        max_bytes: int = BYTES,
        wait_s: float = 0,
    ) -> Grant | None:
        """Pull; the token of one that waits is ``world.tokens``."""
        self.tokens += 1
        try:
            return self.core.pull(
                self.core.member(member),
                topic,
                max_messages=count,
                max_bytes=max_bytes,
                wait_ns=round(wait_s * NS_PER_S),
                token=self.tokens,
                now_ns=self.now,
                wall_ns=self.wall,
            )
        finally:
            self.core.check()

    def pulled(self, member: bytes = b"a", count: int = 1000, **what: Any) -> list[int]:
        """The offsets that a pull gets."""
        return offsets(self.pull(member, count, **what))

    def wait(
        self, member: bytes = b"a", count: int = 1000, *, wait_s: float = 5, **what: Any
    ) -> int:
        """Start a pull that has to wait; its token."""
        assert self.pull(member, count, wait_s=wait_s, **what) is None
        return self.tokens

    # --- settling ---------------------------------------------------------------------------

    def ack_wakes(
        self, ranges: Iterable[Range], member: bytes = b"a", topic: str = "orders"
    ) -> tuple[int, list[Wake]]:
        """Acknowledge: how many, and whom that woke."""
        topic_id = self.core.topics.named(topic).topic_id
        try:
            return self.core.ack(
                self.core.member(member),
                topic,
                topic_id,
                list(ranges),
                now_ns=self.now,
                wall_ns=self.wall,
            )
        finally:
            self.core.check()

    def ack(self, *ranges: Range, member: bytes = b"a", topic: str = "orders") -> int:
        """Acknowledge: how many."""
        return self.ack_wakes(ranges, member, topic)[0]

    def nack_wakes(
        self,
        ranges: Iterable[Range],
        member: bytes = b"a",
        *,
        delay_s: float = 0,
        counted: bool = True,
        topic: str = "orders",
    ) -> tuple[int, list[Wake]]:
        """Give back: how many, and whom that woke."""
        topic_id = self.core.topics.named(topic).topic_id
        try:
            return self.core.nack(
                self.core.member(member),
                topic,
                topic_id,
                list(ranges),
                delay_ns=round(delay_s * NS_PER_S),
                counted=counted,
                now_ns=self.now,
            )
        finally:
            self.core.check()

    def nack(self, *ranges: Range, member: bytes = b"a", **how: Any) -> int:
        """Give back: how many."""
        return self.nack_wakes(ranges, member, **how)[0]

    def extend(self, *ranges: Range, member: bytes = b"a", topic: str = "orders") -> int:
        """Renew: how many."""
        topic_id = self.core.topics.named(topic).topic_id
        try:
            return self.core.extend(
                self.core.member(member), topic, topic_id, list(ranges), self.now
            )
        finally:
            self.core.check()

    # --- time and durability ------------------------------------------------------------------

    def advance(self, seconds: float) -> list[Wake]:
        """Let time pass from deadline to deadline; whom that woke."""
        until, wakes, is_late = self.now + round(seconds * NS_PER_S), [], False
        while (when := self.core.next_deadline_ns()) is not None and when <= until:
            # What is late is done at once, and not due any more then.
            assert when > self.now or not is_late
            is_late = when <= self.now
            self.pass_time(max(0, when - self.now))
            wakes += self.checked(self.core.expire(self.now, self.wall))
        self.pass_time(until - self.now)
        return wakes

    def pass_time(self, nanoseconds: int) -> None:
        """Let time pass unnoticed, by both clocks."""
        self.now += nanoseconds
        self.wall += nanoseconds

    def changes(self) -> Changes:
        """End a turn: what is to be stored."""
        changes = self.core.take_changes()
        self.core.check()
        assert not self.core.has_changes
        return changes

    def commit(self) -> list[int]:
        """Let all that was acknowledged be durable; the places that are free."""
        return sorted(place for trim in self.changes().trimmed for place in trim.places)

    # --- what an operator does ----------------------------------------------------------------

    def seek(self, start: Any, name: str = "billing", topic: str = "orders") -> Sought:
        """Move a subscription."""
        try:
            return self.core.seek(topic, name, start, now_ns=self.now, wall_ns=self.wall)[0]
        finally:
            self.core.check()

    def peek(self, start: Any, count: int = 1000, topic: str = "orders") -> list[Piece]:
        """Look at messages without a subscription."""
        return self.core.peek(topic, start, max_messages=count, max_bytes=BYTES)[1]

    def purge(self, topic: str = "orders") -> int:
        """Give up all messages: how many."""
        count, wakes = self.core.purge(topic, self.now)
        self.checked(wakes)
        return count

    # --- what was delivered as often as it may be ---------------------------------------------

    def exhausted(self, pieces_max: int = 64) -> list[Exhausted]:
        """Take what is to be moved away."""
        taken = self.core.take_exhausted(pieces_max, 64 * BYTES)
        self.core.check()
        return taken

    def dead_letter(self, one: Exhausted, *, size: int | None = None) -> DeadLettered | None:
        """Move a piece, and let that be durable at once."""
        count = one.piece.next - one.piece.first
        try:
            stored = self.core.dead_letter(
                one, count=count, size=size or 10 * count, now_ns=self.now, wall_ns=self.wall
            )
        finally:
            self.core.check()
        if stored is not None:
            self.places += 1
            self.core.set_place(stored.topic_id, self.places)
            self.checked(
                self.core.reveal(stored.topic_id, stored.first + count, self.now),
            )
        return stored

    def park(self, one: Exhausted) -> None:
        """Park a piece."""
        self.core.park(one)
        self.core.check()

    def release(self, *ranges: Range, name: str = "billing", topic: str = "orders") -> int:
        """Release what is parked, all or these ranges: how many."""
        count, wakes = self.core.release_parked(topic, name, list(ranges) or None, now_ns=self.now)
        self.checked(wakes)
        return count

    def drop(self, *ranges: Range, name: str = "billing", topic: str = "orders") -> int:
        """Drop what is parked, all or these ranges: how many."""
        count, wakes = self.core.drop_parked(
            topic, name, list(ranges) or None, now_ns=self.now, wall_ns=self.wall
        )
        self.checked(wakes)
        return count

    def checked(self, wakes: list[Wake]) -> list[Wake]:
        """The same wakes, after a check."""
        self.core.check()
        return wakes


def offsets(answer: Any) -> list[int]:
    """The offsets of a grant, one by one."""
    assert isinstance(answer, Grant)
    return [offset for piece in answer.pieces for offset in range(piece.first, piece.next)]


def woken(wakes: list[Wake]) -> dict[Any, list[int]]:
    """The offsets that each woken pull got."""
    return {wake.token: offsets(wake.result) for wake in wakes}

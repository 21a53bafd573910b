"""One subscriber's place in one topic: cursor, acknowledged ranges, leases.

    all acknowledged   │ leases, and acknowledged ranges between them │ never granted
    ───────────────────┼──────────────────────────────────────────────┼──────────────▶
                     cursor                                          next

Between ``cursor`` and ``next`` every offset is in exactly one range: acknowledged, or a
lease. A lease is in one of three states:

    LEASED    with a member, until its deadline        ack → gone
                                                       nack, deadline, member gone → READY
    DELAYED   given back with a delay                  deadline → READY
    READY     to be granted again, before anything new

An ack counts in every state, unless the message was granted to another member since.
"""

from bisect import bisect_right, insort
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

import msgspec

from mbctl.core.ranges import RangeSet
from mbctl.core.timers import Timers
from mbctl.errors import LimitExceeded
from mbctl.model import NS_PER_S, Range

if TYPE_CHECKING:
    from mbctl.core.topic import Topic

LEASED, DELAYED, READY = "leased", "delayed", "ready"

# A pull is answered with at most this many pieces, so that a backlog of single messages
# cannot hold the loop for long; arbitrary.
_PIECES_MAX = 4096
# What a piece adds to a reply beside its batch: offset, timestamp, deliveries, heads.
_PIECE_BYTES = 32
# New messages are granted only below the bound less this, which is kept for splitting
# ranges that are granted again: so a full subscription always gets on.
_SPLIT_RESERVE = 64


class Member:
    """One process that reads under a subscriber's name."""

    __slots__ = ("durable", "ephemeral_subscriptions", "id", "leases", "subscriber", "waiting")

    def __init__(self, id: bytes, subscriber: str, *, durable: bool) -> None:
        self.id = id
        self.subscriber = subscriber
        self.durable = durable
        self.leases: dict[Lease, None] = {}
        self.waiting: dict[Waiting, None] = {}
        self.ephemeral_subscriptions: dict[Subscription, None] = {}
        """What ends with this process, a while after its connection."""


class Lease:
    """The messages ``first <= offset < next``, granted ``deliveries`` times."""

    __slots__ = ("deliveries", "first", "member", "next", "state", "subscription")

    def __init__(self, subscription: "Subscription", first: int, next: int) -> None:
        self.subscription = subscription
        self.first = first
        self.next = next
        self.deliveries = 0
        self.state = READY
        self.member: Member | None = None
        """Who has it, or had it last."""


class Waiting:
    """A pull that waits for messages. ``token`` is the caller's."""

    __slots__ = ("max_bytes", "max_messages", "member", "subscription", "token")

    def __init__(
        self, token: Hashable, member: Member, subscription: "Subscription", room: "Room"
    ) -> None:
        self.token = token
        self.member = member
        self.subscription = subscription
        self.max_messages = room.messages
        self.max_bytes = room.bytes


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Part of one batch, to be read at ``place``: messages ``first <= offset < next``.

    ``batch_first`` and ``batch_next`` are the batch's own, so that a piece is the whole
    batch when they are equal to its ends.
    """

    place: int
    batch_first: int
    batch_next: int
    first: int
    next: int
    timestamp: int
    deliveries: int


class Grant(msgspec.Struct, frozen=True):
    """What a pull gets: pieces in the order of their offsets; none means nothing came.

    ``skipped`` counts messages that this subscription can no longer get.
    """

    topic: str
    topic_id: int
    subscriber: str
    skipped: int
    pieces: list[Piece]


class Room:
    """What is left of a pull's bounds while it is being filled."""

    __slots__ = ("bytes", "messages", "pieces")

    def __init__(self, messages: int, bytes: int) -> None:
        self.messages = messages
        self.bytes = bytes
        self.pieces: list[Piece] = []

    @property
    def is_full(self) -> bool:
        return self.messages == 0 or self.bytes <= 0 or len(self.pieces) >= _PIECES_MAX

    def fit(self, count: int, batch_count: int, size: int) -> int:
        """How many of the next ``count`` messages of a batch go in; 0 if it should wait.

        A batch goes in whole or waits for the next pull, unless it is the first: then as
        much of it as its mean message size lets expect, at least one.
        """
        count = min(count, self.messages)
        size = size * count // batch_count + _PIECE_BYTES
        if size <= self.bytes:
            return count
        if self.pieces:
            return 0
        return max(1, count * self.bytes // size)

    def add(self, piece: Piece, batch_count: int, size: int) -> None:
        """Take ``piece`` in."""
        count = piece.next - piece.first
        self.messages -= count
        self.bytes -= size * count // batch_count + _PIECE_BYTES
        self.pieces.append(piece)


class Subscription:
    """A cursor and its leases. The broker owns it and passes the time in."""

    __slots__ = (
        "_leases",
        "_ready",
        "_starts",
        "_timers",
        "ack_wait_ns",
        "acknowledged",
        "created",
        "cursor",
        "durable",
        "last_pull",
        "leased_count",
        "member_id",
        "moved_at",
        "next",
        "ranges_max",
        "skipped",
        "subscriber",
        "topic",
        "waiting",
    )

    def __init__(
        self, topic: "Topic", member: Member, offset: int, timers: Timers[Hashable]
    ) -> None:
        self.topic = topic
        self.subscriber = member.subscriber
        self.durable = member.durable
        self.member_id = member.id
        """The process that created it; for an ephemeral one, the one it belongs to."""
        self.cursor = offset
        self.next = offset
        self.acknowledged = RangeSet()
        self.waiting: dict[Waiting, None] = {}
        self.ack_wait_ns = 30 * NS_PER_S
        self.ranges_max = 0
        self.skipped = 0
        """Messages that were reclaimed before this subscription got them, not told yet."""
        self.leased_count = 0
        self.created = 0
        self.moved_at = 0
        self.last_pull: int | None = None
        self._starts: list[int] = []
        self._leases: dict[int, Lease] = {}
        self._ready: list[int] = []
        self._timers = timers

    # --- what it is now -----------------------------------------------------------------

    @property
    def ranges(self) -> int:
        """Acknowledged ranges plus leases: what bounds this subscription's memory."""
        return len(self.acknowledged) + len(self._starts)

    @property
    def unread(self) -> int:
        """Messages not acknowledged, of those subscribers may see."""
        return self.topic.visible_next - self.cursor - self.acknowledged.total

    @property
    def redeliver_count(self) -> int:
        """Messages given back and waiting to be granted again."""
        return self.next - self.cursor - self.acknowledged.total - self.leased_count

    @property
    def has_messages(self) -> bool:
        """Whether a pull would get something now."""
        return bool(self._ready) or self._may_grant_new

    @property
    def _may_grant_new(self) -> bool:
        return self.next < self.topic.visible_next and self.ranges < self._grant_max

    @property
    def _grant_max(self) -> int:
        return self.ranges_max - min(_SPLIT_RESERVE, self.ranges_max // 4)

    # --- granting -----------------------------------------------------------------------

    def grant(self, member: Member, room: Room, now_ns: int) -> list[Piece]:
        """Lease to ``member`` what ``room`` holds: first what is READY, then what is new."""
        self.drop_below(self.topic.first_offset)
        while self._ready and not room.is_full:
            lease = self._leases[self._ready[0]]
            end = self._fill(room, lease.first, lease.next, lease.deliveries + 1)
            if end == lease.first or (end < lease.next and self.ranges >= self.ranges_max):
                # No room, or it would have to be split and there are ranges enough.
                if end > lease.first:
                    self._unfill(room, lease.first)
                return room.pieces
            if end < lease.next:
                self._split(lease, end)
            del self._ready[0]
            self._lease_to(lease, member, now_ns)
        if self._may_grant_new and not room.is_full:
            end = self._fill(room, self.next, self.topic.visible_next, 1)
            if end > self.next:
                lease = self._add(self.next, end)
                self.next = end
                self._lease_to(lease, member, now_ns)
        return room.pieces

    def _fill(self, room: Room, first: int, next: int, deliveries: int) -> int:
        """Put pieces for ``first <= offset < next`` into ``room``; where it ended."""
        index = self.topic.index
        for batch_first, batch_next, place, timestamp, size in index.walk(
            first, self.topic.next_offset
        ):
            if first >= next or room.is_full:
                break
            batch_count = batch_next - batch_first
            count = room.fit(min(batch_next, next) - first, batch_count, size)
            if count == 0:
                break
            piece = Piece(
                place, batch_first, batch_next, first, first + count, timestamp, deliveries
            )
            room.add(piece, batch_count, size)
            first += count
            if first < min(batch_next, next):
                break
        return first

    def _unfill(self, room: Room, first: int) -> None:
        room.pieces[:] = [piece for piece in room.pieces if piece.next <= first]

    def _lease_to(self, lease: Lease, member: Member, now_ns: int) -> None:
        lease.state = LEASED
        lease.member = member
        lease.deliveries += 1
        member.leases[lease] = None
        self.leased_count += lease.next - lease.first
        self._timers.set(lease, now_ns + self.ack_wait_ns)

    # --- acknowledging ------------------------------------------------------------------

    def acknowledge(self, member: Member, ranges: list[Range]) -> int:
        """Acknowledge ``ranges`` as far as ``member`` may; how many messages that was.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        if self.ranges + 2 * len(ranges) > self.ranges_max:
            self._check_growth(sum(self._growth(member, *r) for r in ranges))
        count = 0
        for first, next in ranges:
            count += self._acknowledge_range(member, max(first, self.cursor), next)
        return count

    def _acknowledge_range(self, member: Member, first: int, next: int) -> int:
        if first >= next:
            return 0
        self._reach(next)
        count = 0
        for lease in self._isolate(first, next, member):
            if not _may_settle(lease, member):
                continue
            count += lease.next - lease.first
            self._remove(lease)
            self._put_acknowledged(lease.first, lease.next)
        return count

    def _put_acknowledged(self, first: int, next: int) -> None:
        if first == self.cursor:
            self.cursor = self.acknowledged.remove_below(next)
        else:
            self.acknowledged.add(first, next)

    def _reach(self, next: int) -> None:
        """Let everything below ``next`` be a lease, as after a restart that forgot leases."""
        if next > self.next:
            self._add(self.next, next)
            insort(self._ready, self.next)
            self.next = next

    # --- giving back --------------------------------------------------------------------

    def give_back(
        self, member: Member, ranges: list[Range], *, ready_ns: int | None, counted: bool
    ) -> int:
        """Let what ``member`` has leased of ``ranges`` be granted again; how many messages.

        At ``ready_ns``, or at once if that is None. Not ``counted``: as if never granted.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        self._check_splits(member, ranges)
        count = 0
        for lease in self._leased(member, ranges):
            count += lease.next - lease.first
            if not counted:
                lease.deliveries -= 1
            self.release(lease, ready_ns)
        return count

    def extend(self, member: Member, ranges: list[Range], now_ns: int) -> int:
        """Renew what ``member`` has leased of ``ranges``; how many messages.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        self._check_splits(member, ranges)
        count = 0
        for lease in self._leased(member, ranges):
            count += lease.next - lease.first
            self._timers.set(lease, now_ns + self.ack_wait_ns)
        return count

    def release(self, lease: Lease, ready_ns: int | None = None) -> None:
        """Take a LEASED lease from its member; READY at once or DELAYED until ``ready_ns``."""
        assert lease.state is LEASED
        assert lease.member is not None
        lease.member.leases.pop(lease, None)
        self.leased_count -= lease.next - lease.first
        if ready_ns is None:
            self._timers.cancel(lease)
            self._make_ready(lease)
        else:
            lease.state = DELAYED
            self._timers.set(lease, ready_ns)

    def expire(self, lease: Lease) -> None:
        """Let a lease whose deadline has come be granted again."""
        if lease.state is LEASED:
            self.release(lease)
        else:
            self._make_ready(lease)

    def _make_ready(self, lease: Lease) -> None:
        lease.state = READY
        insort(self._ready, lease.first)

    def _leased(self, member: Member, ranges: list[Range]) -> Iterator[Lease]:
        for first, next in ranges:
            for lease in self._isolate(first, next, member):
                if lease.state is LEASED and _same(lease.member, member):
                    yield lease

    # --- the ranges between cursor and next ----------------------------------------------

    def _isolate(self, first: int, next: int, member: Member | None = None) -> list[Lease]:
        """The leases within ``first <= offset < next``, split where they reach beyond.

        With a ``member``, leases that are another's are not split.
        """
        for edge in (first, next):
            lease = self._at(edge)
            if lease is None or lease.first == edge:
                continue
            if member is None or _may_settle(lease, member):
                self._split(lease, edge)
        low = bisect_right(self._starts, first - 1)
        high = bisect_right(self._starts, next - 1)
        return [self._leases[start] for start in self._starts[low:high]]

    def _at(self, offset: int) -> Lease | None:
        """The lease that holds ``offset``, if one does."""
        at = bisect_right(self._starts, offset) - 1
        if at < 0:
            return None
        lease = self._leases[self._starts[at]]
        return lease if offset < lease.next else None

    def _add(self, first: int, next: int) -> Lease:
        lease = Lease(self, first, next)
        insort(self._starts, first)
        self._leases[first] = lease
        return lease

    def _split(self, lease: Lease, edge: int) -> None:
        """Cut ``lease`` in two at ``edge``; both keep its state."""
        assert lease.first < edge < lease.next
        rest = self._add(edge, lease.next)
        lease.next = edge
        rest.deliveries = lease.deliveries
        rest.state = lease.state
        rest.member = lease.member
        if rest.state is READY:
            insort(self._ready, edge)
        else:
            when_ns = self._timers.when(lease)
            assert when_ns is not None
            self._timers.set(rest, when_ns)
        if rest.state is LEASED:
            assert rest.member is not None
            rest.member.leases[rest] = None

    def _remove(self, lease: Lease) -> None:
        del self._leases[lease.first]
        del self._starts[bisect_right(self._starts, lease.first) - 1]
        if lease.state is READY:
            del self._ready[bisect_right(self._ready, lease.first) - 1]
        else:
            self._timers.cancel(lease)
        if lease.state is LEASED:
            assert lease.member is not None
            del lease.member.leases[lease]
            self.leased_count -= lease.next - lease.first

    def drop_below(self, offset: int) -> None:
        """Skip what the topic no longer keeps; only an ephemeral subscription can be behind."""
        if offset <= self.cursor:
            return
        assert not self.durable
        self._reach(offset)
        for lease in self._isolate(self.cursor, offset):
            if lease.state is READY and lease.deliveries == 0:
                self.skipped += lease.next - lease.first
            self._remove(lease)
        self.cursor = self.acknowledged.remove_below(offset)
        self.next = max(self.next, self.cursor)

    def end(self) -> list[Waiting]:
        """Give up all leases and waiting pulls; the pulls, for their refusal."""
        for lease in list(self._leases.values()):
            self._remove(lease)
        waiting = list(self.waiting)
        for pull in waiting:
            del pull.member.waiting[pull]
            self._timers.cancel(pull)
        self.waiting.clear()
        return waiting

    # --- the bound on ranges --------------------------------------------------------------

    def _check_splits(self, member: Member, ranges: list[Range]) -> None:
        if self.ranges + 2 * len(ranges) > self.ranges_max:
            self._check_growth(sum(self._cuts(member, *r) for r in ranges))

    def _check_growth(self, growth: int) -> None:
        if growth > 0 and self.ranges + growth > self.ranges_max:
            raise LimitExceeded(
                what="acknowledged ranges and leases of a subscription", limit=self.ranges_max
            )

    def _cuts(self, member: Member, first: int, next: int) -> int:
        """How many leases of ``member`` have an end of the range inside them."""
        cuts = 0
        for edge in (first, next):
            lease = self._at(edge)
            cuts += lease is not None and lease.first < edge and _may_settle(lease, member)
        return cuts

    def _growth(self, member: Member, first: int, next: int) -> int:
        """By how many ranges acknowledging this one range changes the count, at most.

        A lease that becomes an acknowledged range changes nothing. Cutting one adds a
        range, and meeting the cursor or another acknowledged range takes one away.
        """
        growth = int(next > self.next)
        for edge, inner, joins in (
            (first, first, first == self.cursor or self.acknowledged.ends_at(first)),
            (next, next - 1, self.acknowledged.begins_at(next)),
        ):
            lease = self._at(inner)
            if lease is not None and _may_settle(lease, member):
                growth += (lease.first < edge < lease.next) - joins
        return growth

    def check(self) -> None:
        """Assert that cursor, leases and acknowledged ranges tile what was granted."""
        assert 0 <= self.cursor <= self.next
        assert self._starts == sorted(self._leases)
        assert self._ready == sorted(
            lease.first for lease in self._leases.values() if lease.state is READY
        )
        tiles = [(lease.first, lease.next) for lease in self._leases.values()]
        tiles = sorted(tiles + list(self.acknowledged))
        at = self.cursor
        for first, next in tiles:
            assert first == at < next
            at = next
        assert at == self.next
        assert not tiles or tiles[0] not in list(self.acknowledged)
        assert self.ranges <= self.ranges_max
        self._check_leases()
        self.acknowledged.check()

    def _check_leases(self) -> None:
        leased = [lease for lease in self._leases.values() if lease.state is LEASED]
        assert self.leased_count == sum(lease.next - lease.first for lease in leased)
        for lease in self._leases.values():
            assert lease.deliveries >= 0
            assert (self._timers.when(lease) is None) == (lease.state is READY)
            held = lease.member is not None and lease in lease.member.leases
            assert held == (lease.state is LEASED)
        if self.waiting and self.ranges < self.ranges_max:
            assert not self.has_messages


def _same(a: Member | None, b: Member) -> bool:
    """Whether both are the same process, maybe before and after a reconnect."""
    return a is b or (a is not None and a.id == b.id)


def _may_settle(lease: Lease, member: Member) -> bool:
    """Whether ``member`` may acknowledge ``lease``: nobody else was granted it since."""
    return lease.member is None or _same(lease.member, member)

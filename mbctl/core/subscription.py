"""One subscriber's place in one topic: cursor, acknowledged ranges, leases.

    all acknowledged   │ leases, and acknowledged ranges between them │ never granted
    ───────────────────┼──────────────────────────────────────────────┼──────────────▶
                     cursor                                          next

Between ``cursor`` and ``next`` every offset is in exactly one range: acknowledged, or a
lease. An ack counts in every state of a lease, unless the message was granted to another
member since.

Acknowledged ranges and leases together are at most ``ranges_max``. So that a subscription
at that bound always gets on, its last places are kept for what leads away from it:

    up to               may be used by
    ranges_max - R      granting new messages; acks, nacks and extends that cut leases
    ranges_max - 1      granting again what has to be cut for it
    ranges_max          granting again the one message at the cursor

The last line is the proof that it gets on: what stands at the cursor can always be
granted, if need be alone, and its ack takes a range away.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbctl.core.grant import Piece, Room
from mbctl.core.heap import Heap
from mbctl.core.leases import LEASED, Lease, Leases
from mbctl.core.members import Member
from mbctl.errors import LimitExceeded
from mbctl.model import NS_PER_S, Range
from mbctl.ranges import RangeSet, merged

if TYPE_CHECKING:
    from mbctl.core.pulls import WaitingPull
    from mbctl.core.topic import Topic

# R above; arbitrary, a quarter where the bound itself is small.
_RESERVE = 64
# Below this the reserve would have no room for both of its uses.
RANGES_MIN = 8


class Subscription:
    """A cursor and its leases. The broker owns it and passes the time in."""

    __slots__ = (
        "_growth_max",
        "_ranges_max",
        "_untaken",
        "ack_wait_ns",
        "acknowledged",
        "created",
        "cursor",
        "durable",
        "last_pull",
        "leases",
        "lost",
        "moved_at",
        "next",
        "owner_id",
        "pulls",
        "skipped",
        "subscriber",
        "topic",
    )

    def __init__(
        self,
        topic: "Topic",
        subscriber: str,
        offset: int,
        *,
        owner_id: bytes | None,
        ranges_max: int,
        deadlines: Heap[Lease],
    ) -> None:
        assert ranges_max >= RANGES_MIN
        self.topic = topic
        self.subscriber = subscriber
        self.durable = owner_id is None
        self.owner_id = owner_id
        """The process that an ephemeral subscription ends with."""
        self.cursor = offset
        self.next = offset
        self.acknowledged = RangeSet()
        self.leases = Leases(self, deadlines)
        self.pulls: dict[WaitingPull, None] = {}
        """The pulls that wait here, the oldest first."""
        self.ack_wait_ns = 30 * NS_PER_S
        self.skipped = 0
        """Messages never granted that the topic no longer keeps, not reported yet."""
        self.lost = 0
        """Messages passed over because they cannot be read any more."""
        self.created = 0
        self.moved_at = 0
        self.last_pull: int | None = None
        # What a durable one acknowledged since ``take_acknowledged``.
        self._untaken: list[Range] = []
        self._ranges_max = ranges_max
        self._growth_max = ranges_max - min(_RESERVE, ranges_max // 4)

    # --- what it is now -----------------------------------------------------------------

    @property
    def ranges(self) -> int:
        """Acknowledged ranges plus leases: what bounds this subscription's memory."""
        return len(self.acknowledged) + len(self.leases)

    @property
    def unread(self) -> int:
        """Messages not acknowledged, of those subscribers may see."""
        return self.topic.visible_next - self.cursor - self.acknowledged.total

    @property
    def redeliver_count(self) -> int:
        """Messages given back and waiting to be granted again."""
        granted = self.next - self.cursor - self.acknowledged.total
        return granted - self.leases.leased_count

    @property
    def has_messages(self) -> bool:
        """Whether a pull would get something now."""
        lease = self.leases.first_ready
        return self._may_grant_new if lease is None else self._grantable_next(lease) > lease.first

    # --- granting -----------------------------------------------------------------------

    def grant(self, member: Member, room: Room, now_ns: int) -> list[Piece]:
        """Lease to ``member`` what ``room`` holds: first what is READY, then what is new."""
        index, leases = self.topic.index, self.leases
        until_ns = now_ns + self.ack_wait_ns
        while not room.is_full and (lease := leases.first_ready) is not None:
            next = self._grantable_next(lease)
            end = room.fill(index, lease.first, next, lease.deliveries + 1)
            if end == lease.first:
                return room.pieces
            if end < lease.next:
                leases.cut(lease, end)
            leases.grant(lease, member, until_ns)
        if not room.is_full and self._may_grant_new:
            end = room.fill(index, self.next, self.topic.visible_next, 1)
            if end > self.next:
                leases.grant(leases.add(self.next, end), member, until_ns)
                self.next = end
        return room.pieces

    @property
    def _may_grant_new(self) -> bool:
        return self.next < self.topic.visible_next and self.ranges < self._growth_max

    def _grantable_next(self, lease: Lease) -> int:
        """How far a READY lease may be granted; its first offset if not at all."""
        if lease.count == 1 or self.ranges < self._ranges_max - 1:
            return lease.next
        return lease.first + (lease.first == self.cursor)

    # --- acknowledging ------------------------------------------------------------------

    def acknowledge(self, member: Member, ranges: list[Range]) -> int:
        """Acknowledge ``ranges`` as far as ``member`` may; how many messages that was.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        cursor = self.cursor
        ranges = merged((max(first, cursor), next) for first, next in ranges if next > cursor)
        if not ranges:
            return 0
        reached = max(self.next, ranges[-1][1])
        # Each range adds two at most, and what was never granted becomes one lease.
        if self.ranges + 2 * len(ranges) + 1 > self._growth_max:
            # What one range takes away is not for another to use: it may be the last place,
            # which is there for the message at the cursor.
            self._check_growth(sum(max(0, self._growth(member, reached, *r)) for r in ranges))
        self._reach(reached)
        count = 0
        for first, next in ranges:
            for lease in self._isolated(first, next, lambda lease: _may_settle(lease, member)):
                count += lease.count
                self.leases.remove(lease)
                self._put_acknowledged(lease.first, lease.next)
        return count

    def take_acknowledged(self) -> list[Range]:
        """What was acknowledged since the last call, of one that is durable."""
        ranges, self._untaken = merged(self._untaken), []
        return ranges

    def restore(self, acknowledged: list[Range]) -> None:
        """Let these ranges, and nothing else at or above the cursor, be acknowledged.

        What lies between them counts as never granted: deliveries and leases are not kept.
        """
        assert self.next == self.cursor
        for first, next in merged(acknowledged):
            if next > self.cursor:
                self._reach(max(first, self.cursor))
                self.next = next
                self._put_acknowledged(max(first, self.cursor), next)
        self._untaken.clear()

    def _put_acknowledged(self, first: int, next: int) -> None:
        if self.durable:
            self._untaken.append((first, next))
        if first == self.cursor:
            self.cursor = self.acknowledged.remove_below(next)
        else:
            self.acknowledged.add(first, next)

    def _reach(self, next: int) -> None:
        """Let everything below ``next`` be a lease, as after a restart that forgot leases."""
        if next > self.next:
            self.leases.add(self.next, next)
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
        count = 0
        for lease in self._leased(member, ranges):
            count += lease.count
            if ready_ns is None:
                self.leases.make_ready(lease)
            else:
                self.leases.delay(lease, ready_ns)
            lease.deliveries -= not counted
        return count

    def take_back(self, member: Member, ranges: list[Range]) -> None:
        """Undo a grant as far as the reply had no room for it: as if never granted.

        Where that would need a cut and the bound on ranges leaves none, the messages stay
        leased until their deadline.
        """
        for first, next in merged(ranges):
            for lease in self._isolated(
                first, next, lambda lease: _has(member, lease), cut_below=self._ranges_max - 1
            ):
                self.leases.make_ready(lease)
                lease.deliveries -= 1

    def lose(self, first: int, next: int) -> list[Range]:
        """Pass over what of ``first <= offset < next`` is not acknowledged; what that was.

        Whoever has it. Where that would need a cut and the bound on ranges leaves none, it
        stays, to be granted again: at the bound that is done in pieces that need no cut.
        """
        first = max(first, self.cursor)
        if first >= next:
            return []
        cut_below = self._ranges_max - 1
        if next > self.next and self.ranges < cut_below:
            self._reach(next)
        lost = []
        for lease in self._isolated(first, next, lambda lease: True, cut_below=cut_below):
            lost.append((lease.first, lease.next))
            self.lost += lease.count
            self.leases.remove(lease)
            self._put_acknowledged(lease.first, lease.next)
        return merged(lost)

    def extend(self, member: Member, ranges: list[Range], now_ns: int) -> int:
        """Renew what ``member`` has leased of ``ranges``; how many messages.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        count = 0
        for lease in self._leased(member, ranges):
            count += lease.count
            self.leases.renew(lease, now_ns + self.ack_wait_ns)
        return count

    def _leased(self, member: Member, ranges: list[Range]) -> list[Lease]:
        """What ``member`` has leased of ``ranges``, as leases of their own."""
        ranges = merged(ranges)
        if self.ranges + 2 * len(ranges) > self._growth_max:
            edges = [edge for range in ranges for edge in range]
            across = [lease for edge in edges if (lease := self.leases.across(edge)) is not None]
            self._check_growth(sum(_has(member, lease) for lease in across))
        return [
            lease
            for first, next in ranges
            for lease in self._isolated(first, next, lambda lease: _has(member, lease))
        ]

    def _isolated(
        self,
        first: int,
        next: int,
        wanted: Callable[[Lease], bool],
        *,
        cut_below: int | None = None,
    ) -> list[Lease]:
        """The wanted leases in ``first <= offset < next``, cut where they reach beyond.

        With ``cut_below``, none is cut while there are that many ranges.
        """
        for edge in (first, next):
            lease = self.leases.across(edge)
            if lease is None or not wanted(lease):
                continue
            if cut_below is None or self.ranges < cut_below:
                self.leases.cut(lease, edge)
        leases = self.leases.beginning_in(first, next)
        return [lease for lease in leases if lease.next <= next and wanted(lease)]

    # --- what ends ------------------------------------------------------------------------

    def skip_reclaimed(self) -> None:
        """Pass over what the topic no longer keeps: an ephemeral subscription holds nothing."""
        kept_from = self.topic.first_offset
        if kept_from <= self.cursor:
            return
        assert not self.durable
        self._reach(kept_from)
        for lease in self._isolated(self.cursor, kept_from, lambda lease: True):
            if lease.deliveries == 0:
                self.skipped += lease.count
            self.leases.remove(lease)
        self.cursor = self.acknowledged.remove_below(kept_from)

    # --- the bound on ranges --------------------------------------------------------------

    def _check_growth(self, growth: int) -> None:
        if growth > 0 and self.ranges + growth > self._growth_max:
            raise LimitExceeded(
                what="acknowledged ranges and leases of a subscription", limit=self._ranges_max
            )

    def _growth(self, member: Member, reached: int, first: int, next: int) -> int:
        """By how many ranges acknowledging this one changes their number, at most.

        A lease that becomes an acknowledged range changes nothing. Cutting one adds a
        range; meeting the cursor or an acknowledged range takes one away. What was never
        granted, up to ``reached``, becomes one lease first.
        """

        def may_settle(offset: int) -> bool:
            lease = self.leases.at(offset)
            return offset >= self.next if lease is None else _may_settle(lease, member)

        def is_cut(edge: int) -> bool:
            return self.next < edge < reached or self.leases.across(edge) is not None

        growth = int(self.next < next == reached)
        if may_settle(first):
            if first == self.cursor:
                # It may be the last place that this takes away: only the rest of the same
                # lease may have it, which then is what stands at the cursor.
                growth -= self.leases.at(first) is self.leases.at(next - 1)
            else:
                growth += -1 if self.acknowledged.ends_at(first) else is_cut(first)
        if may_settle(next - 1):
            growth += -1 if self.acknowledged.begins_at(next) else is_cut(next)
        return growth

    def check(self) -> None:
        """Assert that cursor, leases and acknowledged ranges tile what was granted."""
        assert 0 <= self.cursor <= self.next <= self.topic.visible_next
        acknowledged = list(self.acknowledged)
        leased = [(lease.first, lease.next) for lease in self.leases]
        at = self.cursor
        for first, next in sorted(leased + acknowledged):
            assert first == at < next
            at = next
        assert at == self.next
        assert not acknowledged or acknowledged[0][0] > self.cursor
        assert self.ranges <= self._ranges_max
        if self.ranges == self._ranges_max:
            lowest = self.leases.at(self.cursor)
            assert lowest is not None
            assert lowest.count == 1
        # One that is ephemeral may wait at the bound while reclaiming makes room, until it
        # is looked at: reclaiming does not walk the subscriptions that hold nothing.
        if self.pulls and self.durable:
            assert not self.has_messages
        self.acknowledged.check()
        self.leases.check()


def _has(member: Member, lease: Lease) -> bool:
    """Whether ``member`` has ``lease`` now."""
    return lease.state is LEASED and _may_settle(lease, member)


def _may_settle(lease: Lease, member: Member) -> bool:
    """Whether ``member`` may acknowledge ``lease``: nobody else was granted it since.

    A process is the same before and after a reconnect.
    """
    return lease.member is None or lease.member.id == member.id

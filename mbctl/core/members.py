"""The reading processes: who is connected, and who is gone but may come back."""

from typing import TYPE_CHECKING

from mbctl.core.heap import Heap
from mbctl.model import NS_PER_S, Limits

if TYPE_CHECKING:
    from mbctl.core.leases import Lease
    from mbctl.core.pulls import WaitingPull
    from mbctl.core.subscription import Subscription


class Member:
    """One process that reads under a subscriber's name."""

    __slots__ = ("durable", "ephemeral", "id", "leases", "pulls", "subscriber")

    def __init__(self, id: bytes, subscriber: str, *, durable: bool) -> None:
        self.id = id
        self.subscriber = subscriber
        self.durable = durable
        self.leases: dict[Lease, None] = {}
        """What it was granted and has not settled."""
        self.pulls: dict[WaitingPull, None] = {}
        self.ephemeral: dict[Subscription, None] = {}
        """The subscriptions that end with this process, a while after its connection."""


class Members:
    """All reading processes, by id."""

    def __init__(self, limits: Limits) -> None:
        self._idle_ns = limits.ephemeral_idle_s * NS_PER_S
        self._known: dict[bytes, Member] = {}
        # Those whose connection is gone and that have ephemeral subscriptions.
        self._gone: dict[bytes, Member] = {}
        self.deadlines: Heap[Member] = Heap()
        """When ``pop_due`` has each of those who are gone."""

    def get(self, member_id: bytes) -> Member | None:
        """The connected process of that id."""
        return self._known.get(member_id)

    def add(self, member_id: bytes, subscriber: str, *, durable: bool) -> Member:
        """A process that connects; it has the ephemeral subscriptions it had before."""
        assert member_id not in self._known
        member = Member(member_id, subscriber, durable=durable)
        gone = self._gone.pop(member_id, None)
        if gone is not None:
            self.deadlines.remove(gone)
            member.ephemeral = gone.ephemeral
        self._known[member_id] = member
        return member

    def remove(self, member: Member, now_ns: int) -> None:
        """Count it as gone; ``pop_due`` gives it when it stayed away for too long."""
        assert not member.leases
        assert not member.pulls
        del self._known[member.id]
        if member.ephemeral:
            self._gone[member.id] = member
            self.deadlines.set(member, now_ns + self._idle_ns)

    def forget(self, subscription: "Subscription") -> None:
        """Let an ephemeral subscription that ended be nobody's."""
        owner_id = subscription.owner_id
        assert owner_id is not None
        owner = self._known.get(owner_id) or self._gone.get(owner_id)
        if owner is not None:
            owner.ephemeral.pop(subscription, None)

    def pop_due(self, now_ns: int) -> Member | None:
        """Forget and return a process that did not come back in time, if there is one."""
        member = self.deadlines.pop_through(now_ns)
        if member is not None:
            del self._gone[member.id]
        return member

    def check(self) -> None:
        """Assert that those who are gone have a deadline, and that nothing is theirs."""
        assert not set(self._known) & set(self._gone)
        assert len(self.deadlines) == len(self._gone)
        for member in self._gone.values():
            assert member in self.deadlines
            assert not member.leases
            assert not member.pulls
        for member in (*self._known.values(), *self._gone.values()):
            assert all(subscription.owner_id == member.id for subscription in member.ephemeral)
        self.deadlines.check()

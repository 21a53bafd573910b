"""The broker's state and its verbs: one object that owns everything.

Every verb takes ``now_ns``, changes state at once, and returns what there is to do:
an answer, or ``Wake``s for pulls that had been waiting. The verbs are in ``publishing``,
``subscribing``, ``pulling``, ``settling``, ``redelivering`` and ``restoring``, on the state in
``parts``; here is what becomes of it all: what is to be stored, and what time brings.

What is on its way to the disk: ``send`` accepts a batch, and ``reveal`` lets subscribers see
it when it is durable. ``take_changes`` gives what was acknowledged and is to be made durable,
with the places that nobody needs once it is. The ``restore_`` verbs bring back what was.
"""

from mbctl.core.changes import Changes
from mbctl.core.grant import Wake
from mbctl.core.publishing import Publishing
from mbctl.core.redelivering import Redelivering
from mbctl.core.restoring import Restoring
from mbctl.core.settling import Settling
from mbctl.core.subscribing import Subscribing
from mbctl.errors import NotSubscribed


class Broker(Publishing, Subscribing, Settling, Redelivering, Restoring):
    """Topics, publishers and subscriptions of one engine."""

    # --- what is to be stored -------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether ``take_changes`` may have something."""
        return bool(self._untaken)

    def take_changes(self) -> Changes:
        """What was settled and given up since the last call, to be stored in this order."""
        return self._untaken.take()

    # --- what time brings -----------------------------------------------------------------

    def may_be_due_before(self, when_ns: int) -> bool:
        """Whether ``next_deadline_ns`` may be below ``when_ns``: asked with each request."""
        if self._unserved:
            return True
        for deadlines in self._deadlines:
            heap = deadlines.heap
            if heap and heap[0][0] < when_ns:
                return True
        return False

    def next_deadline_ns(self) -> int | None:
        """When ``expire`` has something to do next, or None. It may be past."""
        if self._unserved:
            return 0
        nearest = None
        for heap in self._deadlines:
            when_ns = heap.lowest()
            if when_ns is not None and (nearest is None or when_ns < nearest):
                nearest = when_ns
        return nearest

    def expire(self, now_ns: int, wall_ns: int) -> list[Wake]:
        """Do what is due: give up old messages, end leases and waits, forget who is gone.

        Old messages first, then leases: a pull whose time is up still gets what has come free
        by then. ``wall_ns`` is the time by which messages are old.
        """
        touched = self._unserved
        self._unserved = {}
        for topic in self._retention.expire(now_ns, wall_ns):
            touched.update(topic.waiting)
        while (lease := self._agenda.deadlines.pop_through(now_ns)) is not None:
            lease.subscription.end_lease(lease)
            touched[lease.subscription] = None
        wakes = self._pulls.serve(touched, now_ns) + self._pulls.expire(now_ns)
        while (member := self._members.pop_due(now_ns)) is not None:
            for subscription in list(member.ephemeral):
                wakes += self._end_subscription(
                    subscription,
                    NotSubscribed(
                        topic=subscription.topic.name, subscriber=subscription.subscriber
                    ),
                )
        self._publishers.expire(now_ns)
        return wakes

    def check(self) -> None:
        """Assert what must hold between two verbs. Slow: for tests."""
        self.topics.check()
        subscriptions = [s for topic in self.topics for s in topic.subscriptions.values()]
        assert self.subscription_count == len(subscriptions) <= self.limits.subscriptions
        assert set(self._untaken.subscriptions) <= {s for s in subscriptions if s.durable}
        assert set(self._untaken.topics) <= set(self.topics)
        leases = [lease for subscription in subscriptions for lease in subscription.leases]
        deadlines, exhausted = self._agenda.deadlines, self._agenda.exhausted
        assert len(deadlines) == sum(lease in deadlines for lease in leases)
        assert len(exhausted) == sum(lease in exhausted for lease in leases)
        assert set(self._agenda.recounted) <= {s for s in subscriptions if s.durable}
        assert set(self._unserved) <= set(subscriptions)
        for subscription in subscriptions:
            # One that is ephemeral may wait at the bound while reclaiming makes room, until it
            # is looked at: reclaiming does not walk the subscriptions that hold nothing. So may
            # any where a send gave up messages, until that send becomes visible.
            topic = subscription.topic
            is_looked_at = subscription.durable and topic.visible_next == topic.next_offset
            if subscription.pulls and is_looked_at and subscription not in self._unserved:
                assert not subscription.has_messages
        deadlines.check()
        self._retention.check(list(self.topics))
        self._pulls.check(subscriptions)
        self._members.check()
        self._publishers.check()

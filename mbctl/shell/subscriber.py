"""What the subscriber shell does with the verbs that are its own."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions import receiving, subscriptions, text
from mbctl.actions.messages import Look
from mbctl.actions.output import Output
from mbctl.actions.subscriptions import show_subscriptions
from mbctl.errors import InvalidArgument, MbctlError, NotSubscribed, RequestRefused
from mbctl.model import SubscribeOptions
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c
from mbctl.shell.follower import Beside, Follower

if TYPE_CHECKING:
    from mbctl import Admin, Subscriber
    from mbctl.client.messages import Batch
    from mbctl.model import SubscriptionInfo

# As many as one reply can hold of small messages; memory for a few MiB.
_PULL_CHUNK = 10_000

# Names of an error message; the rest is counted.
_NAMES_SHOWN = 8


_NOTHING: "tuple[str, list[Batch]]" = ("", [])


class SubscriberSide:
    """A registered subscriber, its verbs, and what it has pulled and not acknowledged.

    The next pull of a topic acknowledges the last one, as in the Python API. It is done
    here rather than there, so that `nack` still finds a batch open after a pull that
    looked once more and found nothing.
    """

    def __init__(
        self,
        options: ShellOptions,
        output: Output,
        admin: "Callable[[], Admin]",
        beside: Beside | None = None,
    ) -> None:
        self._options = options
        self._output = output
        self._admin = admin
        self._beside = beside
        self._follower: Follower | None = None
        self._lock = threading.Lock()
        """Held by the verb or the follower that uses the subscriber."""
        self._name = options.name
        self._subscriber = self._connect(options.name)
        self._last: tuple[str, list[Batch]] = _NOTHING
        """The topic and the batches that ``ack`` and ``nack`` are about."""
        self._unsettled: dict[str, Batch] = {}
        """By topic, what its next pull acknowledges."""

    @property
    def label(self) -> str:
        """Who is registered, in a word or two."""
        return f"subscriber {self._name}" if self._name else "ephemeral subscriber"

    @property
    def subscriber(self) -> str:
        """The name by which the server lists the subscriptions."""
        return self._subscriber.subscriber

    @property
    def is_durable(self) -> bool:
        """Whether the subscriptions outlive the shell."""
        return self._name is not None

    @property
    def unsettled(self) -> int:
        """Messages that were shown and that the next pull, or leaving, acknowledges."""
        return sum(map(len, self._unsettled.values()))

    @property
    def left_open(self) -> int:
        """Messages that were shown and that only ``ack`` acknowledges."""
        topic, batches = self._last
        return 0 if topic in self._unsettled else sum(map(len, batches))

    @property
    def following(self) -> Follower | None:
        """What shows messages while a line is typed."""
        return self._follower if self._follower and self._follower.is_running else None

    def register(self, name: str | None) -> None:
        """Begin again as ``name``; the old subscriber goes on if that fails."""
        subscriber = self._connect(name)
        self._leave()
        self._subscriber, self._name = subscriber, name
        self._output.done({"subscriber": self.subscriber}, f"registered as {self.label}")

    def execute(self, command: c.Command) -> None:
        """Carry out ``command`` and show what it did."""
        if isinstance(command, c.Follow) and command.topics[:1] in (("on",), ("off",)):
            self._follow_beside(command)
            return
        with self._lock:
            self._execute(command)

    def _execute(self, command: c.Command) -> None:
        match command:
            case c.Subscribe(topic):
                values = msgspec.structs.asdict(command)
                del values["topic"]
                options = SubscribeOptions(**values)
                receiving.subscribe(self._subscriber, self._output, topic, options)
            case c.Unsubscribe(topic):
                receiving.unsubscribe(self._subscriber, self._output, topic)
                self._forget(topic)
            case c.Seek(topic, start):
                receiving.seek(self._subscriber, self._output, topic, start)
                self._forget(topic)
            case c.Release(topic, offsets):
                admin, who = self._admin(), self.subscriber
                subscriptions.release_parked(admin, self._output, topic, who, offsets or None)
            case c.Drop(topic, offsets):
                admin, who = self._admin(), self.subscriber
                subscriptions.drop_parked(admin, self._output, topic, who, offsets or None)
            case c.Pull():
                self._pull(command)
            case c.Ack():
                count = sum(batch.ack() for batch in self._take_last("acknowledge"))
                shown = text.counted(count, "message")
                self._output.done({"acknowledged": count}, f"acknowledged {shown}")
            case c.Nack(delay):
                self._nack(delay)
            case c.Extend():
                self._extend()
            case c.Follow(names, template, full):
                self._follow(names, Look(template, full))
            case c.Subscriptions():
                show_subscriptions(self.subscriptions(), self._output, "no subscriptions")
            case _:
                raise AssertionError(f"the grammar lets no {command} into this shell")

    def subscriptions(self) -> "list[SubscriptionInfo]":
        """The subscriptions of this subscriber, as the server knows them."""
        return [i for i in self._admin().subscriptions() if i.subscriber == self.subscriber]

    def close(self, *, clean: bool) -> None:
        """Leave; if ``clean``, what was shown and not given back is acknowledged first."""
        if clean:
            self._leave()
        elif self._end_following():
            self._subscriber.close()

    def _connect(self, name: str | None) -> "Subscriber":
        from mbctl import Subscriber

        return Subscriber(self._options.server, name, timeout=self._options.timeout)

    def _leave(self) -> None:
        """Acknowledge all that was shown and not given back, and close the connection."""
        self._end_following()
        for topic in list(self._unsettled):
            self._settle(topic)
        # If what was followed last is gone, there is nothing left to acknowledge.
        with suppress(RequestRefused):
            self._subscriber.settle_all()
        self._last = _NOTHING
        self._subscriber.close()

    def _pull(self, command: c.Pull) -> None:
        topic = command.topic or self._only_topic()
        left = command.max_messages or receiving.PULL_COUNT
        wait = command.wait or 0.0
        pulled: list[Batch] = []
        self._settle(topic)
        with self._output.messages(Look(command.template, command.full)) as writer:
            while left > 0:
                chunk = min(left, _PULL_CHUNK)
                batch = self._subscriber.pull(topic, chunk, wait=wait, auto_ack=False)
                if not batch:
                    break
                receiving.write_batch(self._output, writer, batch)
                if not command.no_ack:
                    # Of many batches only the last stays open.
                    self._settle(topic)
                    self._unsettled[topic] = batch
                    pulled.clear()
                pulled.append(batch)
                self._last = (topic, pulled)
                left -= len(batch)
                wait = 0.0
        if not pulled:
            self._output.note(f"no new messages in {text.escape(topic)}")

    def _settle(self, topic: str) -> None:
        """Acknowledge what the last pull of ``topic`` showed."""
        batch = self._unsettled.pop(topic, None)
        if batch is None:
            return
        if self._last[0] == topic:
            self._last = _NOTHING
        try:
            batch.ack()
        except RequestRefused:
            # The topic or the subscription is gone: there is nothing left to acknowledge,
            # and the verb that runs now will say so if it matters to it.
            return

    def _forget(self, topic: str) -> None:
        """Leave alone what was pulled of ``topic``: there is nothing to acknowledge any more."""
        self._unsettled.pop(topic, None)
        if self._last[0] == topic:
            self._last = _NOTHING

    def _take_last(self, purpose: str) -> "list[Batch]":
        (topic, batches), self._last = self._last, _NOTHING
        if not batches:
            raise InvalidArgument(reason=f"there is nothing to {purpose}: pull first")
        self._unsettled.pop(topic, None)
        return batches

    def _nack(self, delay: float) -> None:
        batches = self._take_last("give back")
        for batch in batches:
            batch.nack(delay)
        count = sum(map(len, batches))
        when = f" in {delay:g} s" if delay else ""
        shown = text.counted(count, "message")
        self._output.done(
            {"returned": count, "delay": delay}, f"gave back {shown}, to come again{when}"
        )

    def _extend(self) -> None:
        if not self._last[1]:
            raise InvalidArgument(reason="there is nothing to extend: pull first")
        count = sum(batch.extend() for batch in self._last[1])
        shown = text.counted(count, "message")
        self._output.done({"extended": count}, f"{shown} stay here for longer")

    def _follow(self, names: Sequence[str], look: Look) -> None:
        receiving.follow(self._subscriber, self._output, self._to_follow(names), look=look)

    def _to_follow(self, names: Sequence[str]) -> list[str]:
        """The topics to follow, with nothing of an earlier pull left to acknowledge."""
        followed = list(names) or [info.topic for info in self.subscriptions()]
        if not followed:
            raise InvalidArgument(reason="there is no subscription to follow: subscribe first")
        for topic in followed:
            self._settle(topic)
        return followed

    def _follow_beside(self, command: c.Follow) -> None:
        """Begin or end following while lines are typed."""
        word, *names = command.topics
        was_following = self.following is not None
        if word == "off":
            self._end_following()
            sentence = "stopped following" if was_following else "nothing was followed"
            self._output.note(sentence)
            return
        if self._beside is None:
            raise InvalidArgument(reason="follow on needs a terminal to type at; say follow")
        self._end_following()
        with self._lock:
            topics = self._to_follow(names)
            known = {info.topic for info in self.subscriptions()}
        for topic in topics:
            if topic not in known:
                raise NotSubscribed(topic=topic, subscriber=self.subscriber)
        self._follower = Follower(
            self._subscriber,
            self._lock,
            self._beside,
            topics=topics,
            look=Look(command.template, command.full),
            unread=self._unread,
        )
        self._output.note(f"following {', '.join(topics)}; follow off ends it")

    def _end_following(self) -> bool:
        """Follow no more, and acknowledge what was shown; False if the server keeps it busy."""
        follower, self._follower = self._follower, None
        if follower is None:
            return True
        if not follower.stop():
            return False
        with self._lock, suppress(MbctlError):
            self._subscriber.settle_all()
        return True

    def _unread(self, topics: list[str]) -> int:
        return sum(info.unread or 0 for info in self.subscriptions() if info.topic in topics)

    def _only_topic(self) -> str:
        names = [info.topic for info in self.subscriptions()]
        if len(names) == 1:
            return names[0]
        if not names:
            raise InvalidArgument(reason="there is no subscription to pull from: subscribe first")
        shown = ", ".join(names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise InvalidArgument(reason=f"there are several subscriptions, pull one: {shown}{more}")

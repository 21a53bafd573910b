"""The verbs of subscribers, and those that an operator has for their subscriptions."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from mbctl import batch as batches
from mbctl.engine.interface import Done, Pulled, Timer
from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import ApiError, translated
from mbctl.engine.jetstream.confirmed import Confirmed
from mbctl.engine.jetstream.entries import BatchEntry
from mbctl.engine.jetstream.held import LEASED, NEW, Held, Part
from mbctl.engine.jetstream.marks import Found
from mbctl.engine.jetstream.publishing import Publishing
from mbctl.engine.jetstream.reader import Reader
from mbctl.engine.jetstream.serving import Pull
from mbctl.engine.jetstream.topics import Topic
from mbctl.errors import (
    InvalidArgument,
    MbctlError,
    OffsetOutOfRange,
    ProtocolError,
    SubscriptionNotFound,
    TopicNotFound,
)
from mbctl.model import (
    NS_PER_MS,
    NS_PER_S,
    Range,
    Sought,
    Start,
    Subscribed,
    SubscribeOptions,
    check_name,
    check_options,
)
from mbctl.ranges import RangeSet, merged, without

T = TypeVar("T")


class Member:
    """One process that reads under a subscriber's name."""

    __slots__ = ("id", "readers", "subscriber", "timer")

    def __init__(self, id: bytes, subscriber: str) -> None:
        self.id = id
        self.subscriber = subscriber
        self.readers: dict[Reader, None] = {}
        self.timer: Timer | None = None
        """While its connection is gone: when its ephemeral subscriptions end."""


class Subscribing(Publishing):
    """Registers subscribers, grants what they pull, settles what they were granted."""

    # --- members --------------------------------------------------------------------------

    def register_subscriber(self, member: bytes, name: str | None, done: Done[str]) -> None:
        """Make a reading process known; the answer is its subscriber's name."""
        try:
            self._check_running()
            subscriber = f"~{member.hex()}" if name is None else check_name(name)
        except MbctlError as error:
            done(error)
            return
        self.close_member(member)
        gone = self.gone.pop(member, None)
        known = Member(member, subscriber)
        if gone is not None:
            if gone.timer is not None:
                gone.timer.cancel()
            # Those that it does not read again end when it goes for good.
            known.readers = gone.readers
        self.members[member] = known
        done(subscriber)

    def close_member(self, member: bytes) -> None:
        """Release the leases of a process whose connection is gone."""
        known = self.members.pop(member, None)
        if known is None:
            return
        for number in [n for n, pull in self.resolving.items() if pull.member == member]:
            self.cancel_pull(number)
        for reader in list(known.readers):
            reader.release(member)
        if names.is_ephemeral(known.subscriber) and known.readers and not self.is_stopped:
            when_ns = self.runtime.now_ns() + self.limits.ephemeral_idle_s * NS_PER_S
            known.timer = self.runtime.call_at(when_ns, lambda: self._forget(known))
            self.gone[member] = known

    def _forget(self, member: Member) -> None:
        """End the ephemeral subscriptions of a process that did not come back."""
        self.gone.pop(member.id, None)
        for reader in list(member.readers):
            if not reader.is_ended:
                self.spawn(self._delete(reader.topic, reader.subscriber))

    async def _delete(self, topic: Topic, subscriber: str) -> None:
        try:
            await self.consumers.delete(topic, subscriber)
        except SubscriptionNotFound:
            pass
        finally:
            self.end_reader(topic.name, subscriber)

    def _member(self, member: bytes) -> Member:
        known = self.members.get(member)
        if known is None:
            raise ProtocolError(reason="this needs a registered subscriber")
        return known

    # --- subscribing ----------------------------------------------------------------------

    def subscribe(
        self, member: bytes, topic: str, options: SubscribeOptions, done: Done[Subscribed]
    ) -> None:
        """Create the subscription or keep its place."""

        async def verb() -> Subscribed:
            known = self._member(member)
            found, _ = await self.registry.look(topic)
            check_options(options)
            if options.dead_letter is not None:
                if options.dead_letter == topic:
                    raise InvalidArgument(reason="a topic cannot be its own dead-letter topic")
                await self.registry.look(options.dead_letter)
            subscribed = await self.consumers.subscribe(found, known.subscriber, options)
            reader = self._reader_for(known, found, options)
            reader.options = options
            if subscribed.created:
                if reader.is_durable and reader.consumer:
                    # That was of one that has ended, and it was not heard.
                    reader.moved()
                reader.begin_at(names.sequence_of(subscribed.offset))
            return subscribed

        self.answer(done, verb)

    def _reader_for(self, member: Member, topic: Topic, options: SubscribeOptions) -> Reader:
        reader = self.readers.get((topic.name, member.subscriber))
        if reader is not None and reader.topic.topic_id != topic.topic_id:
            reader.end(TopicNotFound(topic=topic.name))
            reader = None
        if reader is None:
            reader = Reader(self, topic, member.subscriber, options)
            self.readers[topic.name, member.subscriber] = reader
        reader.members.add(member.id)
        member.readers[reader] = None
        return reader

    async def _find_reader(self, member: bytes, topic: str) -> Reader:
        """The reader of a process in a topic.

        Raises:
            TopicNotFound, NotSubscribed: there is no such thing.
        """
        known = self._member(member)
        found = await self.registry.get(topic)
        if (topic, known.subscriber) not in self.readers:
            found, _ = await self.registry.look(topic)
            options = await self.consumers.options(found, known.subscriber)
            return self._reader_for(known, found, options)
        reader = self.readers[topic, known.subscriber]
        return self._reader_for(known, reader.topic, reader.options)

    def _known_reader(self, member: bytes, topic: str) -> Reader | None:
        known = self._member(member)
        reader = self.readers.get((topic, known.subscriber))
        if reader is None or member not in reader.members:
            return None
        return reader

    def unsubscribe(self, topic: str, subscriber: str, done: Done[None]) -> None:
        """Delete a subscription; what only it held is given up."""

        async def verb() -> None:
            found, _ = await self.registry.look(topic)
            await self.consumers.delete(found, subscriber)
            self.tell("unsubscribed", topic, found.topic_id, subscriber)
            self.end_reader(topic, subscriber)
            self.reclaiming.soon(found)

        self.answer(done, verb)

    # --- pulling --------------------------------------------------------------------------

    def pull(
        self,
        member: bytes,
        topic: str,
        *,
        max_messages: int,
        max_bytes: int,
        wait_ms: int,
        done: Done[Pulled],
    ) -> int | None:
        """Answer with messages as soon as there are some, empty after ``wait_ms``."""
        max_bytes = min(max_bytes, self.limits.pull_bytes)
        try:
            self._check_running()
            if max_messages < 1 or max_bytes < 1:
                raise InvalidArgument(reason="a pull asks for at least 1 message and 1 byte")
            reader = self._known_reader(member, topic)
        except MbctlError as error:
            done(error)
            return None
        pull = Pull(self.new_place(), member, max_messages, max_bytes, done)
        if reader is not None:
            self.pulls[pull.number] = reader
            reader.serving.pull(pull, wait_ms)
        else:
            self.resolving[pull.number] = pull
            self.spawn(self._pull_later(pull, topic, wait_ms))
        return pull.number

    async def _pull_later(self, pull: Pull, topic: str, wait_ms: int) -> None:
        try:
            reader = await self._find_reader(pull.member, topic)
        except (MbctlError, ApiError) as error:
            if self.resolving.pop(pull.number, None) is not None:
                pull.done(translated(error))
            return
        if self.resolving.pop(pull.number, None) is not None:
            self.pulls[pull.number] = reader
            reader.serving.pull(pull, wait_ms)

    def cancel_pull(self, pull: int) -> None:
        """Answer a waiting pull now, empty; nothing if it has been answered."""
        resolving = self.resolving.pop(pull, None)
        if resolving is not None:
            resolving.done(Pulled(0, 0, []))
        reader = self.pulls.get(pull)
        if reader is not None:
            reader.serving.cancel(pull)

    # --- settling -------------------------------------------------------------------------

    def ack(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Acknowledge; answer when that is durable."""

        async def verb() -> int:
            reader, found = await self._to_settle(member, topic, topic_id, ranges)
            changed = self._acknowledge(reader, found, member)
            return await reader.keeping.confirm(changed)

        self.answer(done, verb)

    def ack_with_pull(self, member: bytes, topic: str, topic_id: int, ranges: list[Range]) -> None:
        """Acknowledge what can be; what cannot is delivered again, as if nothing had been said."""
        try:
            reader = self._known_reader(member, topic)
            if reader is None or reader.topic.topic_id != topic_id or self.is_stopped:
                return
            found = self._batches(reader, ranges)
        except MbctlError:
            return
        changed = self._acknowledge(reader, found, member)
        if changed:
            self.spawn(self._confirm(reader, changed))

    async def _confirm(self, reader: Reader, changed: list[tuple[Held, int]]) -> None:
        await reader.keeping.confirm(changed)

    async def _to_settle(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range]
    ) -> tuple[Reader, list[tuple[Held, list[Range]]]]:
        """The reader that ``ranges`` are of, and what they are of the batches in hand.

        Raises:
            TopicNotFound, NotSubscribed, OffsetOutOfRange: they cannot be any.
        """
        reader = self._known_reader(member, topic)
        if reader is None:
            reader = await self._find_reader(member, topic)
        if reader.topic.topic_id != topic_id:
            raise TopicNotFound(topic=topic)
        if reader.mending.is_due:
            # It may have been granted by a server that died before this was answered.
            await reader.mending.mend()
        return reader, self._batches(reader, ranges)

    def _batches(self, reader: Reader, ranges: list[Range]) -> list[tuple[Held, list[Range]]]:
        last = reader.topic.last_sequence
        next_offset = names.offset_of(last + 1)
        for first, next in ranges:
            held = reader.held.get(names.sequence_of(next - 1)) if next > 0 else None
            top = next_offset
            if held is not None:
                top = names.offset_of(held.sequence, held.count)
            if not 0 <= first < next <= top:
                raise OffsetOutOfRange(
                    topic=reader.topic.name, offset=max(first, next - 1), next_offset=next_offset
                )
        found: dict[int, list[Range]] = {}
        for one in ranges:
            low, high = names.sequence_of(one[0]), names.sequence_of(one[1] - 1)
            # One that spans many batches is looked for in what is in hand.
            span = range(low, high + 1) if high - low < len(reader.held) else list(reader.held)
            for sequence in span:
                if sequence in reader.held and low <= sequence <= high:
                    found.setdefault(sequence, []).append(one)
        return [
            (held := reader.held[sequence], names.within(some, sequence, held.count))
            for sequence, some in found.items()
        ]

    def _acknowledge(
        self, reader: Reader, found: list[tuple[Held, list[Range]]], member: bytes
    ) -> list[tuple[Held, int]]:
        """Take out what this process may acknowledge, at once; what is to be confirmed of it."""

        def may(part: Part) -> bool:
            # What nobody was granted here may be acknowledged by who had it elsewhere.
            return part.member in (member, None) and part.state is not NEW

        changed = []
        for held, ranges in found:
            count = held.acknowledge(ranges, may)
            if count:
                changed.append((held, count))
                if held.is_done:
                    reader.keeping.leaving[held.sequence] = held
                reader.changed(held)
        if changed:
            reader.wake()
        return changed

    def nack(
        self,
        member: bytes,
        topic: str,
        topic_id: int,
        ranges: list[Range],
        *,
        delay_ms: int,
        counted: bool,
        done: Done[int],
    ) -> None:
        """Give leased messages back, at once or after ``delay_ms``."""

        async def verb() -> int:
            reader, found = await self._to_settle(member, topic, topic_id, ranges)
            ready_ns = self.runtime.now_ns() + delay_ms * NS_PER_MS if delay_ms else None
            count = 0
            for held, some in found:
                parts = held.chosen(some, _is_with(member))
                for part in parts:
                    count += part.count
                    if counted:
                        reader.end_lease(part, ready_ns=ready_ns)
                    else:
                        part.deliveries -= 1
                        part.state = "ready" if part.deliveries else NEW
                if parts:
                    if counted and reader.options.max_deliveries is not None:
                        await reader.keeping.store(held)
                    if held.sequence in reader.held:
                        reader.changed(held)
            reader.wake()
            return count

        self.answer(done, verb)

    def extend(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Renew leases."""

        async def verb() -> int:
            reader, found = await self._to_settle(member, topic, topic_id, ranges)
            until_ns = self.runtime.now_ns() + reader.ack_wait_ns
            count = 0
            for held, some in found:
                for part in held.chosen(some, _is_with(member)):
                    part.until_ns = until_ns
                    count += part.count
            return count

        self.answer(done, verb)

    # --- subscriptions by name ------------------------------------------------------------

    def seek(self, topic: str, subscriber: str, start: Start, done: Done[Sought]) -> None:
        """Move a subscription; its leases end and older acknowledgements change nothing."""

        async def verb() -> Sought:
            found, _ = await self.registry.look(topic)
            reader = self.readers.get((topic, subscriber))
            if reader is not None:
                reader.pause()
            try:
                return await self.consumers.seek(found, subscriber, start)
            finally:
                if reader is not None:
                    reader.go_on()

        self.answer(done, verb)

    def release_parked(
        self, topic: str, subscriber: str, ranges: list[Range] | None, done: Done[int]
    ) -> None:
        """Let parked messages, of these ranges or all, be delivered again; how many."""
        self.answer(done, lambda: self._decide(topic, subscriber, ranges, is_dropped=False))

    def drop_parked(
        self, topic: str, subscriber: str, ranges: list[Range] | None, done: Done[int]
    ) -> None:
        """Acknowledge parked messages, of these ranges or all, for the subscription; how many."""
        self.answer(done, lambda: self._decide(topic, subscriber, ranges, is_dropped=True))

    async def _decide(
        self, topic: str, subscriber: str, ranges: list[Range] | None, *, is_dropped: bool
    ) -> int:
        found, _ = await self.registry.look(topic)
        of = await self.consumers.find(found, subscriber)
        if of is None:
            raise SubscriptionNotFound(topic=topic, subscriber=subscriber)
        count = 0
        for sequence, entry, revision in await self.consumers.parked(found, of):
            body = await self.batch_at(found, sequence)
            size = 1 << names.INDEX_BITS
            wanted = [(0, size)] if ranges is None else names.within(ranges, sequence, size)
            count_in = 0 if body is None else batches.count_of(body)
            changed, some = _decided(entry, count_in, wanted, is_dropped=is_dropped)
            if not some:
                continue
            key = names.batch_key(found.topic_id, subscriber, of.mark, sequence)
            new = await self.api.put(key, entries.encode(changed), revision)
            if new is None:
                continue
            count += some
            reader = self.readers.get((topic, subscriber))
            if reader is not None and sequence in reader.held:
                reader.drop(reader.held[sequence])
            await self._deliver_anew(found, of, sequence, changed, count_in)
        return count

    async def _deliver_anew(
        self, topic: Topic, of: Found, sequence: int, entry: BatchEntry, count: int
    ) -> None:
        """Have a batch delivered whose entry was changed, or acknowledged if all of it is."""
        is_done = sum(high - low for low, high in entry.acknowledged) >= count
        known = await self.api.consumer(topic.stream, of.name)
        last = 1 if known is None else int(known["delivered"]["consumer_seq"])
        subject = names.acknowledge_of(topic.stream, of.name, sequence, last)
        await self.api.ask(subject, b"+ACK" if is_done else b"-NAK")
        if is_done:
            if of.mark:
                await Confirmed(self, topic, of.subscriber, mark=of.mark).note(sequence)
            key = names.batch_key(topic.topic_id, of.subscriber, of.mark, sequence)
            await self.api.remove(names.BUCKET, key)
            self.reclaiming.soon(topic)


def _is_with(member: bytes) -> Callable[[Part], bool]:
    return lambda part: part.state is LEASED and part.member == member


def _decided(
    entry: BatchEntry, count: int, wanted: list[Range], *, is_dropped: bool
) -> tuple[BatchEntry, int]:
    """The entry with what is parked in ``wanted`` decided; of how many messages."""
    parked = RangeSet()
    for first, next in entry.parked:
        for low, high in wanted:
            if max(first, low) < min(next, high, count):
                parked.add(max(first, low), min(next, high, count))
    decided = list(parked)
    acknowledged = [*entry.acknowledged, *decided] if is_dropped else entry.acknowledged
    changed = msgspec.structs.replace(
        entry,
        acknowledged=merged(acknowledged),
        counts=[
            (first, next, deliveries)
            for low, high, deliveries in entry.counts
            for first, next in without([(low, high)], decided)
        ],
        parked=without(entry.parked, decided),
    )
    return changed, parked.total

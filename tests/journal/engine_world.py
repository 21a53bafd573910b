"""A local engine on a journal on a simulated disk that crashes, and a ledger of all it said.

The ledger knows what was asked for and what was answered, over all crashes. After each the
journal is compared with it: what was answered must hold, what was not may have happened or
not, and nothing else may be there.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simulated_disk import Call, SimulatedDisk
from virtual_turns import VirtualTurns

from mbctl import batch as batches
from mbctl.engine.interface import Created, Pulled
from mbctl.engine.local import LocalEngine
from mbctl.errors import MbctlError
from mbctl.files import Buffer, Directory
from mbctl.journal.disk import JournalOptions, open_journal
from mbctl.journal.records import Damaged, Recovered, RecoveredTopic
from mbctl.model import (
    NS_PER_MS,
    Limits,
    Range,
    Receipt,
    Subscribed,
    SubscribeOptions,
    TopicSettings,
)
from mbctl.ranges import merged

WINDOW = 4
LIMITS = Limits(sends_in_flight=WINDOW)
OPTIONS = JournalOptions(segment_bytes=2048, snapshot_bytes=4096, tail_bytes=1024, window=WINDOW)
PAGE_BYTES = 256
NAMES = ("orders", "returns")
READERS = ("billing", "audit")


class Crashed(BaseException):
    """The process is gone."""


class CrashingDisk(SimulatedDisk):
    """A disk whose process is killed before one of its calls, or in the middle of a write."""

    crash_in: int | None = None
    """After so many calls more."""
    chance: random.Random

    def _called(self, kind: str, path: str) -> int | None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise Crashed(str(Call(len(self.calls), kind, path)))
        return super()._called(kind, path)

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
        try:
            return super().pwritev(descriptor, buffers, position)
        except Crashed:
            self.crash_in = None
            data = b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers)
            pages = self.chance.randint(0, len(data) // self.page_bytes)
            super().pwritev(descriptor, [data[: pages * self.page_bytes]], position)
            raise


# --- the ledger -------------------------------------------------------------------------------


class Send:
    """A send: where it went, and what became of it."""

    def __init__(self, sequence: int, topic: "Topic", payloads: list[bytes]) -> None:
        self.sequence = sequence
        self.topic = topic
        self.payloads = payloads
        self.offset: int | None = None
        """Where it is stored, once it is known to be."""
        self.is_refused = False
        self.is_abandoned = False
        """Whether its topic ended before it was answered: nobody will ever know."""

    @property
    def is_open(self) -> bool:
        """Whether its outcome will be asked for."""
        return self.offset is None and not self.is_refused and not self.is_abandoned


class Session:
    """A publisher session: its sends, of which the last ones may be retried."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.sends: list[Send] = []

    @property
    def open_sends(self) -> list[Send]:
        """The sends that were not answered."""
        return [send for send in self.sends if send.is_open]


class Reader:
    """A durable subscription of one topic."""

    def __init__(self) -> None:
        self.is_certain = False
        """Whether it is known to exist."""
        self.is_ending = False
        self.start: int | None = None
        self.held: set[int] = set()
        """Delivered and not acknowledged since: a reader outlives the server."""
        self.requested: set[int] = set()
        self.confirmed: set[int] = set()


class Topic:
    """A topic, from its creation to its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.topic_id: int | None = None
        """None until it is known to exist."""
        self.is_ending = False
        self.contents: dict[int, bytes] = {}
        """By offset, what was acknowledged or delivered or found after a crash."""
        self.first_offset = 0
        """Messages below are known to be gone for good."""
        self.readers: dict[str, Reader] = {}


# --- the world --------------------------------------------------------------------------------


class EngineWorld:
    """One data directory, and the engines that serve it one after the other."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.disk = self._with_chance(CrashingDisk(page_bytes=PAGE_BYTES))
        self.seen: Counter[str] = Counter()
        self.topics: dict[str, Topic] = {}
        self.gone: list[Topic] = []
        self.sessions = [Session(b"%016d" % number) for number in range(2)]
        self.payloads: dict[bytes, Send] = {}
        self.highest_id = 0
        self.ns = 1_000_000_000_000
        self.life = 0
        self.open()
        for name in NAMES:
            self._create(name)
        self.turns.run()
        for name in READERS:
            self.subscribe(self.topics[NAMES[0]], name)
        self.turns.run()

    def _with_chance(self, disk: SimulatedDisk) -> CrashingDisk:
        assert isinstance(disk, CrashingDisk)
        disk.chance = self.chance
        return disk

    # --- lives ------------------------------------------------------------------------------

    def open(self) -> None:
        """Start an engine on what is there, however often that crashes as well."""
        while True:
            self.life += 1
            self.turns = VirtualTurns(self.chance, self.ns)
            self.disk.crash_in = self.chance.randint(0, 60) if self.chance.random() < 0.3 else None
            try:
                self._open()
            except Crashed:
                self.seen["crash while it starts"] += 1
                self._lose()
                continue
            self.disk.crash_in = None
            return

    def _open(self) -> None:
        journal, recovered = open_journal(
            Directory(self.disk, Path("/data")),
            self.turns,
            OPTIONS,
            new_worker=self.turns.new_worker,
        )
        self.journal = journal
        self._compare(recovered)
        self.engine = LocalEngine(journal, self.turns, LIMITS, recovered)
        assert not self.engine.clamped
        self.engine.on_failure = self._fail
        for name in READERS:
            self._call("register_subscriber", name.encode().ljust(16), name)
        for session in self.sessions:
            self._call("register_publisher", session.key)
        for topic in self.topics.values():
            for name, reader in topic.readers.items():
                if reader.is_certain:
                    self.subscribe(topic, name)
        for session in self.sessions:
            for send in session.open_sends:
                self._retry(session, send)

    def _fail(self, error: MbctlError) -> None:
        raise AssertionError(f"the journal failed: {error}")

    def crash(self) -> None:
        """End the process at once, or at some call of the disk to come, and start again."""
        self.disk.crash_in = self.chance.randint(0, 12)
        self._act(lambda: self.turns.advance(200 * NS_PER_MS))

    def restart(self) -> None:
        """End the engine as one should, and start again."""
        closed: list[bool] = []

        def close() -> None:
            self.engine.close(lambda: closed.append(True))
            self.turns.run()

        life = self.life
        self._act(close)
        if self.life == life:
            assert closed
            assert self.disk.descriptors() == []
            self.seen["clean restart"] += 1
            self.ns = self.turns.ns
            self.disk = self._with_chance(self.disk.power_cut())
            self.open()

    def _act(self, act: Callable[[], None]) -> None:
        """Do something that the process may not outlive."""
        try:
            act()
        except Crashed as crash:
            self.seen["crash in " + str(crash).split()[2]] += 1
            self._lose()
            self.open()

    def _lose(self) -> None:
        """Let the process be gone, maybe with what was not synced."""
        self.ns = self.turns.ns
        if self.chance.random() < 0.3:
            left = self.disk.killed()
        else:
            ordered = self.chance.random() < 0.5
            left = self.disk.random_power_cut(self.chance, ordered=ordered)
        self.disk = self._with_chance(left)

    # --- verbs ------------------------------------------------------------------------------

    def _call(
        self, verb: str, *args: Any, done: Callable[[Any], None] | None = None, **named: Any
    ) -> None:
        """Begin a verb; what comes as an answer after a crash would be of an earlier life."""
        life = self.life

        def answered(answer: Any = None) -> None:
            assert life == self.life
            if done is not None:
                done(answer)
            elif isinstance(answer, MbctlError):
                raise answer

        getattr(self.engine, verb)(*args, done=answered, **named)

    def step(self) -> None:
        """Let some of what is under way happen."""
        count = self.chance.randint(1, 6)

        def some() -> None:
            for _ in range(count):
                self.turns.step()

        self._act(some)

    def settle(self) -> None:
        """Let all that is under way happen, and some time pass."""
        ms = self.chance.choice([0, 1, 30, 150])
        self._act(lambda: self.turns.advance(ms * NS_PER_MS))

    def create(self) -> None:
        """Create a topic whose name is free."""
        name = self.chance.choice(NAMES)
        if name not in self.topics:
            self._act(lambda: self._create(name))

    def _create(self, name: str) -> None:
        topic = self.topics[name] = Topic(name)

        def created(answer: Created) -> None:
            assert answer.created
            self._found(topic, answer.topic_id)

        self._call("create_topic", name, TopicSettings(), False, done=created)

    def _found(self, topic: Topic, topic_id: int) -> None:
        """A topic is known to exist."""
        assert topic_id > self.highest_id, "the id of another topic is used again"
        self.highest_id = topic_id
        topic.topic_id = topic_id

    def delete(self) -> None:
        """Delete a topic."""
        if (topic := self._any_topic()) is None:
            return
        topic.is_ending = True

        def deleted(answer: None) -> None:
            self._ended(topic)

        self._act(lambda: self._call("delete_topic", topic.name, done=deleted))

    def _ended(self, topic: Topic) -> None:
        del self.topics[topic.name]
        self.gone.append(topic)
        for session in self.sessions:
            for send in session.open_sends:
                send.is_abandoned |= send.topic is topic

    def send(self) -> None:
        """Send to a topic, as part of what a session has under way."""
        session = self.chance.choice(self.sessions)
        topic = next((t for t in self.topics.values() if t.is_ending), None) or self._any_topic()
        if topic is None or len(session.open_sends) >= WINDOW:
            return
        sequence = len(session.sends) + 1
        payloads = [
            b"%s-%d-%d-" % (session.key[-1:], sequence, number)
            + b"x" * self.chance.choice([0, 5, 100, 400])
            for number in range(self.chance.choice([1, 1, 2, 5]))
        ]
        send = Send(sequence, topic, payloads)
        session.sends.append(send)
        self.payloads |= dict.fromkeys(payloads, send)
        self._act(lambda: self._retry(session, send))

    def retry(self) -> None:
        """Send something again that may be under way, stored or refused."""
        session = self.chance.choice(self.sessions)
        sends = [
            send for send in session.sends[-WINDOW:] if send.is_open or send.offset is not None
        ]
        if sends:
            send = self.chance.choice(sends)
            self.seen["retry of what is " + ("open" if send.is_open else "answered")] += 1
            self._act(lambda: self._retry(session, send))

    def _retry(self, session: Session, send: Send) -> None:
        def answered(answer: Receipt | MbctlError) -> None:
            if isinstance(answer, MbctlError):
                assert send.topic in self.gone or send.topic.is_ending, answer
                send.is_refused = send.offset is None
                self.seen["refused send"] += 1
                return
            assert answer.count == len(send.payloads)
            assert not send.is_refused
            assert send.offset in (None, answer.offset), "a retry has another offset"
            self._stored(send, answer.offset)

        self._call(
            "send",
            session.key,
            send.sequence,
            send.topic.name,
            batches.encode(send.payloads),
            age_ms=0,
            done=answered,
        )

    def _stored(self, send: Send, offset: int) -> None:
        send.offset = offset
        for number, payload in enumerate(send.payloads, start=offset):
            self._bind(send.topic, number, payload)

    def _bind(self, topic: Topic, offset: int, payload: bytes) -> None:
        """A message was seen, or said to be: its offset must never have another."""
        assert topic.contents.setdefault(offset, payload) == payload, "an offset is bound again"

    def subscribe(self, topic: Topic, name: str) -> None:
        """Subscribe, for the first time or again."""
        reader = topic.readers.setdefault(name, Reader())
        start = self.chance.choice([None, "earliest", "new"])

        def subscribed(answer: Subscribed | MbctlError) -> None:
            if isinstance(answer, MbctlError):
                assert topic.is_ending or topic in self.gone
                return
            assert answer.created or reader.start is not None
            assert not (answer.created and reader.is_certain), "a subscription is gone"
            reader.is_certain = True
            if reader.start is None:
                reader.start = answer.offset

        self._call(
            "subscribe",
            name.encode().ljust(16),
            topic.name,
            SubscribeOptions(start=start),  # type: ignore[arg-type]
            done=subscribed,
        )

    def subscribe_any(self) -> None:
        """Subscribe somebody to something."""
        topic, name = self._any_topic(), self.chance.choice(READERS)
        if topic is not None and name not in topic.readers:
            self._act(lambda: self.subscribe(topic, name))

    def unsubscribe(self) -> None:
        """End a subscription."""
        topic, name, reader = self._any_reader()
        if topic is None or reader is None:
            return
        reader.is_ending = True

        def ended(answer: MbctlError | None) -> None:
            topic.readers.pop(name, None)

        self._act(lambda: self._call("unsubscribe", topic.name, name, done=ended))

    def pull(self) -> None:
        """Pull, and note what is delivered."""
        topic, name, reader = self._any_reader()
        if topic is None or reader is None:
            return

        # What is acknowledged from here on may be on its way already.
        confirmed = frozenset(reader.confirmed)

        def pulled(answer: Pulled | MbctlError) -> None:
            if not isinstance(answer, MbctlError):
                self._delivered(topic, reader, answer, confirmed)

        self._act(
            lambda: self._call(
                "pull",
                name.encode().ljust(16),
                topic.name,
                max_messages=self.chance.choice([1, 3, 100]),
                max_bytes=1 << 20,
                wait_ms=0,
                done=pulled,
            )
        )

    def _delivered(
        self, topic: Topic, reader: Reader, answer: Pulled, confirmed: frozenset[int]
    ) -> None:
        assert answer.topic_id == topic.topic_id
        for first, _, _, body in answer.pieces:
            for offset, payload in enumerate(batches.decode(body).payloads, start=first):
                assert offset in topic.contents or self.payloads[payload].is_open
                self._bind(topic, offset, payload)
                assert offset not in confirmed, "a confirmed ack is delivered again"
                if offset not in reader.requested:
                    reader.held.add(offset)
                self.seen["delivered"] += 1

    def ack(self) -> None:
        """Acknowledge some of what was delivered, by itself or with a pull."""
        topic, name, reader = self._any_reader()
        if topic is None or reader is None or not reader.held:
            return
        count = self.chance.randint(1, len(reader.held))
        offsets = sorted(reader.held)[:count]
        if self.chance.random() < 0.3:
            offsets = self.chance.sample(sorted(reader.held), count)
        ranges = merged((offset, offset + 1) for offset in offsets)
        reader.held.difference_update(offsets)
        reader.requested.update(offsets)
        member, topic_id = name.encode().ljust(16), topic.topic_id

        def acknowledged(answer: int | MbctlError) -> None:
            if not isinstance(answer, MbctlError):
                assert answer == len(offsets)
                reader.confirmed.update(offsets)
                self.seen["acknowledged"] += 1

        if self.chance.random() < 0.4:
            self._act(lambda: self.engine.ack_with_pull(member, topic.name, topic_id or 0, ranges))
        else:
            self._act(
                lambda: self._call("ack", member, topic.name, topic_id, ranges, done=acknowledged)
            )

    def nack(self) -> None:
        """Give back what was delivered."""
        topic, name, reader = self._any_reader()
        if topic is None or reader is None or not reader.held:
            return
        ranges: list[Range] = merged((offset, offset + 1) for offset in reader.held)
        reader.held.clear()
        member = name.encode().ljust(16)
        self._act(
            lambda: self._call(
                *("nack", member, topic.name, topic.topic_id, ranges),
                delay_ms=0,
                counted=True,
                done=lambda answer: None,
            )
        )

    def _any_topic(self) -> Topic | None:
        """A topic that is known to exist and not to end."""
        found = [t for t in self.topics.values() if t.topic_id is not None and not t.is_ending]
        return self.chance.choice(found) if found else None

    def _any_reader(self) -> tuple[Topic | None, str, Reader | None]:
        """A subscription that is known to exist and not to end, of such a topic."""
        topic = self._any_topic()
        readers = {} if topic is None else topic.readers
        found = [(n, r) for n, r in readers.items() if r.is_certain and not r.is_ending]
        name, reader = self.chance.choice(found) if found else ("", None)
        return topic, name, reader

    # --- after a crash ------------------------------------------------------------------------

    def _compare(self, recovered: Recovered) -> None:
        """Assert that what was answered holds, and learn what became of what was not."""
        found = {topic.name: topic for topic in recovered.topics}
        assert len(found) == len(recovered.topics)
        assert all(topic.topic_id not in self._ids_gone() for topic in recovered.topics)
        assert recovered.next_topic_id > self.highest_id
        assert set(found) <= set(self.topics)
        for name, topic in list(self.topics.items()):
            if name not in found:
                assert topic.topic_id is None or topic.is_ending, "a topic is gone"
                self.seen["topic gone in a crash"] += 1
                self._ended(topic)
                continue
            if topic.topic_id is None:
                self._found(topic, found[name].topic_id)
            assert topic.topic_id == found[name].topic_id
            topic.is_ending = False
            self._compare_messages(topic, found[name])
            self._compare_readers(topic, found[name])

    def _ids_gone(self) -> set[int | None]:
        return {topic.topic_id for topic in self.gone}

    def _compare_messages(self, topic: Topic, found: RecoveredTopic) -> None:
        assert topic.first_offset <= found.first_offset <= found.next_offset
        there = dict(self._messages(found))
        assert [*there] == [*range(found.first_offset, found.next_offset)], "there is a gap"
        assert found.next_offset > max(topic.contents, default=-1), "the end of a topic is gone"
        for offset, payload in topic.contents.items():
            if offset >= found.first_offset:
                assert there[offset] == payload, "an offset is bound again"
        for offset in range(topic.first_offset, found.first_offset):
            for reader in topic.readers.values():
                if reader.is_certain and not reader.is_ending and (reader.start or 0) <= offset:
                    assert offset in reader.requested, "reclaimed too early"
        topic.first_offset = found.first_offset
        stored: dict[Send, list[int]] = {}
        for offset, payload in there.items():
            stored.setdefault(self.payloads[payload], []).append(offset)
        for send, offsets in stored.items():
            self._compare_send(topic, send, offsets, found.first_offset)
        self.seen["reclaimed"] += found.first_offset > 0

    def _compare_send(self, topic: Topic, send: Send, offsets: list[int], first: int) -> None:
        assert send.topic is topic
        assert not send.is_refused, "what was refused is there"
        expected = range(offsets[-1] + 1 - len(send.payloads), offsets[-1] + 1)
        assert offsets == [offset for offset in expected if offset >= first], "a part is there"
        if send.is_open:
            self.seen["stored without an answer"] += 1
            self._stored(send, expected[0])
        assert send.offset == expected[0], "a send is stored twice"

    def _messages(self, found: RecoveredTopic) -> Iterator[tuple[int, bytes]]:
        for run in found.runs:
            bodies: list[Any] = []
            self.journal.read(run.places, bodies.extend)
            self.turns.run()
            assert len(bodies) == len(run.places)
            for first, body in zip(run.firsts, bodies, strict=True):
                assert not isinstance(body, Damaged), body
                for offset, payload in enumerate(batches.decode(body).payloads, start=first):
                    if offset >= found.first_offset:
                        yield offset, payload

    def _compare_readers(self, topic: Topic, found: RecoveredTopic) -> None:
        places = {state.subscriber: state for state in found.subscriptions}
        assert set(places) <= set(topic.readers)
        for name, reader in list(topic.readers.items()):
            if name not in places:
                assert not reader.is_certain or reader.is_ending, "a subscription is gone"
                del topic.readers[name]
                continue
            place = places[name]
            reader.is_certain, reader.is_ending = True, False
            if reader.start is None:
                reader.start = place.cursor
            acknowledged = {o for first, next_ in place.acknowledged for o in range(first, next_)}
            acknowledged |= set(range(reader.start, place.cursor))
            assert reader.confirmed <= acknowledged, "a confirmed ack is undone"
            assert acknowledged <= reader.requested, "what nobody acknowledged is"
            # What holds now was recovered from the disk, and holds for good.
            reader.confirmed |= acknowledged
            reader.requested = set(reader.confirmed)

    # --- the end ------------------------------------------------------------------------------

    def drain(self) -> None:
        """Assert that all that is kept reaches every reader, but what it acknowledged."""
        self.disk.crash_in = None
        self.turns.advance(200 * NS_PER_MS)
        self.restart()
        self.turns.advance(200 * NS_PER_MS)
        for topic in self.topics.values():
            for name, reader in topic.readers.items():
                self._drain(topic, name, reader)

    def _drain(self, topic: Topic, name: str, reader: Reader) -> None:
        assert reader.is_certain
        assert reader.start is not None
        reader.held.clear()
        more = True
        while more:
            before = len(reader.held)

            def pulled(answer: Pulled) -> None:
                self._delivered(topic, reader, answer, frozenset(reader.confirmed))

            self._call(
                *("pull", name.encode().ljust(16), topic.name),
                max_messages=10,
                max_bytes=1 << 20,
                wait_ms=0,
                done=pulled,
            )
            self.turns.run()
            more = len(reader.held) > before
        kept = set(range(max(topic.first_offset, reader.start), len(topic.contents)))
        assert len(topic.contents) == max(topic.contents, default=-1) + 1
        assert reader.held == kept - reader.requested


Action = Callable[[EngineWorld], None]
ACTIONS: dict[Action, int] = {
    EngineWorld.create: 6,
    EngineWorld.delete: 2,
    EngineWorld.send: 24,
    EngineWorld.retry: 4,
    EngineWorld.subscribe_any: 8,
    EngineWorld.unsubscribe: 1,
    EngineWorld.pull: 20,
    EngineWorld.ack: 24,
    EngineWorld.nack: 2,
    EngineWorld.step: 10,
    EngineWorld.settle: 16,
    EngineWorld.crash: 5,
    EngineWorld.restart: 1,
}

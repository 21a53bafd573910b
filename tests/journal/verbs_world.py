"""Every verb of the engine at random, on a journal that crashes, held against its own records.

The world writes down each record that the engine gives to the journal. What is recovered
must be what some prefix of them amounts to, no shorter than what was committed; and what
core holds while nothing is under way must be what all of them amount to.
"""

import io
import random
import tarfile
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_world import Crashed, CrashingDisk
from folded_records import FoldedRecords
from simulated_disk import SimulatedDisk
from virtual_turns import VirtualTurns

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.engine.interface import Pulled
from mbctl.engine.local import LocalEngine
from mbctl.engine.turn import state_of
from mbctl.errors import MbctlError
from mbctl.files import Directory
from mbctl.journal.disk import DiskJournal, JournalOptions, open_journal
from mbctl.journal.records import (
    Backup,
    BatchHead,
    Damaged,
    Record,
    Recovered,
    RecoveredTopic,
    SubscriptionState,
)
from mbctl.model import (
    NS_PER_MS,
    NS_PER_S,
    AtTime,
    Limits,
    Range,
    Receipt,
    SubscribeOptions,
    TopicSettings,
)

LIMITS = Limits(sends_in_flight=8)
OPTIONS = JournalOptions(segment_bytes=2048, snapshot_bytes=4096, tail_bytes=1024, window=8)
NAMES = ("orders", "returns", "dead")
READERS = ("billing", "audit")
SETTINGS = (
    TopicSettings(),
    TopicSettings(max_messages=12, when_full="drop_oldest"),
    TopicSettings(max_bytes=1500, when_full="drop_oldest", retain_age=50.0),
    TopicSettings(max_messages=12),
    TopicSettings(max_age=30.0),
    TopicSettings(retain_age=40.0, retain_bytes=600),
    TopicSettings(retain_bytes=900, max_age=100.0),
)

Entry = tuple[BatchHead, int, int, "Record | None"] | Record
# What a topic comes back with, and what a subscription is, as plain values to compare.
Plain = dict[int, Any]


class VerbsWorld:
    """One data directory, and the engines that serve it one after the other."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.disk = CrashingDisk(page_bytes=256)
        self.disk.chance = chance
        self.seen: Counter[str] = Counter()
        self.entries: list[Entry] = []
        self.durable = 0
        self.contents: dict[tuple[int, int], bytes] = {}
        """By topic id and offset, what a message was when it was first seen."""
        self.sequence = 0
        self.life = 0
        self.ns = 1_000_000 * NS_PER_S
        self.grants: dict[str, list[tuple[str, int, list[Range]]]] = {}
        self.copying: list[Copying] = []
        self.open()
        for name in NAMES:
            self._do("create_topic", name, self.chance.choice(SETTINGS), True)
        for _ in range(4):
            self.subscribe()

    # --- lives ------------------------------------------------------------------------------

    def open(self) -> None:
        """Start an engine on what is there, however often that crashes as well."""
        while True:
            self.life += 1
            self.turns = VirtualTurns(self.chance, self.ns)
            self.disk.crash_in = self.chance.randint(0, 60) if self.chance.random() < 0.2 else None
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
        self._compare(recovered)
        self._check_contents(journal, recovered)
        self._listen(journal)
        self.engine = LocalEngine(journal, self.turns, LIMITS, recovered)
        assert not self.engine.clamped
        self.engine.on_failure = self._fail
        self.grants = {name: [] for name in READERS}
        self.copying = []
        self._call("register_publisher", b"s" * 16)
        for name in READERS:
            self._call("register_subscriber", member(name), name)

    def _listen(self, journal: DiskJournal) -> None:
        """Write down what the journal is told from now on."""
        append, append_batch, commit = journal.append, journal.append_batch, journal.commit

        def listen(record: Record) -> None:
            self.entries.append(record)
            append(record)

        def listen_batch(head: BatchHead, batch: Buffer, also: Record | None = None) -> int:
            place = append_batch(head, batch, also)
            self.seen["dead letter"] += also is not None
            self.entries.append((head, memoryview(batch).nbytes, place, also))
            return place

        def listen_commit(done: Callable[[], None]) -> None:
            end = len(self.entries)

            def durable() -> None:
                self.durable = max(self.durable, end)
                done()

            commit(durable)

        journal.append = listen  # type: ignore[method-assign]
        journal.append_batch = listen_batch  # type: ignore[method-assign]
        journal.commit = listen_commit  # type: ignore[method-assign]

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
            self.seen["clean restart"] += 1
            self.durable = len(self.entries)
            self.ns = self.turns.ns
            self._take(self.disk.power_cut())
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
            self._take(self.disk.killed())
        else:
            ordered = self.chance.random() < 0.5
            self._take(self.disk.random_power_cut(self.chance, ordered=ordered))

    def _take(self, disk: Any) -> None:
        assert isinstance(disk, CrashingDisk)
        self.disk = disk
        self.disk.chance = self.chance

    # --- what is compared -------------------------------------------------------------------

    def _compare(self, recovered: Recovered) -> None:
        """Find the prefix of the records that this is, and forget the rest."""
        found = plain(recovered)
        candidates = range(len(self.entries), self.durable - 1, -1)
        for end in candidates:
            if plain(folded(self.entries[:end])) == found:
                self.seen["lost records"] += end < len(self.entries)
                del self.entries[end:]
                self.durable = end
                return
        raise AssertionError(
            f"recovered {found}, which is no prefix; all is "
            f"{plain(folded(self.entries))}, durable {plain(folded(self.entries[: self.durable]))}"
        )

    def _check_contents(
        self, journal: DiskJournal, recovered: Recovered, turns: VirtualTurns | None = None
    ) -> None:
        """Read all that came back: an offset never has another message."""
        for topic in recovered.topics:
            for run in topic.runs:
                bodies: list[Any] = []
                journal.read(run.places, bodies.extend)
                (turns or self.turns).run()
                for first, body in zip(run.firsts, bodies, strict=True):
                    assert not isinstance(body, Damaged), body
                    self._bind(topic.topic_id, first, body)

    def _bind(self, topic_id: int, first: int, body: Buffer) -> None:
        for offset, payload in enumerate(batches.decode(body).payloads, start=first):
            known = self.contents.setdefault((topic_id, offset), payload)
            assert known == payload, "an offset is bound again"

    def _rest(self) -> None:
        """Let all come to rest: while it does, messages may have become too old again."""
        self.turns.advance(300 * NS_PER_MS)
        while self.engine.core.has_changes:
            self.turns.advance(150 * NS_PER_MS)

    def check(self) -> None:
        """Let all come to rest; then core is what the records amount to."""
        life = self.life
        self._act(self._rest)
        if self.life != life:
            return
        core = self.engine.core
        core.check()
        assert self.durable == len(self.entries)
        known = folded(self.entries)
        assert {topic.topic_id for topic in known.topics} == {
            topic.topic_id for topic in core.topics
        }
        for state in known.topics:
            topic = core.topics.with_id(state.topic_id)
            assert topic is not None
            assert (state.first_offset, state.next_offset) == (
                topic.first_offset,
                topic.next_offset,
            )
            stored = {one.subscriber: subscription(one) for one in state.subscriptions}
            live = [s for s in topic.subscriptions.values() if s.durable]
            assert stored == {one.subscriber: subscription(state_of(one)) for one in live}
            for one in state.subscriptions:
                self.seen["parked"] += any(is_parked for *_, is_parked in one.counts)
                self.seen["counted"] += bool(one.counts)
                self.seen["dropped"] += one.dropped
                self.seen["expired"] += one.expired
        self.seen["compared at rest"] += 1

    # --- backups ----------------------------------------------------------------------------

    def back_up(self) -> None:
        """Begin a backup: it has all that was recorded by now."""
        low = len(self.entries)

        def begun(backup: Backup) -> None:
            self.copying.append(Copying(backup, low, len(self.entries)))

        self._do("backup", done=begun)

    def read_backup(self) -> None:
        """Read some more of a backup; when that was all, see what it is."""
        if not self.copying:
            return
        copying = self.chance.choice(self.copying)
        if copying.is_reading:
            return
        copying.is_reading = True
        size = self.chance.choice([100, 1000, 100_000])

        def read(part: bytes | MbctlError) -> None:
            assert isinstance(part, bytes), part
            assert part
            copying.is_reading = False
            copying.content += part
            if len(copying.content) == copying.backup.size:
                self.copying.remove(copying)
                copying.backup.close()
                self._check_backup(copying)

        self._act(lambda: copying.backup.read(len(copying.content), size, read))

    def _check_backup(self, copying: "Copying") -> None:
        """Open what the backup has: it is what was recorded when it was made."""
        disk = SimulatedDisk(page_bytes=256)
        directory = Directory(disk, Path("/data"))
        directory.make()
        with tarfile.open(fileobj=io.BytesIO(bytes(copying.content))) as archive:
            for member in archive.getmembers()[1:]:
                source = archive.extractfile(member)
                assert source is not None
                file = directory.create(member.name)
                file.write([source.read()], 0)
                file.close()
        turns = VirtualTurns(self.chance, self.ns)
        journal, recovered = open_journal(directory, turns, OPTIONS, new_worker=turns.new_worker)
        found = plain(recovered)
        ends = range(copying.low, copying.high + 1)
        assert any(plain(folded(self.entries[:end])) == found for end in ends), found
        self._check_contents(journal, recovered, turns)
        journal.close(lambda: None)
        turns.run()
        assert disk.descriptors() == []
        self.seen["backup read"] += 1

    # --- verbs ------------------------------------------------------------------------------

    def _call(
        self, verb: str, *args: Any, done: Callable[[Any], None] | None = None, **named: Any
    ) -> None:
        life = self.life

        def answered(answer: Any = None) -> None:
            assert life == self.life
            refused = isinstance(answer, MbctlError)
            self.seen[f"{verb} refused" if refused else verb] += 1
            if done is not None and not refused:
                done(answer)

        getattr(self.engine, verb)(*args, done=answered, **named)

    def _do(self, verb: str, *args: Any, **named: Any) -> None:
        self._act(lambda: self._call(verb, *args, **named))

    def step(self) -> None:
        """Let some of what is under way happen."""

        def some() -> None:
            for _ in range(self.chance.randint(1, 6)):
                self.turns.step()

        self._act(some)

    def pass_time(self) -> None:
        """Let some time pass, enough for leases and messages to age."""
        seconds = self.chance.choice([0.05, 1, 6, 31])
        self._act(lambda: self.turns.advance(round(seconds * NS_PER_S)))

    def create(self) -> None:
        """Create a topic, if its name is free."""
        name, settings = self.chance.choice(NAMES), self.chance.choice(SETTINGS)
        self._do("create_topic", name, settings, True)

    def delete(self) -> None:
        """Delete a topic."""
        self._do("delete_topic", self.chance.choice(NAMES))

    def purge(self) -> None:
        """Purge a topic."""
        self._do("purge_topic", self.chance.choice(NAMES))

    def send(self) -> None:
        """Send a batch, or several at once."""
        for _ in range(self.chance.choice([1, 1, 1, 8])):
            self.sequence += 1
            name, sequence = self.chance.choice(NAMES), self.sequence
            payloads = [
                b"%d-%d-" % (sequence, number) + b"x" * self.chance.choice([0, 50, 400])
                for number in range(self.chance.choice([1, 1, 2, 5]))
            ]
            topic = self.engine.core.topics
            topic_id = topic.named(name).topic_id if name in topic else 0

            def sent(
                receipt: Receipt, topic_id: int = topic_id, payloads: list[bytes] = payloads
            ) -> None:
                self._bind(topic_id, receipt.offset, batches.encode(payloads))

            batch = batches.encode(payloads)
            self._do("send", b"s" * 16, sequence, name, batch, age_ms=0, done=sent)

    def subscribe(self) -> None:
        """Subscribe, for the first time or with other options."""
        name, topic = self.chance.choice(READERS), self.chance.choice(NAMES)
        most = self.chance.choice([None, None, 1, 2, 3])
        dead = self.chance.choice([None, "dead"]) if most is not None else None
        options = SubscribeOptions(
            start=self.chance.choice([None, "new", "earliest"]),  # type: ignore[arg-type]
            ack_wait=self.chance.choice([1.0, 5.0, 30.0]),
            max_deliveries=most,
            dead_letter=dead,
        )
        self._do("subscribe", member(name), topic, options)

    def unsubscribe(self) -> None:
        """End a subscription."""
        self._do("unsubscribe", self.chance.choice(NAMES), self.chance.choice(READERS))

    def pull(self) -> None:
        """Pull; what comes is remembered, to be settled in whatever way, maybe much later."""
        name, topic = self.chance.choice(READERS), self.chance.choice(NAMES)

        def pulled(answer: Pulled) -> None:
            ranges = []
            for first, _, _, body in answer.pieces:
                self._bind(answer.topic_id, first, body)
                ranges.append((first, first + len(batches.decode(body).payloads)))
            if ranges:
                self.grants[name].append((topic, answer.topic_id, ranges))

        self._do(
            "pull",
            member(name),
            topic,
            max_messages=self.chance.choice([1, 3, 100]),
            max_bytes=10_000,
            wait_ms=self.chance.choice([0, 0, 2000]),
            done=pulled,
        )

    def settle(self) -> None:
        """Acknowledge, give back or extend some of what was granted, in one way or another."""
        name = self.chance.choice(READERS)
        if not self.grants[name]:
            return
        grants = self.grants[name]
        topic, topic_id, ranges = grants.pop(self.chance.randrange(len(grants)))
        if self.chance.random() < 0.4:
            first, next_ = self.chance.choice(ranges)
            at = self.chance.randrange(first, next_)
            ranges = [(at, self.chance.randint(at + 1, next_))]
        args = (member(name), topic, topic_id, ranges)
        how = self.chance.choice(["ack", "ack", "carried", "nack", "nack", "later", "extend"])
        if how == "ack":
            self._do("ack", *args)
        elif how == "carried":
            self._act(lambda: self.engine.ack_with_pull(*args))
        elif how == "extend":
            self._do("extend", *args)
        else:
            delay_ms = 4000 if how == "later" else 0
            self._do("nack", *args, delay_ms=delay_ms, counted=self.chance.random() < 0.8)

    def seek(self) -> None:
        """Move a subscription, and maybe settle what it was granted before."""
        name, topic = self.chance.choice(READERS), self.chance.choice(NAMES)
        age_ns = self.chance.choice([0, 20, 60]) * NS_PER_S
        start = self.chance.choice(
            ["new", "earliest", self.chance.randint(0, 40), AtTime(self.turns.wall_ns() - age_ns)]
        )
        self._do("seek", topic, name, start)

    def decide(self) -> None:
        """Release or drop what is parked, some of it or all."""
        at = self.chance.randint(0, 30)
        ranges = self.chance.choice([None, None, [(at, at + 5)]])
        verb = self.chance.choice(["release_parked", "drop_parked"])
        name, topic = self.chance.choice(READERS), self.chance.choice(NAMES)
        self._do(verb, topic, name, ranges)

    def peek(self) -> None:
        """Look at messages."""
        topic = self.chance.choice(NAMES)

        def peeked(answer: Pulled) -> None:
            for first, _, _, body in answer.pieces:
                self._bind(answer.topic_id, first, body)

        self._do("peek", topic, "earliest", max_messages=10, max_bytes=5000, done=peeked)

    def leave(self) -> None:
        """Let a reader's connection close, and come back."""
        name = self.chance.choice(READERS)

        def leave() -> None:
            self.engine.close_member(member(name))
            self._call("register_subscriber", member(name), name)

        self._act(leave)


class Copying:
    """A backup that is being read; it has between ``low`` and ``high`` records."""

    def __init__(self, backup: Backup, low: int, high: int) -> None:
        self.backup = backup
        self.low = low
        self.high = high
        self.content = bytearray()
        self.is_reading = False


def member(name: str) -> bytes:
    """The id of the process that reads under that name."""
    return name.encode().ljust(16)


def folded(entries: list[Entry]) -> Recovered:
    """What these records amount to."""
    records = FoldedRecords(window=LIMITS.sends_in_flight)
    for entry in entries:
        if isinstance(entry, tuple):
            head, size, place, also = entry
            records.append_batch(head, size, place, also)
        else:
            records.append(entry)
    return records.recovered()


def plain(recovered: Recovered) -> Plain:
    """What is recovered, as far as it is not about places."""
    return {topic.topic_id: plain_topic(topic) for topic in recovered.topics}


def plain_topic(topic: RecoveredTopic) -> Any:
    """A topic: its columns, from what is kept on."""
    firsts, timestamps = array("Q"), array("q")
    for run in topic.runs:
        firsts.extend(run.firsts)
        timestamps.extend(run.timestamps)
    nexts = [*firsts[1:], topic.next_offset][: len(firsts)]
    kept = [
        (first, timestamp)
        for first, timestamp, next_ in zip(firsts, timestamps, nexts, strict=True)
        if next_ > topic.first_offset
    ]
    return (
        *(topic.name, topic.settings, topic.created, topic.first_offset, topic.next_offset),
        *(topic.timestamp, kept),
        {state.subscriber: subscription(state) for state in topic.subscriptions},
    )


def subscription(state: SubscriptionState) -> Any:
    """A subscription with its counts one by one."""
    counts = {
        offset: (deliveries if not is_parked else "parked")
        for first, next_, deliveries, is_parked in state.counts
        for offset in range(first, next_)
        if deliveries > 1 or is_parked
    }
    return (
        *(state.cursor, state.acknowledged, state.ack_wait_ns, state.created),
        *(state.max_deliveries, state.dead_letter, counts, state.dropped, state.expired),
    )


Action = Callable[[VerbsWorld], None]
ACTIONS: dict[Action, int] = {
    VerbsWorld.create: 4,
    VerbsWorld.delete: 1,
    VerbsWorld.purge: 1,
    VerbsWorld.send: 20,
    VerbsWorld.subscribe: 6,
    VerbsWorld.unsubscribe: 1,
    VerbsWorld.pull: 24,
    VerbsWorld.settle: 24,
    VerbsWorld.seek: 3,
    VerbsWorld.decide: 4,
    VerbsWorld.peek: 2,
    VerbsWorld.leave: 2,
    VerbsWorld.back_up: 2,
    VerbsWorld.read_backup: 12,
    VerbsWorld.step: 10,
    VerbsWorld.pass_time: 8,
    VerbsWorld.check: 6,
    VerbsWorld.crash: 4,
    VerbsWorld.restart: 1,
}

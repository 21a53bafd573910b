"""Does the same to core.Broker and to the naive model, and wants the same answers.

An action draws what it does from ``choice``, which is Hypothesis or a seeded generator.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from folded_records import FoldedRecords
from naive_model import (
    NaiveBroker,
    count_ranges,
    cursor,
    is_across,
    leased_by,
    next_of,
    runs_of,
)

from mbctl.core.broker import Broker
from mbctl.core.exhausted import Exhausted
from mbctl.core.grant import Grant, Piece, Wake
from mbctl.core.subscription import Subscription
from mbctl.engine.restore import restore
from mbctl.engine.turn import state_of as stored_state_of
from mbctl.errors import MbctlError
from mbctl.journal.records import (
    NO_SESSION,
    Acknowledged,
    BatchHead,
    Redelivered,
    SubscriptionDeleted,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from mbctl.model import NS_PER_S, AtTime, Limits, Range, Start, SubscribeOptions, TopicSettings

T = TypeVar("T")

# Small, so that every bound is met.
LIMITS = Limits(
    topics=2,
    topic_subscriptions=4,
    subscriptions=5,
    subscription_ranges=12,
    sessions=2,
    sends_in_flight=3,
)
# Most of what happens, happens to the first topic.
TOPICS = ("apples",) * 9 + ("pears", "plums")
MEMBERS = (b"m1", b"m2", b"m3", b"m4", b"m5")
NAME_OF = dict(zip(MEMBERS, ("red", "red", "blue", None, None), strict=True))
SESSIONS = (b"s1", b"s1", b"s2", b"s3")
SETTINGS = (
    *[TopicSettings()] * 6,
    TopicSettings(max_messages=30),
    TopicSettings(max_bytes=400),
    TopicSettings(max_messages=20, when_full="drop_oldest"),
    TopicSettings(max_bytes=300, max_messages=40, when_full="drop_oldest", max_age=50),
    TopicSettings(max_age=20),
    TopicSettings(max_age=0.3, retain_age=0.2),
    TopicSettings(retain_age=10),
    TopicSettings(retain_bytes=120, max_messages=25),
    TopicSettings(retain_age=30, retain_bytes=200, max_bytes=350, when_full="drop_oldest"),
    TopicSettings(max_messages=0),
)
STARTS = (None, None, None, "new", "earliest", 0, 3, 9, 100, "a while ago")
OPTIONS = (
    {},
    {},
    {"max_deliveries": 3},
    {"max_deliveries": 1},
    {"max_deliveries": 2, "dead_letter": "pears"},
    {"max_deliveries": 1, "dead_letter": "pears"},
    {"max_deliveries": 0},
)
WAITS = (0, 2 * NS_PER_S, 40 * NS_PER_S)
BYTES_MAX = 1 << 20


class Choice(Protocol):
    """Where the actions get their arguments from."""

    def among(self, values: Sequence[T]) -> T:
        """One of ``values``."""

    def number(self, low: int, high: int) -> int:
        """``low <= number <= high``."""


def seldom(choice: Choice) -> bool:
    """True one time in eight."""
    return choice.among((False,) * 7 + (True,))


class Comparison:
    """The two brokers, and the actions that both are put through."""

    def __init__(self) -> None:
        self.core = Broker(LIMITS)
        self.naive = NaiveBroker(LIMITS)
        self.now = 1_000 * NS_PER_S
        self.tokens = 0
        self.stored = FoldedRecords(window=LIMITS.sends_in_flight)
        """What a journal would hold of what core did."""
        self.commits: list[list[int]] = []
        """The places that are released when a commit under way is done."""
        self.grants: list[tuple[bytes, str, int, int, int]] = []
        self.in_hand: list[tuple[Exhausted, Any]] = []
        """The pieces that were taken to be moved or parked, and the naive model's subscription."""
        self.seen: dict[str, int] = {}

    def both(self, of_core: Callable[[], Any], of_naive: Callable[[], Any]) -> Any:
        """The answer of both, which is the same; a refusal is an answer too."""
        answers = []
        for call in (of_core, of_naive):
            try:
                answers.append(call())
            except MbctlError as error:
                answers.append(plain(error))
        assert answers[0] == answers[1], f"core: {answers[0]}\nnaive: {answers[1]}"
        if isinstance(answers[0], tuple) and answers[0][:1] == ("error",):
            self.note(answers[0][1])
        return answers[0]

    def note(self, what: str, happened: object = True) -> None:
        """Count that something worth testing happened."""
        self.seen[what] = self.seen.get(what, 0) + bool(happened)

    def wakes(self, of_core: Callable[[], Any], of_naive: Callable[[], Any]) -> Any:
        """As ``both``, where the answer is wakes or a value and wakes."""

        def core_plain() -> Any:
            answer = of_core()
            wakes = answer if isinstance(answer, list) else answer[-1]
            for wake in wakes:
                self.note("wake with messages", isinstance(wake.result, Grant))
            rest = () if isinstance(answer, list) else answer[:-1]
            return (*rest, plain_wakes(wakes))

        def naive_plain() -> Any:
            answer = of_naive()
            wakes = answer if isinstance(answer, dict) else answer[-1]
            rest = () if isinstance(answer, dict) else answer[:-1]
            return (*rest, plain_naive(wakes))

        answer = self.both(core_plain, naive_plain)
        if isinstance(answer[-1], dict):
            self.remember_wakes(answer[-1])
        return answer

    # --- topics and messages ----------------------------------------------------------------

    def begin(self, choice: Choice) -> None:
        """Most runs begin with a topic, some readers and some messages."""
        if seldom(choice):
            return
        for name in TOPICS[0], TOPICS[-2]:
            self.create(name, choice.among(SETTINGS[:-1]), exist_ok=True)
        for member in MEMBERS[: choice.number(1, len(MEMBERS))]:
            self.register(member, NAME_OF[member])
            self.subscribe_one(member, TOPICS[0], None, 30.0, choice.among(OPTIONS))
        for _ in range(choice.number(0, 6)):
            self.publish(choice)

    def create_topic(self, choice: Choice) -> None:
        self.create(
            choice.among(TOPICS), choice.among(SETTINGS), exist_ok=choice.among((True, False))
        )

    def create(self, name: str, settings: TopicSettings, *, exist_ok: bool) -> None:
        def of_core() -> Any:
            topic, created = self.core.create_topic(name, settings, exist_ok=exist_ok, created=0)
            if created:
                self.stored.append(TopicCreated(topic.topic_id, name, settings, 0))
            return topic.topic_id, created

        self.both(of_core, lambda: self.naive.create_topic(name, settings, exist_ok))

    def delete_topic(self, choice: Choice) -> None:
        name = choice.among(TOPICS)
        if not seldom(choice):
            return

        def of_core() -> Any:
            topic, wakes = self.core.delete_topic(name)
            self.stored.append(TopicDeleted(topic.topic_id))
            return list(topic.index.places()), wakes

        self.wakes(of_core, lambda: self.naive.delete_topic(name))

    def publish(self, choice: Choice) -> None:
        """Send, and mostly let it be durable at once."""
        session, name = choice.among(SESSIONS), choice.among(TOPICS)
        ahead = choice.among((*[1] * 9, 2, 0, -1, -2, -3, -6))
        count, message_size = choice.number(1, 7), choice.among((1, 10, 30))
        age = choice.among((*[0] * 14, 600, 601)) * NS_PER_S
        known = self.naive.sessions.get(session)
        sequence = max(1, (known.highest if known is not None else 0) + ahead)
        # The wall clock goes back at times.
        wall = self.now - choice.among((0, 0, 0, 3)) * NS_PER_S

        def of_core() -> Any:
            stored = self.core.send(
                session,
                sequence,
                name,
                count=count,
                size=count * message_size,
                age_ns=age,
                now_ns=self.now,
                wall_ns=wall,
            )
            receipt = stored.receipt
            if stored.is_new:
                place = self.naive.places + 1
                self.core.set_place(stored.topic_id, place)
                head = BatchHead(
                    stored.topic_id, receipt.offset, count, stored.timestamp, session, sequence
                )
                self.stored.append_batch(head, count * message_size, place)
            self.note("retry answered", not stored.is_new)
            return receipt.topic, receipt.offset, receipt.count, stored.is_new

        self.both(
            of_core,
            lambda: self.naive.send(
                session, sequence, name, count, message_size, age, self.now, wall
            ),
        )
        self.reveal(name, choice.among((0, 1, 9, 9)))

    def register_publisher(self, choice: Choice) -> None:
        session = choice.among(SESSIONS)
        self.both(
            lambda: self.core.register_publisher(session, self.now),
            lambda: self.naive.use_session(session, self.now) and None,
        )

    def reveal(self, name: str, batches: int) -> None:
        """Make some batches visible, the oldest that are not."""
        topic = self.naive.topics.get(name)
        hidden = [b for b in topic.batches if b.next > topic.visible] if topic else []
        if hidden and batches:
            next_offset = hidden[:batches][-1].next
            self.wakes(
                lambda: self.core.reveal(topic.id, next_offset, self.now),
                lambda: self.naive.reveal(name, next_offset, self.now),
            )

    # --- subscribers --------------------------------------------------------------------------

    def connect(self, choice: Choice) -> None:
        """Register, mostly by the same name as before, and subscribe."""
        member, name = choice.among(MEMBERS), choice.among(TOPICS)
        other = seldom(choice)
        self.register(member, choice.among(("red", "blue", None)) if other else NAME_OF[member])
        if name not in self.naive.topics:
            self.create(name, choice.among(SETTINGS), exist_ok=True)
        self.subscribe_one(member, name, None, 30.0, choice.among(OPTIONS))

    def register(self, member: bytes, name: str | None) -> None:
        def of_core() -> Any:
            registered, wakes = self.core.register_subscriber(member, name, self.now)
            return registered.subscriber, wakes

        self.note("comes back", member in self.naive.gone)
        self.wakes(of_core, lambda: self.naive.register_subscriber(member, name, self.now))

    def disconnect(self, choice: Choice) -> None:
        self.close(choice.among(MEMBERS))

    def close(self, member: bytes) -> None:
        self.wakes(
            lambda: self.core.close_member(member, self.now),
            lambda: self.naive.close_member(member, self.now),
        )

    def subscribe(self, choice: Choice) -> None:
        member, name = self.reader(choice), choice.among(TOPICS)
        ack_wait = choice.among((1.0, 30.0))
        self.subscribe_one(member, name, self.start(choice), ack_wait, choice.among(OPTIONS))

    def start(self, choice: Choice) -> Any:
        start = choice.among(STARTS)
        return AtTime(self.now - choice.number(0, 40) * NS_PER_S) if start == STARTS[-1] else start

    def subscribe_one(
        self, member: bytes, name: str, start: Start | None, ack_wait: float, other: Any
    ) -> None:
        options = SubscribeOptions(start=start, ack_wait=ack_wait, **other)

        def of_core() -> Any:
            reader = self.core.member(member)
            answer, changed = self.core.subscribe(reader, name, options, wall_ns=self.now)
            if changed is not None:
                self.stored.append(stored_state_of(changed))
            fields = (answer.subscriber, answer.topic_id, answer.offset, answer.skipped)
            return (*fields, answer.created, changed is not None)

        self.both(of_core, lambda: self.naive.subscribe(member, name, options))

    def unsubscribe(self, choice: Choice) -> None:
        name, subscriber = choice.among(TOPICS), choice.among(("red", "blue", "~6d34", "~6d35"))
        if not seldom(choice):
            return

        def of_core() -> Any:
            ended, wakes = self.core.unsubscribe(name, subscriber)
            if ended.durable:
                self.stored.append(SubscriptionDeleted(ended.topic.topic_id, subscriber))
            return wakes

        self.wakes(of_core, lambda: self.naive.unsubscribe(name, subscriber)[1])

    # --- pulling ------------------------------------------------------------------------------

    def pull(self, choice: Choice) -> None:
        member, name = self.reader(choice), choice.among(TOPICS)
        max_messages = choice.among((1, 1, 2, 3, 8, 100))
        max_bytes = choice.among((1, 60, 90, 200, BYTES_MAX, BYTES_MAX, BYTES_MAX))
        self.pull_once(member, name, max_messages, max_bytes, wait=choice.among(WAITS))

    def pull_often(self, choice: Choice) -> None:
        """A process that is connected pulls some times in a row."""
        member, name = self.reader(choice), choice.among(TOPICS)
        for _ in range(choice.number(1, 5)):
            self.pull_once(member, name, choice.number(1, 7))

    def scatter(self, choice: Choice) -> None:
        """A process acknowledges every other message of what it pulls."""
        member, name = self.reader(choice), choice.among(TOPICS)
        answer = self.pull_once(member, name, choice.number(3, 12))
        if answer[0] != "error" and answer[4]:
            first, next = answer[4][0][3], answer[4][-1][4]
            for offset in range(first + choice.number(0, 1), next, 2):
                self.ack_of(member, name, answer[1], [(offset, offset + 1)])

    def reader(self, choice: Choice) -> bytes:
        """Mostly one that is connected."""
        connected = sorted(self.naive.members)
        return choice.among(MEMBERS if seldom(choice) or not connected else connected)

    def pull_once(
        self,
        member: bytes,
        name: str,
        max_messages: int,
        max_bytes: int = BYTES_MAX,
        *,
        wait: int = 0,
    ) -> Any:
        self.tokens += 1
        token = self.tokens

        def of_core() -> Any:
            grant = self.core.pull(
                self.core.member(member),
                name,
                max_messages=max_messages,
                max_bytes=max_bytes,
                wait_ns=wait,
                token=token,
                now_ns=self.now,
                wall_ns=self.now,
            )
            return None if grant is None else plain(grant)

        answer = self.both(
            of_core,
            lambda: self.naive.pull(member, name, max_messages, max_bytes, wait, token, self.now),
        )
        self.note("pull waits", answer is None)
        self.remember(member, answer)
        return answer

    def remember(self, member: bytes, answer: Any) -> None:
        """Keep what was granted, so that it can be settled."""
        if answer is None or answer[0] == "error":
            return
        name, topic_id, _, skipped, pieces = answer
        self.grants += [(member, name, topic_id, piece[3], piece[4]) for piece in pieces]
        self.note("skipped", skipped)
        self.note("granted again", any(piece[6] > 1 for piece in pieces))
        self.note("part of a batch", any(piece[1:3] != piece[3:5] for piece in pieces))
        self.note("several pieces", len(pieces) > 1)
        del self.grants[:-20]

    def remember_wakes(self, wakes: dict[Any, Any]) -> None:
        for answer in wakes.values():
            if answer[0] != "error" and answer[4]:
                name, first = answer[0], answer[4][0][3]
                entry = self.naive.topics[name].subscriptions[answer[2]].entries.get(first)
                if entry is not None and entry.member is not None:
                    self.remember(entry.member, answer)

    def cancel_pull(self, choice: Choice) -> None:
        token = self.tokens - choice.number(0, 3)
        self.wakes(lambda: self.core.cancel_pull(token), lambda: self.naive.cancel_pull(token))

    def untouched_grant(self, choice: Choice) -> tuple[bytes, Grant] | None:
        """One of the last grants, if nothing happened to it since."""
        if not self.grants:
            return None
        member, name, topic_id, first, next_offset = choice.among(self.grants[-6:])
        reader, topic = self.naive.members.get(member), self.naive.topics.get(name)
        if topic is None or topic.id != topic_id or reader is None:
            return None
        sub = topic.subscriptions.get(reader.subscriber)
        if sub is None or any(is_across(sub, edge) for edge in (first, next_offset)):
            return None
        entries = [sub.entries.get(offset) for offset in range(first, next_offset)]
        if not all(entry is not None and leased_by(entry, member) for entry in entries):
            return None
        batch = topic.messages[first]
        piece = Piece(batch.place, batch.first, batch.next, first, next_offset, batch.timestamp, 1)
        skipped = choice.among((0, 0, 0, 2))
        return member, Grant(name, topic_id, reader.subscriber, skipped, [piece])

    def lose(self, choice: Choice) -> None:
        """A batch of a grant cannot be read, and sometimes the one after it."""
        untouched, further = self.untouched_grant(choice), choice.among((0, 0, 1, 4))
        if untouched is None:
            return
        member, grant = untouched
        [piece] = grant.pieces
        name, subscriber = grant.topic, grant.subscriber
        visible = self.naive.topics[name].visible
        lost = (piece.batch_first, min(piece.batch_next + further, visible))
        answer = self.wakes(
            lambda: self.core.lose(member, grant, lost, now_ns=self.now, wall_ns=self.now),
            lambda: self.naive.lose(
                member, name, subscriber, (piece.first, piece.next), lost, grant.skipped, self.now
            ),
        )
        self.note("lost", answer[0])
        self.note("lost a part", answer[0] and answer[0] != [lost])

    def take_back(self, choice: Choice) -> None:
        """A reply had room for less than was granted."""
        untouched, keep = self.untouched_grant(choice), choice.number(1, 3)
        if untouched is None:
            return
        member, grant = untouched
        [piece] = grant.pieces
        name, subscriber = grant.topic, grant.subscriber
        if piece.first + keep >= piece.next:
            return
        ranges = [(piece.first + keep, piece.next)]
        self.note("taken back")
        self.wakes(
            lambda: self.core.take_back(member, grant, ranges, self.now),
            lambda: self.naive.take_back(member, name, subscriber, ranges, self.now),
        )

    # --- settling -----------------------------------------------------------------------------

    def settled(self, choice: Choice) -> tuple[bytes, str, int, list[Range]]:
        """Draw whose grant is settled, by whom, and which part of it."""
        granted = (choice.among(MEMBERS), choice.among(TOPICS), choice.number(1, 3), 0, 4)
        current = [g for g in self.grants[-9:] if self.is_current(g)]
        if current and not seldom(choice):
            granted = choice.among(current)
        elif self.grants and not seldom(choice):
            granted = choice.among(self.grants)
        member, name, topic_id, first, next_offset = granted
        if seldom(choice):
            member = choice.among(MEMBERS)
        return member, name, topic_id, ranges_in(choice, first, next_offset)

    def is_current(self, granted: tuple[bytes, str, int, int, int]) -> bool:
        """Whether the one who was granted this can still settle it."""
        topic = self.naive.topics.get(granted[1])
        return topic is not None and topic.id == granted[2] and granted[0] in self.naive.members

    def ack(self, choice: Choice) -> None:
        self.ack_of(*self.settled(choice))

    def ack_ahead(self, choice: Choice) -> None:
        """A process acknowledges far ahead, also what it was never granted."""
        member, name, up_to = self.reader(choice), choice.among(TOPICS), choice.number(1, 60)
        topic = self.naive.topics.get(name)
        if topic is not None and topic.visible:
            first = choice.number(0, 60) if seldom(choice) else topic.first
            self.ack_of(member, name, topic.id, [(first, min(up_to, topic.visible))])

    def ack_of(self, member: bytes, name: str, topic_id: int, ranges: list[Range]) -> None:
        self.wakes(
            lambda: self.core.ack(
                self.core.member(member),
                name,
                topic_id,
                ranges,
                now_ns=self.now,
                wall_ns=self.now,
            ),
            lambda: self.naive.ack(member, name, topic_id, ranges, self.now),
        )

    def nack(self, choice: Choice) -> None:
        member, *what = self.settled(choice)
        delay, counted = choice.among(WAITS), choice.among((True, False))
        answer = self.wakes(
            lambda: self.core.nack(
                self.core.member(member),
                *what,
                delay_ns=delay,
                counted=counted,
                now_ns=self.now,
            ),
            lambda: self.naive.nack(member, *what, delay, counted, self.now),
        )
        self.note("given back", isinstance(answer[0], int) and answer[0])

    def extend(self, choice: Choice) -> None:
        member, *what = self.settled(choice)
        answer = self.both(
            lambda: self.core.extend(self.core.member(member), *what, self.now),
            lambda: self.naive.extend(member, *what, self.now),
        )
        self.note("extended", isinstance(answer, int) and answer)

    # --- subscriptions by name ------------------------------------------------------------------

    def subscriber(self, choice: Choice) -> tuple[str, str]:
        """Mostly one that there is."""
        subs = [(sub.topic.name, sub.subscriber) for sub in self.naive.all_subscriptions()]
        if not subs or seldom(choice):
            return choice.among(TOPICS), choice.among(("red", "blue", "~6d34"))
        return choice.among(sorted(subs))

    def seek(self, choice: Choice) -> None:
        name, subscriber = self.subscriber(choice)
        start = self.start(choice) or choice.number(0, 30)
        if choice.among((True, False)):
            return

        def of_core() -> Any:
            sought, subscription, wakes = self.core.seek(
                name, subscriber, start, now_ns=self.now, wall_ns=self.now
            )
            if subscription.durable:
                self.stored.append(stored_state_of(subscription))
            return sought.offset, sought.skipped, wakes

        answer = self.wakes(of_core, lambda: self.naive.seek(name, subscriber, start, self.now))
        self.note("sought", answer[0] != "error")
        self.note("sought what is gone", answer[0] != "error" and answer[1])

    def peek(self, choice: Choice) -> None:
        name, start = choice.among(TOPICS), self.start(choice) or choice.number(0, 30)
        messages, size = choice.number(1, 20), choice.among((1, 60, 200, BYTES_MAX))

        def of_core() -> Any:
            _, pieces = self.core.peek(name, start, max_messages=messages, max_bytes=size)
            return [plain_piece(piece) for piece in pieces]

        answer = self.both(of_core, lambda: self.naive.peek(name, start, messages, size))
        self.note("peeked", answer)

    def decide(self, choice: Choice) -> None:
        """Somebody releases or drops what is parked."""
        parked = [
            (sub.topic.name, sub.subscriber)
            for sub in self.naive.all_subscriptions()
            if any(entry.state == "parked" for entry in sub.entries.values())
        ]
        name, subscriber = choice.among(sorted(parked)) if parked else self.subscriber(choice)
        first, is_dropped = choice.number(0, 30), choice.among((True, False))
        ranges = choice.among((None, [(first, first + 3)], [(first, first + 1), (2, 9)]))

        def of_core() -> Any:
            if is_dropped:
                return self.core.drop_parked(
                    name, subscriber, ranges, now_ns=self.now, wall_ns=self.now
                )
            return self.core.release_parked(name, subscriber, ranges, now_ns=self.now)

        answer = self.wakes(
            of_core, lambda: self.naive.decide(name, subscriber, ranges, is_dropped, self.now)
        )
        if answer[0] != "error":
            self.note("dropped by hand" if is_dropped else "released by hand", answer[0])

    # --- what was delivered as often as it may be -----------------------------------------------

    def take_exhausted(self, choice: Choice) -> None:
        self.take_up_to(choice.among((1, 2, 64)))

    def take_up_to(self, pieces_max: int) -> None:
        waiting = len(self.naive.exhausted())
        assert self.core.has_exhausted or not waiting
        taken = self.core.take_exhausted(pieces_max, BYTES_MAX)
        assert len(taken) == min(waiting, pieces_max)
        for one in taken:
            topic, piece = one.subscription.topic.name, plain_piece(one.piece)
            found = self.naive.take_piece(topic, one.subscription.subscriber, piece)
            assert found is not None
            assert found[1] == piece
            self.in_hand.append((one, found[0]))
        self.note("exhausted", taken)

    def move(self, choice: Choice) -> None:
        """Move or park a piece that was taken."""
        if self.in_hand:
            is_parked, size = seldom(choice), choice.among((5, 40))
            self.move_one(choice.number(0, len(self.in_hand) - 1), is_parked, size)

    def move_one(self, at: int, is_parked: bool, message_size: int) -> None:
        one, sub = self.in_hand.pop(at)
        first, next = one.piece.first, one.piece.next

        def of_core() -> Any:
            subscription, count = one.subscription, next - first
            stored = self.core.dead_letter(
                one,
                count=count,
                size=count * message_size,
                now_ns=self.now,
                wall_ns=self.now,
            )
            if stored is None:
                return None
            place = self.naive.places + 1
            self.core.set_place(stored.topic_id, place)
            head = BatchHead(stored.topic_id, stored.first, count, stored.timestamp, NO_SESSION, 0)
            source = subscription.topic.topic_id
            also = Acknowledged(source, subscription.subscriber, stored.acknowledged)
            self.stored.append_batch(
                head, count * message_size, place, also if subscription.durable else None
            )
            return stored.topic_id, stored.first

        if not is_parked:
            answer = self.both(
                of_core,
                lambda: self.naive.dead_letter(sub, first, next, message_size, self.now, self.now),
            )
            self.note("void piece" if answer is None else "dead letter")
            if answer is None or answer[0] != "error":
                return
            self.note("dead letter refused")
        self.core.park(one)
        self.naive.park(sub, first, next)

    # --- what topics give up --------------------------------------------------------------------

    def purge(self, choice: Choice) -> None:
        name = choice.among(TOPICS)
        if seldom(choice):
            answer = self.wakes(
                lambda: self.core.purge(name, self.now), lambda: self.naive.purge(name, self.now)
            )
            self.note("purged", answer[0] not in (0, "error"))

    def give_up_retained(self, choice: Choice) -> None:
        answer = self.both(self.core.give_up_retained, self.naive.give_up_retained)
        self.note("retained is given up", answer)

    def move_batches(self, choice: Choice) -> None:
        """The journal moves some of the batches it has, live or not."""
        topic = self.naive.topics.get(choice.among(TOPICS))
        if topic is None:
            return
        moved = [batch for batch in topic.batches if choice.among((True, False))]
        firsts = [batch.first for batch in moved]
        places = [batch.place + seldom(choice) * 1000 for batch in moved]
        live = self.core.live_batches(topic.id, firsts, places)
        found = zip(moved, places, strict=True)
        is_live = [not batch.freed and batch.place == place for batch, place in found]
        assert live == [position for position, is_it in enumerate(is_live) if is_it]
        new_places = [self.naive.places + 1 + number for number in range(len(moved))]
        self.naive.places += len(moved)
        moves = list(zip(firsts, places, new_places, strict=True))
        topic_id = topic.id + seldom(choice) * 100
        left = self.both(
            lambda: self.core.move_batches(topic_id, moves),
            lambda: self.naive.move_batches(topic_id, moves),
        )
        self.stored.move({place: new for _, place, new in moves if new not in left})
        self.note("batches moved", len(left) < len(moves))

    # --- durability and time --------------------------------------------------------------------

    def turn(self, choice: Choice) -> None:
        """End a turn; some of the turns so far are durable now."""
        self.end_turn()
        for _ in range(choice.number(0, len(self.commits))):
            self.commit()

    def end_turn(self) -> None:
        """Take what changed, as it would be stored at the end of a turn."""
        changes = []

        def of_core() -> Any:
            changes.append(self.core.take_changes())
            acknowledged = sorted(
                (of.topic.topic_id, of.subscriber, ranges) for of, ranges in changes[0].acknowledged
            )
            trimmed = [
                (trim.topic.topic_id, trim.first_offset, trim.reason, sorted(trim.places))
                for trim in changes[0].trimmed
            ]
            return acknowledged, sorted(trimmed, key=lambda trim: trim[0])

        behind = {
            (topic.name, subscription.subscriber)
            for topic in self.core.topics
            for subscription in topic.subscriptions.values()
            if subscription.cursor < topic.first_offset
        }
        acknowledged, trimmed = self.both(
            of_core, lambda: self.naive.take_changes(lambda *of: of in behind)
        )
        assert not self.core.has_changes
        for topic_id, subscriber, ranges in acknowledged:
            self.stored.append(Acknowledged(topic_id, subscriber, ranges))
        for of, counts in changes[0].redelivered:
            sub = self.naive.topics[of.topic.name].subscriptions[of.subscriber]
            assert counts == [count for count in counts if is_counted_so(sub, *count)]
            self.stored.append(Redelivered(of.topic.topic_id, of.subscriber, counts))
            self.note("redelivered")
        ids = {topic.id for topic in self.naive.topics.values()}
        for topic_id, first_offset, reason, _ in trimmed:
            self.note(f"trimmed: {reason}")
            if topic_id in ids:
                self.stored.append(TopicTrimmed(topic_id, first_offset, reason))
        self.commits.append([place for *_, places in trimmed for place in places])

    def commit(self) -> None:
        places = self.commits.pop(0)
        self.stored.release(places)
        self.note("released", places)

    def restart(self, choice: Choice) -> None:
        """End the process, and go on with another that knows what is stored."""
        if not seldom(choice):
            return
        recovered = self.stored.recovered()
        self.core = Broker(LIMITS, recovered.next_topic_id)
        restored = restore(self.core, recovered, self.now)
        assert restored.clamped == []
        ids = {topic.topic_id for topic in recovered.topics}
        kept = {place for topic in self.naive.topics.values() for place in places_of(topic)}
        places = [place for of_topic in restored.places for place in of_topic]
        assert sorted(places) == sorted(p for ps in self.commits for p in ps if p in kept)
        assert ids == {topic.id for topic in self.naive.topics.values()}
        self.stored.release(places)
        self.commits.clear()
        self.in_hand.clear()
        self.note("a session restarts", self.naive.sessions)
        self.note("acks are forgotten", any(sub.fresh for sub in self.naive.all_subscriptions()))
        self.naive.restart(self.now)
        self.note("gaps restart", any(sub.entries for sub in self.naive.all_subscriptions()))

    def jump(self, choice: Choice) -> None:
        """Let time pass unnoticed, as in a busy process, and then do what is due."""
        self.jump_by(choice.among((1, 2, 10, 29, 31, 31, 700)))

    def jump_by(self, seconds: int) -> None:
        self.now += seconds * NS_PER_S
        deadlines, never = self.core._agenda.deadlines, self.now + 1
        due = {
            (topic.name, subscription.subscriber)
            for topic in self.core.topics
            for subscription in topic.subscriptions.values()
            if any((deadlines.get(lease) or never) <= self.now for lease in subscription.leases)
        }
        self.wakes(
            lambda: self.core.expire(self.now, self.now),
            lambda: self.naive.expire(self.now, self.now, lambda *of: of in due),
        )
        self.stored.forget_sessions(self.naive.sessions)

    def go_to_deadlines(self, choice: Choice) -> None:
        """Let time pass from deadline to deadline."""
        for _ in range(choice.number(1, 5)):
            when = self.core.next_deadline_ns()
            if when is None:
                assert not self.naive.deadlines()
                return
            assert when <= min(self.naive.deadlines(), default=when)
            self.now = max(self.now, when)
            self.jump_by(0)

    # --- what must be true after every step -----------------------------------------------------

    def check(self) -> None:
        """Both have the same state, and core's is consistent."""
        self.core.check()
        assert self.core.session_count == len(self.naive.sessions)
        assert {topic.name for topic in self.core.topics} == set(self.naive.topics)
        for topic in self.core.topics:
            naive = self.naive.topics[topic.name]
            assert (topic.topic_id, topic.first_offset) == (naive.id, naive.first)
            assert (topic.visible_next, topic.next_offset) == (naive.visible, len(naive.messages))
            assert set(topic.subscriptions) == set(naive.subscriptions)
            for name, subscription in topic.subscriptions.items():
                self.note("behind", subscription.cursor < topic.first_offset)
                if subscription.cursor < topic.first_offset:
                    # It is looked at when it is used next.
                    continue
                states = state_of(subscription), naive_state_of(naive.subscriptions[name])
                assert states[0] == states[1], f"core: {states[0]}\nnaive: {states[1]}"
                self.note("at the bound", subscription.ranges >= LIMITS.subscription_ranges - 1)

    # --- at the end everybody gets everything ---------------------------------------------------

    def end(self) -> None:
        """Without any more faults, every durable subscription reads all and all is reclaimed."""
        self.end_turn()
        while self.commits:
            self.commit()
        for topic in list(self.core.topics):
            self.reveal(topic.name, 1_000_000)
        for member in MEMBERS:
            self.close(member)
        for _ in range(3):
            self.jump_by(1_000)
        for _ in range(2):
            # Draining one topic may fill another with dead letters.
            for topic in list(self.core.topics):
                self.reveal(topic.name, 1_000_000)
                for subscription in list(topic.subscriptions.values()):
                    assert subscription.durable
                    self.drain(topic.name, subscription)
        self.end_turn()
        self.both(self.core.give_up_retained, self.naive.give_up_retained)
        self.end_turn()
        self.check()
        for topic in self.core.topics:
            if topic.subscriptions:
                assert topic.first_offset == topic.next_offset
        self.jump_by(1_000)
        self.jump_by(1_000)
        if not any(topic.settings.max_age and topic.messages for topic in self.core.topics):
            assert self.core.next_deadline_ns() is None

    def drain(self, name: str, subscription: Subscription) -> None:
        """Read all of a subscription through one member and small pulls, whatever it takes."""
        member = b"drainer"
        self.register(member, subscription.subscriber)
        for number in range(10_000):
            self.settle_exhausted()
            answer = self.pull_once(member, name, 1 + number % 2)
            if answer[4]:
                ranges = [(piece[3], piece[4]) for piece in answer[4]]
                self.ack_of(member, name, subscription.topic.topic_id, ranges)
            elif not subscription.parked_count and not subscription.unread:
                break
            else:
                self.wakes(
                    lambda: self.core.release_parked(
                        name, subscription.subscriber, None, now_ns=self.now
                    ),
                    lambda: self.naive.decide(name, subscription.subscriber, None, False, self.now),
                )
        self.close(member)
        assert subscription.unread == 0
        assert subscription.ranges == 0

    def settle_exhausted(self) -> None:
        """Move what can be moved, and park the rest."""
        while self.core.has_exhausted or self.in_hand:
            self.take_up_to(64)
            while self.in_hand:
                self.move_one(0, False, 5)


# How often each action is taken, against the others.
ACTIONS: dict[Callable[[Comparison, Choice], None], int] = {
    Comparison.create_topic: 1,
    Comparison.delete_topic: 1,
    Comparison.publish: 6,
    Comparison.register_publisher: 1,
    Comparison.connect: 3,
    Comparison.disconnect: 1,
    Comparison.subscribe: 3,
    Comparison.unsubscribe: 1,
    Comparison.pull: 8,
    Comparison.pull_often: 2,
    Comparison.scatter: 5,
    Comparison.cancel_pull: 1,
    Comparison.take_back: 2,
    Comparison.lose: 1,
    Comparison.restart: 2,
    Comparison.ack: 6,
    Comparison.ack_ahead: 2,
    Comparison.nack: 3,
    Comparison.extend: 2,
    Comparison.seek: 1,
    Comparison.peek: 1,
    Comparison.decide: 2,
    Comparison.take_exhausted: 2,
    Comparison.move: 3,
    Comparison.purge: 1,
    Comparison.give_up_retained: 1,
    Comparison.move_batches: 1,
    Comparison.turn: 4,
    Comparison.jump: 1,
    Comparison.go_to_deadlines: 1,
}


def ranges_in(choice: Choice, first: int, next: int) -> list[Range]:
    """What to settle of a grant: all, a part, every other message, or anything."""
    by = choice.number(1, 3)
    shapes = {
        "all": [(first, next)],
        "front": [(first, min(first + by, next))],
        "back": [(max(next - by, first), next)],
        "inner": [(first + by, next - by)],
        "holes": [(offset, offset + 1) for offset in range(first + by % 2, next, 2)],
        "twice": [(first + by, first + by + 1)] * 3 + [(first, first + 1)],
        "around": [(max(first - by, 0), next + by)],
        "anywhere": [(offset, offset + by) for offset in (choice.number(0, 40), first)],
    }
    return shapes[choice.among(sorted(shapes))]


# --- the same in plain values -------------------------------------------------------------------


def plain(answer: Grant | MbctlError) -> Any:
    """A grant or an error as plain values."""
    if isinstance(answer, MbctlError):
        return ("error", answer.code, str(answer))
    pieces = [plain_piece(piece) for piece in answer.pieces]
    return (answer.topic, answer.topic_id, answer.subscriber, answer.skipped, pieces)


def plain_piece(piece: Piece) -> Any:
    """A piece as plain values."""
    where = (piece.place, piece.batch_first, piece.batch_next, piece.first, piece.next)
    return (*where, piece.timestamp, piece.deliveries)


def is_counted_so(sub: Any, first: int, next: int, deliveries: int, is_parked: bool) -> bool:
    """Whether all of a range was delivered that often."""
    entries = [sub.entries[offset] for offset in range(first, next)]
    return all(
        (entry.deliveries, entry.state == "parked") == (deliveries, is_parked)
        and entry.state != "acked"
        for entry in entries
    )


def plain_wakes(wakes: list[Wake]) -> dict[Any, Any]:
    """The answers of wakes, none of which comes twice."""
    answers = {wake.token: plain(wake.result) for wake in wakes}
    assert len(answers) == len(wakes)
    return answers


def plain_naive(wakes: dict[Any, Any]) -> dict[Any, Any]:
    """The naive model's wakes, with refusals as plain values."""
    return {
        token: plain(answer) if isinstance(answer, MbctlError) else answer
        for token, answer in wakes.items()
    }


def places_of(topic: Any) -> list[int]:
    """The places of all that the naive model's topic ever held."""
    return [batch.place for batch in topic.batches]


def state_of(subscription: Subscription) -> Any:
    """All that can be told of a subscription."""
    leases = [
        (lease.first, lease.next, lease.state, lease.deliveries, lease.member and lease.member.id)
        for lease in subscription.leases
    ]
    return (
        (subscription.cursor, subscription.next, subscription.ranges, subscription.unread),
        (subscription.leases.leased_count, subscription.redeliver_count, subscription.lost),
        (subscription.dropped, subscription.expired, subscription.parked_ranges()),
        (subscription.parked_count, subscription.at_limit, subscription.counts()),
        list(subscription.acknowledged),
        leases,
        [pull.token for pull in subscription.pulls],
    )


def naive_state_of(sub: Any) -> Any:
    """The same of the naive model's."""
    at, end = cursor(sub), next_of(sub)
    entries = {offset: sub.entries[offset] for offset in range(at, end)}
    left = {offset: entry for offset, entry in entries.items() if entry.state != "acked"}
    leased = sum(entry.state == "leased" for entry in left.values())
    leases: list[Any] = []
    for offset, entry in left.items():
        lease = (entry.state, entry.deliveries, entry.member, entry.label)
        if leases and leases[-1][1:] == (offset, *lease):
            leases[-1] = (leases[-1][0], offset + 1, *lease)
        else:
            leases.append((offset, offset + 1, *lease))
    unread = sub.topic.visible - at - (len(entries) - len(left))
    parked = [offset for offset, entry in left.items() if entry.state == "parked"]
    counts: list[Any] = []
    for offset, entry in left.items():
        value = (entry.deliveries, entry.state == "parked")
        if entry.deliveries < 2 and entry.state != "parked":
            continue
        if counts and counts[-1][1:] == (offset, *value):
            counts[-1] = (counts[-1][0], offset + 1, *value)
        else:
            counts.append((offset, offset + 1, *value))
    growth_max = LIMITS.subscription_ranges - LIMITS.subscription_ranges // 4
    return (
        (at, end, count_ranges(sub), unread),
        (leased, len(left) - leased - len(parked), sub.lost),
        (sub.dropped, sub.expired, runs_of(parked)),
        (len(parked), count_ranges(sub) >= growth_max, counts),
        runs_of(offset for offset, entry in entries.items() if entry.state == "acked"),
        [lease[:5] for lease in leases],
        [pull.token for pull in sub.pulls],
    )

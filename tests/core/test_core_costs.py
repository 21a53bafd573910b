"""No verb walks a backlog, all subscriptions or all leases: what one costs does not grow.

Counted are the instructions of the interpreter in mbctl.core and mbctl.ranges, which time would
measure only roughly, and the memory a verb needs at its peak, which shows a copy that is made
inside C.
"""

import itertools
import sys
import tracemalloc
from collections.abc import Callable
from statistics import median
from types import FrameType
from typing import Any

import pytest
from core_world import World

from mbctl.model import Limits, SubscribeOptions, TopicSettings

EARLIEST = SubscribeOptions(start="earliest", ack_wait=86_400.0)
AGING = TopicSettings(max_age=86_400.0, retain_age=3_600.0)
REPEATS = 9
COUNTED = ("/mbctl/core/", "/mbctl/ranges.py")
# Of sends that are new in every world.
SEQUENCES = itertools.count(1)


class Meter:
    """Counts instructions and peak memory of calls into core."""

    def __init__(self) -> None:
        self.instructions = 0

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in COUNTED):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        self.instructions += event == "opcode"
        return self._step

    def count(self, call: Callable[[], object]) -> int:
        """The instructions that one call needs."""
        self.instructions = 0
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(before)
        assert self.instructions > 0
        return self.instructions

    def peak(self, call: Callable[[], object]) -> int:
        """The bytes that one call needs at its peak."""
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before


def many_subscriptions(count: int) -> World:
    """One subscription that is used, and others that have read nothing."""
    world = World(Limits(topic_subscriptions=2_000))
    world.topic()
    world.reader(b"a", "used")
    for number in range(count):
        name = None if number % 2 else f"idle-{number}"
        world.core.register_subscriber(b"%d" % number, name, world.now)
        member = world.core.member(b"%d" % number)
        world.core.subscribe(member, "orders", EARLIEST, wall_ns=0)
    fill(world, 200)
    return world


def long_backlog(count: int) -> World:
    """One subscription, and as many batches that it has not read."""
    world = World()
    world.topic()
    world.reader(b"a", "used")
    fill(world, 200 + count)
    return world


def many_leases(count: int) -> World:
    """One subscription that has been granted as many messages, one by one, to one process."""
    world = World()
    world.topic()
    world.reader(b"a", "used")
    world.core.register_subscriber(b"b", "used", world.now)
    fill(world, 200 + count)
    for _ in range(count):
        pull(world, b"b")
    world.core.take_changes()
    return world


def many_ranges(count: int) -> World:
    """One subscription that has acknowledged every other of as many messages."""
    world = many_leases(count)
    member, topic = world.core.member(b"b"), world.core.topics.named("orders")
    for offset in range(1, count, 2):
        world.core.ack(
            member, "orders", topic.topic_id, [(offset, offset + 1)], now_ns=world.now, wall_ns=0
        )
    return world


def many_waiting(count: int) -> World:
    """One subscription, and others of another topic with pulls that wait."""
    world = World(Limits(topic_subscriptions=10_000))
    world.topic("others")
    for number in range(count):
        world.core.register_subscriber(b"%d" % number, f"w{number}", world.now)
        member = world.core.member(b"%d" % number)
        world.core.subscribe(member, "others", EARLIEST, wall_ns=0)
        world.core.pull(
            member,
            "others",
            max_messages=1,
            max_bytes=1_000,
            wait_ns=10**12,
            token=-1 - number,
            now_ns=world.now,
            wall_ns=0,
        )
    world.topic()
    world.reader(b"a", "used")
    fill(world, 200)
    return world


def many_that_miss(count: int) -> World:
    """One subscription that is used, and others, of a topic that drops a batch at every send."""
    world = World(Limits(topic_subscriptions=2_000))
    world.topic(max_messages=100, when_full="drop_oldest")
    world.reader(b"a", "used")
    world.reader(b"b", "used")
    for number in range(count):
        world.core.register_subscriber(b"%d" % number, f"idle-{number}", world.now)
        member = world.core.member(b"%d" % number)
        world.core.subscribe(member, "orders", EARLIEST, wall_ns=0)
    fill(world, 200)
    return world


def many_topics(count: int) -> World:
    """One topic that is used, and others whose messages grow old and are kept."""
    world = World()
    for number in range(count):
        name = f"topic-{number}"
        world.core.create_topic(name, AGING, exist_ok=True, created=0)
        world.core.register_subscriber(b"%d" % number, "other", world.now)
        member = world.core.member(b"%d" % number)
        world.core.subscribe(member, name, EARLIEST, wall_ns=0)
        fill(world, 1, name)
    world.core.create_topic("orders", AGING, exist_ok=True, created=0)
    world.reader(b"a", "used")
    fill(world, 200)
    return world


def many_subscriptions_in_all(count: int) -> World:
    """One subscription that is used, and a hundred a topic of many others."""
    world = World()
    for number in range(count):
        if number % 100 == 0:
            name = f"topic-{number}"
            world.core.create_topic(name, TopicSettings(), exist_ok=True, created=0)
        world.core.register_subscriber(b"%d" % number, f"idle-{number}", world.now)
        member = world.core.member(b"%d" % number)
        world.core.subscribe(member, name, EARLIEST, wall_ns=0)
    world.topic()
    world.reader(b"a", "used")
    fill(world, 200)
    return world


def all_subscriptions_there_may_be(count: int) -> World:
    """The same to the limit, which takes a while to build."""
    return many_subscriptions_in_all(count)


def fill(world: World, count: int, name: str = "orders") -> None:
    """That many batches of one message, without a check after each."""
    topic = world.core.topics.named(name)
    for number in range(count):
        world.core.send(
            b"filler-%d" % topic.topic_id,
            number + 1,
            name,
            count=1,
            size=10,
            age_ns=0,
            now_ns=world.now,
            wall_ns=world.wall,
        )
        world.core.set_place(topic.topic_id, number)
    world.core.reveal(topic.topic_id, topic.next_offset, world.now)


def pull(world: World, member: bytes = b"a") -> Any:
    world.tokens += 1
    return world.core.pull(
        world.core.member(member),
        "orders",
        max_messages=1,
        max_bytes=1_000,
        wait_ns=0,
        token=world.tokens,
        now_ns=world.now,
        wall_ns=0,
    )


class Verbs:
    """One of each verb, each time on the next messages."""

    def __init__(self, world: World) -> None:
        self.world, self.core = world, world.core
        self.member = world.core.member(b"a")
        self.topic = world.core.topics.named("orders")

    def settle(self, verb: Callable[..., Any], **how: Any) -> Callable[[], object]:
        """Pull a message; the call settles it."""
        piece = pull(self.world).pieces[0]
        return lambda: verb(
            self.member, "orders", self.topic.topic_id, [(piece.first, piece.next)], **how
        )

    def send(self) -> Callable[[], object]:
        sequence = next(SEQUENCES)

        def call() -> None:
            self.core.send(
                b"s",
                sequence,
                "orders",
                count=1,
                size=10,
                age_ns=0,
                now_ns=self.world.now,
                wall_ns=self.world.wall,
            )
            self.core.set_place(self.topic.topic_id, 1)
            self.core.reveal(self.topic.topic_id, self.topic.next_offset, self.world.now)

        return call

    def pull(self) -> Callable[[], object]:
        return lambda: pull(self.world)

    def ack(self) -> Callable[[], object]:
        return self.settle(self.core.ack, now_ns=self.world.now, wall_ns=0)

    def nack(self) -> Callable[[], object]:
        return self.settle(self.core.nack, now_ns=self.world.now)

    def extend(self) -> Callable[[], object]:
        return self.settle(lambda *what: self.core.extend(*what, self.world.now))

    def take_changes(self) -> Callable[[], object]:
        """The cursor moves by a message and that is taken to become durable."""
        self.settle(self.core.ack, now_ns=self.world.now, wall_ns=0)()
        return self.core.take_changes

    def expire(self) -> Callable[[], object]:
        """One lease comes due."""
        pull(self.world)
        subscription = self.core.subscription("orders", "used")
        lease = subscription.leases.at(subscription.next - 1)
        subscription.leases.renew(lease, self.world.now)
        return lambda: self.core.expire(self.world.now, self.world.wall)

    def redeliver(self) -> Callable[[], object]:
        """A message is granted again, and its count is taken to be stored."""
        self.settle(self.core.nack, now_ns=self.world.now)()

        def call() -> None:
            pull(self.world)
            self.core.take_changes()

        return call

    def dead_letter(self) -> Callable[[], object]:
        """A message that was delivered as often as it may be is moved."""
        self.world.core.create_topic("dead", TopicSettings(), exist_ok=True, created=0)
        self.core.register_subscriber(b"d", "dies", self.world.now)
        member = self.core.member(b"d")
        options = SubscribeOptions(start="new", max_deliveries=1, dead_letter="dead")
        self.core.subscribe(member, "orders", options, wall_ns=0)
        self.send()()
        [piece] = pull(self.world, b"d").pieces
        ranges = [(piece.first, piece.next)]
        self.core.nack(member, "orders", self.topic.topic_id, ranges, now_ns=self.world.now)

        def call() -> None:
            [one] = self.core.take_exhausted(64, 1 << 20)
            stored = self.core.dead_letter(
                one, count=1, size=10, now_ns=self.world.now, wall_ns=self.world.wall
            )
            self.core.set_place(stored.topic_id, 1)
            self.core.take_changes()

        return call

    def look_for_old(self) -> Callable[[], object]:
        """A topic is looked at whose oldest message is not old enough."""
        settings = TopicSettings(max_age=86_400.0)
        topic, _ = self.core.create_topic("ages", settings, exist_ok=True, created=0)
        if not topic.messages:
            fill(self.world, 1, "ages")
        self.core._retention.looks.set(topic, self.world.now)
        return lambda: self.core.expire(self.world.now, self.world.wall)

    def peek(self) -> Callable[[], object]:
        middle = (self.topic.first_offset + self.topic.next_offset) // 2
        return lambda: self.core.peek("orders", middle, max_messages=1, max_bytes=1_000)

    def move_batch(self) -> Callable[[], object]:
        """A batch in the middle is looked for, and is elsewhere then."""
        middle = (self.topic.first_offset + self.topic.next_offset) // 2
        place = next(self.topic.index.walk(middle))[2]

        def call() -> None:
            assert self.core.live_batches(self.topic.topic_id, [middle], [place]) == [0]
            self.core.move_batches(self.topic.topic_id, [(middle, place, 10**6)])

        return call

    def next_deadline(self) -> Callable[[], object]:
        return self.core.next_deadline_ns

    def wait_and_cancel(self) -> Callable[[], object]:
        """A pull of another process that has to wait, and does not any more."""
        self.core.register_subscriber(b"w", "waits", self.world.now)
        member = self.core.member(b"w")
        options = SubscribeOptions(start="new")
        self.core.subscribe(member, "orders", options, wall_ns=0)

        def call() -> None:
            self.core.pull(
                member,
                "orders",
                max_messages=1,
                max_bytes=1_000,
                wait_ns=10**9,
                token="waits",
                now_ns=self.world.now,
                wall_ns=0,
            )
            self.core.cancel_pull("waits")

        return call

    def unsubscribe(self) -> Callable[[], object]:
        """A subscription that has nothing comes and goes."""
        self.core.register_subscriber(b"g", "goes", self.world.now)
        member = self.core.member(b"g")

        def call() -> None:
            self.core.subscribe(member, "orders", SubscribeOptions(start="new"), wall_ns=0)
            self.core.unsubscribe("orders", "goes")
            self.core.take_changes()

        return call

    def reconnect(self) -> Callable[[], object]:
        """A process that has one lease goes and comes."""
        self.core.register_subscriber(b"r", "used", self.world.now)
        pull(self.world, b"r")

        def call() -> None:
            self.core.close_member(b"r", self.world.now)
            self.core.register_subscriber(b"r", "used", self.world.now)

        return call


VERBS = [name for name in vars(Verbs) if not name.startswith("_") and name != "settle"]
SIZES = {
    many_subscriptions: 999,
    many_that_miss: 999,
    many_topics: 9_990,
    many_subscriptions_in_all: 10_000,
    all_subscriptions_there_may_be: 99_900,
    long_backlog: 100_000,
    many_leases: 5_000,
    many_ranges: 9_000,
    many_waiting: 1_000,
}


def instructions_of(verb: str, world: World) -> float:
    verbs, meter = Verbs(world), Meter()
    return median(meter.count(getattr(verbs, verb)()) for _ in range(REPEATS))


def peak_of(verb: str, world: World) -> float:
    verbs, meter = Verbs(world), Meter()
    tracemalloc.start()
    try:
        return min(meter.peak(getattr(verbs, verb)()) for _ in range(REPEATS))
    finally:
        tracemalloc.stop()


WORLDS = [
    pytest.param(
        build,
        id=build.__name__,
        marks=[pytest.mark.slow] if build is all_subscriptions_there_may_be else [],
    )
    for build in SIZES
]


@pytest.fixture(scope="module", params=WORLDS)
def worlds(request: pytest.FixtureRequest) -> tuple[World, World]:
    """The same world with one of something and with many."""
    build = request.param
    return build(1), build(SIZES[build])


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_costs_the_same_with_one_and_with_many(verb, worlds) -> None:
    one, many = worlds
    small, large = instructions_of(verb, one), instructions_of(verb, many)
    assert large <= 1.5 * small + 30
    # A few KiB for objects that happen to need a larger table; a copy would be larger.
    assert peak_of(verb, many) <= peak_of(verb, one) + 6_000


def test_the_meter_sees_a_walk_in_python_and_a_copy_in_c() -> None:
    meter = Meter()
    few, many = many_leases(1), many_leases(500)
    assert meter.count(many.core.check) > 20 * meter.count(few.core.check)
    index = long_backlog(10_000).core.topics.named("orders").index
    tracemalloc.start()
    try:
        assert meter.peak(index.places) > 50_000
    finally:
        tracemalloc.stop()


def test_reclaiming_costs_little_for_each_ack_when_all_read_side_by_side() -> None:
    costs = {}
    for count in (10, 1_000):
        world = many_subscriptions(count)
        members = [world.core.member(b"%d" % number) for number in range(0, count, 2)]
        members.append(world.core.member(b"a"))
        topic_id = world.core.topics.named("orders").topic_id
        world.core.take_changes()
        meter, total = Meter(), 0
        for offset in range(3):
            for member in members:
                world.core.ack(
                    member, "orders", topic_id, [(offset, offset + 1)], now_ns=world.now, wall_ns=0
                )
                total += meter.count(world.core.take_changes)
        assert world.core.topics.named("orders").first_offset == 3
        costs[count] = total / len(members)
    assert costs[1_000] <= 1.5 * costs[10]

"""What a message costs does not grow with what else the server has.

Counted in a server inside this process: the calls of Python functions that a round of send,
pull and acknowledgement needs, with sockets, and the memory that it needs at its peak; in a
slow test the system calls of a server of its own. scripts/growth_figures.py has the time.
"""

import resource
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import FrameType

import pytest
from broker_process import BrokerProcess, wait_until
from server_harness import RawClient, ServerInside

import mbctl
from mbctl import Publisher, Subscriber
from mbctl import batch as batches
from mbctl.model import MIB, SubscribeOptions, TopicSettings
from mbctl.wire import messages as wire

PACKAGE = str(Path(mbctl.__file__).parent)
USED, OTHER = "used", "other"
ROUNDS = 15


class Growing:
    """A server with clients that do rounds, and ways to let it grow."""

    def __init__(self, inside: ServerInside) -> None:
        self.inside = inside
        self.engine = inside.engine
        self.clients: list[RawClient] = []
        self.publisher = Publisher(inside.address)
        self.publisher.create_topic(USED)
        self.publisher.create_topic(OTHER)
        self.subscriber = Subscriber(inside.address, name="reader")
        self.subscriber.subscribe(USED, ack_wait=3600.0)
        self._count = 0

    def close(self) -> None:
        for client in self.clients:
            client.socket.close()
        self.subscriber.close()
        self.publisher.close()

    # --- rounds -------------------------------------------------------------------------------

    def round(self) -> None:
        self.publisher.send(USED, b"x" * 100)
        assert len(self.subscriber.pull(USED, wait=10).payloads) == 1

    def calls(self) -> float:
        """The calls of the package's functions, in the server's thread, that a round needs."""
        self.round()
        return median(self._calls() for _ in range(ROUNDS))

    def _calls(self) -> int:
        count = 0

        def enter(frame: FrameType, event: str, _: object) -> None:
            nonlocal count
            count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

        self.inside.on_loop(lambda: sys.setprofile(enter))
        self.round()
        self.inside.on_loop(lambda: sys.setprofile(None))
        return count

    def peak(self) -> float:
        """The bytes that a round needs at its peak, in both threads."""
        self.round()
        tracemalloc.start()
        try:
            return min(self._peak() for _ in range(ROUNDS))
        finally:
            tracemalloc.stop()

    def _peak(self) -> int:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        self.round()
        return tracemalloc.get_traced_memory()[1] - before

    # --- growing ------------------------------------------------------------------------------

    def in_engine(self, grow: Callable[[], None]) -> None:
        self.inside.on_loop(grow)
        # What it began is done when something later is.
        self.round()

    def topics(self, count: int) -> None:
        def grow() -> None:
            for number in range(count):
                self.engine.create_topic(f"t{number}", TopicSettings(), True, _ignore)

        self.in_engine(grow)

    def subscriptions(self, count: int, topic: str) -> None:
        """So many durable subscriptions, each of a subscriber of its own."""
        options = SubscribeOptions(start="new")

        def grow() -> None:
            for number in range(count):
                member = number.to_bytes(16, "big")
                self.engine.register_subscriber(member, f"s{number}", _ignore)
                self.engine.subscribe(member, topic, options, _ignore)
                self.engine.close_member(member)

        self.in_engine(grow)

    def many_subscriptions(self, count: int) -> None:
        """So many, 200 of each topic."""
        self.topics(count // 200)
        options = SubscribeOptions(start="new")

        def grow() -> None:
            for number in range(200):
                member = number.to_bytes(16, "big")
                self.engine.register_subscriber(member, f"s{number}", _ignore)
                for topic in range(count // 200):
                    self.engine.subscribe(member, f"t{topic}", options, _ignore)
                self.engine.close_member(member)

        self.in_engine(grow)

    def backlog(self, count: int) -> None:
        """So many messages of the used topic that another subscriber has not read."""
        self.subscriptions(1, USED)
        batch = batches.encode([b"x"] * 10_000)
        engine = self.engine
        session = b"filler".ljust(16)

        def grow() -> None:
            for sequence in range(1, count // 10_000 + 1):
                engine.send(session, sequence, USED, batch, age_ms=0, done=_ignore)

        self.inside.on_loop(grow)
        got = 0
        while got < count:
            got += len(self.subscriber.pull(USED, 65_536, wait=10).payloads)
        self.round()

    def ranges(self, count: int) -> None:
        """The reader has acknowledged every other of so many messages."""
        self.publisher.send_many(USED, [b"x"] * 2 * count)
        batch = self.subscriber.pull(USED, 2 * count, wait=10, auto_ack=False)
        for message in list(batch)[1::2]:
            message.ack()

    def connections(self, count: int) -> None:
        self.clients += [self.inside.client().hello() for _ in range(count)]

    def waiting(self, count: int) -> None:
        """So many pulls of another topic that nothing comes for."""
        self.subscriptions(count, OTHER)

        def grow() -> None:
            for number in range(count):
                member = number.to_bytes(16, "big")
                self.engine.register_subscriber(member, f"s{number}", _ignore)
                self.engine.pull(
                    member,
                    OTHER,
                    max_messages=1,
                    max_bytes=MIB,
                    wait_ms=3_600_000,
                    done=_ignore,
                )

        self.in_engine(grow)


def _ignore(_: object) -> None:
    """Nobody asked."""


@pytest.fixture
def growing() -> Iterator[Growing]:
    with _descriptors(), ServerInside() as inside:
        growing = Growing(inside)
        yield growing
        growing.close()


@contextmanager
def _descriptors() -> Iterator[None]:
    """As many as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Grow = Callable[[Growing], None]
Size = Callable[[Growing], int]

GROWTH: dict[str, tuple[Grow, Size, int]] = {
    "topics": (
        lambda growing: growing.topics(9_998),
        lambda growing: len(growing.engine.core.topics),
        10_000,
    ),
    "subscriptions of the topic": (
        lambda growing: growing.subscriptions(999, USED),
        lambda growing: len(growing.engine.core.topics.named(USED).subscriptions),
        1_000,
    ),
    "subscriptions in all": (
        lambda growing: growing.many_subscriptions(20_000),
        lambda growing: growing.engine.core.subscription_count,
        20_001,
    ),
    "messages of backlog": (
        lambda growing: growing.backlog(10_000_000),
        lambda growing: growing.engine.core.subscription(USED, "s0").unread // 1000,
        10_000,
    ),
    "connections": (
        lambda growing: growing.connections(300),
        lambda growing: len(growing.inside.server.connections),
        302,
    ),
    "waiting pulls": (
        lambda growing: growing.waiting(1_000),
        lambda growing: len(growing.engine.core.topics.named(OTHER).waiting),
        1_000,
    ),
    "ranges out of order": (
        lambda growing: growing.ranges(1_000),
        lambda growing: growing.engine.core.subscription(USED, "reader").ranges // 2,
        1_000,
    ),
}


@pytest.mark.parametrize("name", GROWTH)
def test_a_round_needs_as_many_calls_and_as_much_memory_as_with_one(
    name: str, growing: Growing
) -> None:
    grow, size, count = GROWTH[name]
    calls, peak = growing.calls(), growing.peak()
    grow(growing)
    assert growing.inside.on_loop(lambda: size(growing)) == count
    assert growing.calls() <= 1.5 * calls
    # Some KiB for objects that happen to need a larger table.
    assert growing.peak() <= 1.5 * peak + 20_000


def test_the_meters_see_a_walk_and_a_copy(growing: Growing) -> None:
    calls, peak = growing.calls(), growing.peak()
    growing.topics(2_000)
    round_ = growing.round

    def walk() -> None:
        round_()
        growing.inside.on_loop(lambda: growing.engine.status(_ignore))
        growing.inside.on_loop(lambda: list(growing.engine.core.topics) * 10)

    growing.round = walk  # type: ignore[method-assign]
    assert growing.calls() > 2 * calls
    assert growing.peak() > 1.5 * peak + 20_000


# --- system calls -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_a_round_needs_as_many_system_calls_with_a_thousand_connections(
    on_disk: bool, start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    with _descriptors():
        broker = start_broker(**({"data": tmp_path / "data"} if on_disk else {}))
        with Publisher(broker.address) as publisher, Subscriber(broker.address, name="s") as reader:
            publisher.create_topic(USED)
            reader.subscribe(USED)
            one = system_calls(broker, publisher, reader, tmp_path / "one")
            for number in range(1_000):
                publisher.create_topic(f"t{number}")
            clients = [RawClient(broker.address).hello() for _ in range(1_000)]
            for number, client in enumerate(clients[:500]):
                _wait_for_messages(client, number)
            many = system_calls(broker, publisher, reader, tmp_path / "many")
            assert many <= 1.5 * one
            for client in clients:
                client.socket.close()


def _wait_for_messages(client: RawClient, number: int) -> None:
    client.ask(wire.RegisterSubscriber(0, number.to_bytes(16, "big"), f"w{number}"))
    client.ask(wire.Subscribe(0, f"t{number}"))
    client.write(client.frame(wire.Pull(0, f"t{number}", 1, None, 3_600_000)))


def system_calls(
    broker: BrokerProcess, publisher: Publisher, reader: Subscriber, report: Path
) -> float:
    """How many system calls the server makes for a round, over 200 of them."""
    rounds = 200
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-o", str(report), "-p", str(broker.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    wait_until(lambda: "attached" in tracer.stderr.readline())  # type: ignore[union-attr]
    for _ in range(rounds):
        publisher.send(USED, b"x")
        assert len(reader.pull(USED, wait=10).payloads) == 1
    tracer.terminate()
    tracer.communicate(timeout=20)
    total = report.read_text().splitlines()[-1].split()
    assert total[-1] == "total"
    # Percent, seconds, microseconds a call, and then the calls.
    return int(total[3]) / rounds

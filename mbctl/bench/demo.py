"""``mbctl demo``: a broker, two publishers, three subscribers of different speeds.

All are processes of their own. The picture is drawn from what the broker says, the sum
at the end from what publishers and subscribers counted themselves.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess

import msgspec

from mbctl.bench.demo_parts import PublisherPart, SubscriberPart, publish, subscribe
from mbctl.bench.demo_picture import FRAME_S, Moment, Picture, Show
from mbctl.bench.processes import ServerProcess, memory_bytes
from mbctl.client.admin import Admin
from mbctl.client.subscriber import Subscriber
from mbctl.model import MIB

TOPIC = "orders"
PUBLISHERS = (PublisherPart("till-1", 12_000), PublisherPart("till-2", 4_000))
SUBSCRIBERS = (
    SubscriberPart("billing", 0),
    SubscriberPart("audit", 12_000),
    SubscriberPart("reports", 6_000),
)

# How long its processes may take to begin.
_START_S = 20.0
# How much longer than it runs the demo may take to let the slow ones catch up.
_DRAIN_S = 60.0


def run(seconds: float, show: Show, *, color: bool = True) -> int:
    """Show the system at work for ``seconds``, then let all catch up; the exit code.

    The code is 1 if a message was lost, doubled or out of order.
    """
    if show != "json":
        print("A broker, two publishers and three subscribers, each a process of its own.")
    with ServerProcess() as server, Admin(server.address) as admin:
        admin.create_topic(TOPIC)
        for part in SUBSCRIBERS:
            with Subscriber(server.address, name=part.name) as subscriber:
                subscriber.subscribe(TOPIC, start="earliest")
        memory_before = memory_bytes(server.pid)
        cast = _Cast(server.address)
        with cast.playing():
            cast.wait_until_begun()
            memory_peak = _watch(admin, cast, seconds, server.pid, Picture(show, color=color))
        summary = _sum_up(admin, cast, (memory_before, memory_peak, memory_bytes(server.pid)))
    if show == "json":
        print(msgspec.json.encode(summary).decode())
    else:
        _say(summary)
    return 0 if summary.is_right else 1


class _Cast:
    """The publishers and subscribers, and what they count in memory they share."""

    def __init__(self, address: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.stop, self.done = context.Event(), context.Event()
        self.sent = {part.name: context.Value("q", 0) for part in PUBLISHERS}
        self.received = {part.name: context.Value("q", 0) for part in SUBSCRIBERS}
        self.faults = {part.name: context.Value("q", 0) for part in SUBSCRIBERS}
        self.publishers: list[SpawnProcess] = [
            context.Process(
                target=publish, args=(address, TOPIC, part, self.sent[part.name], self.stop)
            )
            for part in PUBLISHERS
        ]
        self.subscribers: list[SpawnProcess] = [
            context.Process(
                target=subscribe,
                args=(
                    address,
                    TOPIC,
                    part,
                    (self.received[part.name], self.faults[part.name]),
                    self.done,
                ),
            )
            for part in SUBSCRIBERS
        ]

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Have all processes at work; none is left when the block ends, however it ends."""
        # They are told to stop by events; a Ctrl-C is for the demo alone.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for process in (*self.subscribers, *self.publishers):
                process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            for process in (*self.publishers, *self.subscribers):
                process.terminate()
                process.join()

    def end_publishing(self) -> None:
        """Have the publishers finish, then tell the subscribers that there is no more."""
        self.stop.set()
        for process in self.publishers:
            process.join()
        self.done.set()

    def wait_until_begun(self) -> None:
        """Wait until the first message is sent: to start so many processes takes a while."""
        end = time.monotonic() + _START_S
        while not self.total_sent and time.monotonic() < end:
            time.sleep(FRAME_S / 10)

    @property
    def total_sent(self) -> int:
        """Messages that the publishers have acknowledgements for."""
        return sum(value.value for value in self.sent.values())


def _watch(admin: Admin, cast: _Cast, seconds: float, pid: int, picture: Picture) -> int:
    """Show what happens until all is read; the most memory that the broker had."""
    begin = time.monotonic()
    memory_peak = 0

    def moment(elapsed: float) -> Moment:
        return Moment(
            elapsed=elapsed,
            seconds=seconds,
            is_sending=not cast.stop.is_set(),
            sent={name: value.value for name, value in cast.sent.items()},
            received={name: value.value for name, value in cast.received.items()},
            topic=admin.topic(TOPIC),
            subscriptions=admin.subscriptions(TOPIC),
            memory=memory_bytes(pid),
        )

    with picture:
        while any(process.is_alive() for process in cast.subscribers):
            elapsed = time.monotonic() - begin
            if elapsed > seconds and not cast.stop.is_set():
                cast.end_publishing()
            if elapsed > seconds + _DRAIN_S:
                break
            now = moment(elapsed)
            memory_peak = max(memory_peak, now.memory)
            picture.show(now)
            time.sleep(FRAME_S)
        picture.show(moment(time.monotonic() - begin))
    return memory_peak


class Summary(msgspec.Struct, frozen=True):
    """What came of it. ``faults`` are messages lost, doubled or out of order, by subscriber."""

    sent: dict[str, int]
    received: dict[str, int]
    faults: dict[str, int]
    messages: int
    reclaimed: int
    kept: int
    memory_before: int
    memory_peak: int
    memory_now: int

    @property
    def is_right(self) -> bool:
        """Whether everything arrived, once and in order, and was given up then."""
        return not any(self.faults.values()) and self.kept == 0


def _sum_up(admin: Admin, cast: _Cast, memory: tuple[int, int, int]) -> Summary:
    topic = admin.topic(TOPIC)
    kept = topic.messages or 0
    received = {name: value.value for name, value in cast.received.items()}
    total = cast.total_sent
    return Summary(
        sent={name: value.value for name, value in cast.sent.items()},
        received=received,
        faults={
            name: cast.faults[name].value + abs(total - count) for name, count in received.items()
        },
        messages=topic.next_offset,
        reclaimed=topic.next_offset - kept,
        kept=kept,
        memory_before=memory[0],
        memory_peak=memory[1],
        memory_now=memory[2],
    )


def _say(summary: Summary) -> None:
    """Say what was sent, received and reclaimed."""
    print()
    for name, count in summary.sent.items():
        print(f"{name:8} sent     {count:9,} messages, each acknowledged")
    for name, count in summary.received.items():
        wrong = summary.faults[name]
        verdict = (
            "all, once, in order" if wrong == 0 else f"{wrong:,} lost, doubled or out of order"
        )
        print(f"{name:8} received {count:9,} messages: {verdict}")
    print(
        f"reclaimed {summary.reclaimed:,} of {summary.messages:,} messages;"
        f" {summary.kept:,} are kept"
    )
    sizes = (summary.memory_before, summary.memory_peak, summary.memory_now)
    before, peak, now = (size / MIB for size in sizes)
    print(f"the broker's memory: {before:.0f} MiB before, {peak:.0f} at the peak, {now:.0f} now")
    if summary.is_right:
        print("\nTry it yourself:  mbctl server   mbctl publisher   mbctl subscriber --name me")
    else:
        print("something went wrong: see the lines above", file=sys.stderr)

"""How long one message takes: to its acknowledgement, and to a subscriber that waits for it.

Closed loop: the next message is sent when the one before is done. Open loop: messages are
sent by the clock and timed from when each was due, so a slow answer counts against all
those that it held up.
"""

import os
import time
from functools import partial
from itertools import chain

from mbctl.bench import jobs
from mbctl.bench.cases import Case, Measure, Trial
from mbctl.bench.crew import SLOTS, Link
from mbctl.bench.figures import Measured, timed
from mbctl.bench.jobs import IDLE_S, Place
from mbctl.bench.payloads import Check, batches_of
from mbctl.bench.systems.interface import Durability, Settings
from mbctl.bench.systems.registry import system

OPEN_RATE = 2_000
"""Messages a second of the open loop: far below what any of the systems can do."""

_RECEIVED = SLOTS - 1
"""The number in which a reader tells how many messages it has."""
_WARM_UP = 200
# Twice what a reader that has a message takes to ask for the next one.
_PAUSE_NS = 100_000
# Who waits longer than this lets others run.
_SPIN_NS = 1_000_000
_END_S = 30.0


def latency() -> list[Case]:
    """All of them."""
    return [
        _case("latency.ack", "publish to acknowledgement", _measure_ack),
        _case("latency.ack.durable", "publish to acknowledgement, durable", _measure_ack, "synced"),
        _case("latency.delivery", "publish to a waiting subscriber", _measure_delivery),
        _case(
            "latency.open",
            f"publish to subscriber, open loop, {OPEN_RATE:,}/s",
            partial(_measure_delivery, rate=OPEN_RATE),
        ),
    ]


def durable_one() -> Case:
    """Messages a second when each is acknowledged before the next is sent."""
    return Case(
        name="durable.one",
        title="publish, durable, one at a time",
        unit="msg/s",
        measure=_measure_one_at_a_time,
        on="stores",
        settings=Settings(durability="synced", batch=1, in_flight=1),
    )


def _case(name: str, title: str, measure: Measure, durability: Durability = "memory") -> Case:
    return Case(
        name=name,
        title=title,
        unit="µs",
        better="less",
        measure=measure,
        settings=Settings(durability=durability, batch=1, in_flight=1),
        on="stores" if measure is _measure_ack else "all",
    )


def _measure_ack(trial: Trial) -> Measured:
    return timed(_acknowledged(trial))


def _measure_one_at_a_time(trial: Trial) -> Measured:
    samples = _acknowledged(trial)
    return Measured(value=len(samples) / (sum(samples) / 1e9), messages=len(samples))


def _acknowledged(trial: Trial) -> list[int]:
    """The time of each message of a closed loop to its acknowledgement."""
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content) as place:
        work = [(publish_alone, (place, trial.seconds, None))]
        ((sent, answered),) = trial.stage.play(trial.system, work, trial.seconds + _END_S)
    return [end - begin for begin, end in zip(sent, answered, strict=True)][_WARM_UP:]


def _measure_delivery(trial: Trial, rate: int = 0) -> Measured:
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content, ["reader"]) as place:
        publisher = (
            (publish_on_time, (place, trial.seconds, rate))
            if rate
            else (publish_alone, (place, trial.seconds, "reader"))
        )
        work = [publisher, (note_arrivals, (place, "reader"))]
        (sent, _), (arrived, faults) = trial.stage.play(trial.system, work, trial.seconds + _END_S)
    samples = [end - begin for begin, end in zip(sent, arrived, strict=False)]
    measured = timed(samples[_WARM_UP:])
    measured.faults = faults
    measured.compared = len(arrived)
    return measured


# --- jobs ---------------------------------------------------------------------------------------


def publish_alone(
    link: Link, place: Place, seconds: float, reader: str | None
) -> tuple[list[int], list[int]]:
    """Publish one after the other; when each was sent, and when it was acknowledged.

    With a ``reader``, each is sent when it has the one before and waits again.
    """
    end = system(place.system).publishing(place.address, place.topic, place.settings)
    payloads = chain.from_iterable(batches_of(place.content, 0, 1))
    sent: list[int] = []
    answered: list[int] = []
    clock = time.perf_counter_ns
    link.ready()
    end_ns = clock() + int(seconds * 1e9)
    is_last = False
    for payload in payloads:
        begin = clock()
        is_last = begin >= end_ns and len(sent) >= 2 * _WARM_UP
        if is_last:
            link.shared[0] = len(sent) + 1
        end.publish_one(payload)
        answered.append(clock())
        sent.append(begin)
        if is_last:
            break
        if reader is not None:
            _wait_for_reader(link, len(sent))
    end.close()
    return sent, answered


def publish_on_time(
    link: Link, place: Place, seconds: float, rate: int
) -> tuple[list[int], list[int]]:
    """Publish by the clock; when each was due, and when it was acknowledged."""
    end = system(place.system).publishing(place.address, place.topic, place.settings)
    payloads = chain.from_iterable(batches_of(place.content, 0, 1))
    count = max(int(seconds * rate), 2 * _WARM_UP)
    step = 1_000_000_000 // rate
    clock = time.perf_counter_ns
    answered = []
    link.ready()
    begin = clock() + step
    due = [begin + number * step for number in range(count)]
    for number, payload in zip(range(count), payloads):  # noqa: B905
        if number == count - 1:
            link.shared[0] = count
        _wait_until(due[number])
        end.publish_one(payload)
        answered.append(clock())
    end.close()
    return due, answered


def note_arrivals(link: Link, place: Place, subscriber: str) -> tuple[list[int], list[str]]:
    """Read all messages, each as soon as it comes; when each was here, and what went wrong."""
    check = Check(place.content, 1, 1)
    end = system(place.system).reading(place.address, place.topic, subscriber, place.settings)
    arrived: list[int] = []
    link.ready()
    for group in end.read(IDLE_S):
        now = time.perf_counter_ns()
        arrived.extend([now] * len(group))
        check.take(group)
        link.shared[_RECEIVED] = check.count
        if jobs.is_all(link, 1, check.count):
            break
    check.finish(link.shared[:1])
    end.close()
    return arrived, check.faults


def _wait_for_reader(link: Link, count: int) -> None:
    """Return when the reader has ``count`` messages and has had the time to wait for more."""
    clock = time.perf_counter_ns
    begin = clock()
    while link.shared[_RECEIVED] < count:
        os.sched_yield()
        if clock() - begin > _SPIN_NS:
            time.sleep(0.0001)
        if clock() - begin > IDLE_S * 1e9:
            # It is lost, which the reader will say.
            return
    # Awake, as in a ping-pong: a processor that falls asleep takes long to wake.
    _look_at_clock_until(clock() + _PAUSE_NS)


def _wait_until(due_ns: int) -> None:
    """Return at a time, asleep for most of it."""
    clock = time.perf_counter_ns
    left = due_ns - clock()
    if left > 200_000:
        time.sleep((left - 150_000) / 1e9)
    _look_at_clock_until(due_ns)


def _look_at_clock_until(due_ns: int) -> None:
    clock = time.perf_counter_ns
    while clock() < due_ns:
        # The reader may be waiting for this core.
        os.sched_yield()

"""What our library has beside batches: follow, keys and headers, many publishers in a process."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from typing import Literal

from mbctl.bench import jobs
from mbctl.bench.cases import Case, Trial
from mbctl.bench.crew import Job, Link
from mbctl.bench.figures import Measured
from mbctl.bench.jobs import Bound, Place, Span
from mbctl.bench.payloads import Check, batches_of, pool_of
from mbctl.bench.scenarios.flows import BYTES_MAX, END_S, SYNCED, rate, rate_of
from mbctl.bench.systems.interface import Settings
from mbctl.client.publisher import Publisher
from mbctl.client.subscriber import Subscriber

Kind = Literal["plain", "keys", "headers"]

_BACKLOG = 2_000_000
_PUBLISHERS = 64
_PROCESSES = 2
_HEADERS = {"type": "order", "source": "bench"}


def follow() -> list[Case]:
    """``for message in subscriber.follow(topic)``: message by message."""
    return [
        rate("follow", "follow, message by message, live", _measure_follow, on="ours"),
        rate("follow.backlog", "follow, a backlog of 2 M", _measure_follow_backlog, on="ours"),
    ]


def keys() -> list[Case]:
    """End to end with keys or headers on every message, beside the same without."""
    kinds: tuple[Kind, ...] = ("plain", "keys", "headers")
    return [
        rate(
            f"keys.{kind}{'.each' if each else ''}",
            f"end to end, {kind}, {'pipeline.send' if each else 'send_many'}",
            partial(_measure_kind, kind, each),
            on="ours",
        )
        for each in (False, True)
        for kind in kinds
    ]


def durable_64() -> Case:
    """Many publishers, each of which waits for its acknowledgement before it sends again."""
    return rate(
        "durable.64",
        f"publish, durable, one at a time, {_PUBLISHERS} publishers",
        _measure_many,
        Settings(durability=SYNCED.durability, batch=1, in_flight=1),
        on="ours",
    )


def _measure_follow(trial: Trial) -> Measured:
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content, ["reader"]) as place:
        bound = Bound(trial.seconds, BYTES_MAX // case.content.size)
        work: list[Job] = [
            (jobs.publish, (place, 0, bound, False)),
            (follow_all, (place, "reader", 0)),
        ]
        spans: list[Span] = trial.stage.play(trial.system, work, trial.seconds + END_S)
    return rate_of(case, spans, spans[1:])


def _measure_follow_backlog(trial: Trial) -> Measured:
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content, ["reader"]) as place:
        bound = Bound(END_S, _BACKLOG)
        work: list[Job] = [(jobs.publish, (place, 0, bound, False))]
        (sent,) = trial.stage.play(trial.system, work, 2 * END_S)
        reading: list[Job] = [(follow_all, (place, "reader", sent.count))]
        spans: list[Span] = trial.stage.play(trial.system, reading, END_S)
    return rate_of(case, spans, spans)


def _measure_kind(kind: Kind, each: bool, trial: Trial) -> Measured:
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content, ["reader"]) as place:
        bound = Bound(trial.seconds, BYTES_MAX // case.content.size)
        work: list[Job] = [
            (publish_kind, (place, kind, each, bound)),
            (jobs.read, (place, "reader", 1)),
        ]
        spans: list[Span] = trial.stage.play(trial.system, work, trial.seconds + END_S)
    return rate_of(case, spans, spans[1:])


def _measure_many(trial: Trial) -> Measured:
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content) as place:
        count = _PUBLISHERS // _PROCESSES
        work: list[Job] = [
            (publish_in_turns, (place, number, count, trial.seconds))
            for number in range(_PROCESSES)
        ]
        spans: list[Span] = trial.stage.play(trial.system, work, trial.seconds + END_S)
    return rate_of(case, spans, spans)


# --- jobs ---------------------------------------------------------------------------------------


def follow_all(link: Link, place: Place, name: str, sent: int) -> Span:
    """Follow until all messages are here; ``sent`` of them if their publisher is done."""
    check = Check(place.content, 1, place.settings.batch)
    with Subscriber(place.address, name=name, timeout=END_S) as subscriber:
        link.ready()
        if sent:
            link.shared[0] = sent
        begin = time.perf_counter_ns()
        messages = subscriber.follow(place.topic)
        while not jobs.is_all(link, 1, check.count):
            # Publishers send whole batches, so this many will come.
            check.take([message.payload for message in islice(messages, place.settings.batch)])
        end = time.perf_counter_ns()
        messages.close()
    check.finish(link.shared[:1])
    return Span(begin, end, check.count, check.faults, check.count)


def publish_kind(link: Link, place: Place, kind: Kind, each: bool, bound: Bound) -> Span:
    """Publish messages that all have keys or headers."""
    content, batch = place.content, place.settings.batch
    pool = pool_of(content, 0)
    keys = [payload[:8] for payload in pool[:batch]] if kind == "keys" else None
    headers = [_HEADERS] * batch if kind == "headers" else None
    with Publisher(place.address, timeout=END_S) as publisher:
        batches = jobs.bounded_batches(batches_of(content, 0, batch), bound, link, 0)
        link.ready()
        begin = time.perf_counter_ns()
        if each:
            _send_each(publisher, place.topic, batches, keys, headers)
        else:
            for payloads in batches:
                publisher.send_many(place.topic, payloads, keys=keys, headers=headers)
        return Span(begin, time.perf_counter_ns(), link.shared[0])


def _send_each(
    publisher: Publisher,
    topic: str,
    batches: Iterator[list[bytes]],
    keys: list[bytes] | None,
    headers: list[dict[str, str]] | None,
) -> None:
    with publisher.pipeline() as pipe:
        for payloads in batches:
            if keys is not None:
                for payload, key in zip(payloads, keys, strict=True):
                    pipe.send(topic, payload, key)
            elif headers is not None:
                for payload, pairs in zip(payloads, headers, strict=True):
                    pipe.send(topic, payload, None, pairs)
            else:
                for payload in payloads:
                    pipe.send(topic, payload)


def publish_in_turns(link: Link, place: Place, process: int, count: int, seconds: float) -> Span:
    """Have ``count`` publishers in this process, each with one message without an answer."""
    publishers = [Publisher(place.address, timeout=END_S) for _ in range(count)]
    pipes = [publisher.pipeline() for publisher in publishers]
    payloads = cycle(pool_of(place.content, process))
    link.ready()
    begin = time.perf_counter_ns()
    end = begin + int(seconds * 1e9)
    sent = 0
    while time.perf_counter_ns() < end:
        for pipe in pipes:
            pipe.flush()
            pipe.send_many(place.topic, [next(payloads)])
        sent += count
    for pipe in pipes:
        pipe.flush()
    span = Span(begin, time.perf_counter_ns(), sum(pipe.sent for pipe in pipes))
    for publisher in publishers:
        publisher.close()
    if span.count != sent:
        span.faults.append(f"{sent:,} sent, {span.count:,} acknowledged")
    return span

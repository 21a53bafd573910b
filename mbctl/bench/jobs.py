"""What workers do: publish and read, each at its end of a topic of some system.

A publisher tells the readers through the numbers that they share how many messages it sends
in all, just before it sends the last of them.
"""

import time
from collections.abc import Iterator, Sequence

import msgspec

from mbctl.bench.crew import Link
from mbctl.bench.payloads import Check, Content, batches_of
from mbctl.bench.systems.interface import Settings
from mbctl.bench.systems.registry import system

IDLE_S = 10.0
"""Who reads nothing for so long has all that there is."""


class Place(msgspec.Struct, frozen=True):
    """A topic of a system that runs."""

    system: str
    address: str
    topic: str
    settings: Settings
    content: Content


class Bound(msgspec.Struct, frozen=True):
    """When a publisher ends: after so many seconds, or with so many messages."""

    seconds: float
    messages: int


class Span(msgspec.Struct):
    """What a job did, from when to when by the clock that all processes share."""

    begin_ns: int
    end_ns: int
    count: int
    faults: list[str] = []
    compared: int = 0
    """How many of them were read and compared with what was sent."""


def create(link: Link, place: Place, subscribers: Sequence[str]) -> None:
    """Make the topic."""
    link.ready()
    system(place.system).create(place.address, place.topic, subscribers)


def drop(link: Link, place: Place) -> None:
    """Delete the topic."""
    link.ready()
    system(place.system).drop(place.address, place.topic)


def publish(link: Link, place: Place, publisher: int, bound: Bound, each: bool) -> Span:
    """Publish until the bound is reached, and wait for the acknowledgements."""
    end = system(place.system).publishing(place.address, place.topic, place.settings)
    source = batches_of(place.content, publisher, place.settings.batch)
    # What is made on the first use is made now.
    first = next(source)
    bounded = bounded_batches(_chain(first, source), bound, link, publisher)
    link.ready()
    begin = time.perf_counter_ns()
    count = end.publish_each(bounded) if each else end.publish(bounded)
    span = Span(begin, time.perf_counter_ns(), count)
    end.close()
    sent = link.shared[publisher]
    if count != sent:
        span.faults.append(f"publisher {publisher}: {sent:,} sent, {count:,} acknowledged")
    return span


def _chain(first: list[bytes], rest: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    yield first
    yield from rest


def bounded_batches(
    source: Iterator[list[bytes]], bound: Bound, link: Link, publisher: int
) -> Iterator[list[bytes]]:
    """Batches up to the bound; the readers are told before the last is given out."""
    clock = time.perf_counter_ns
    end_ns = clock() + int(bound.seconds * 1e9)
    # The time runs from when the first one is asked for.
    count = 0
    for batch in source:
        if not count:
            end_ns = clock() + int(bound.seconds * 1e9)
        count += len(batch)
        if count >= bound.messages or clock() >= end_ns:
            link.shared[publisher] = count
            yield batch
            return
        yield batch


def read(link: Link, place: Place, subscriber: str, publishers: int) -> Span:
    """Read until all that the publishers sent is here, and look at all of it."""
    check = Check(place.content, publishers, place.settings.batch)
    end = system(place.system).reading(place.address, place.topic, subscriber, place.settings)
    link.ready()
    begin = last = time.perf_counter_ns()
    for group in end.read(IDLE_S):
        check.take(group)
        last = time.perf_counter_ns()
        if is_all(link, publishers, check.count):
            break
    check.finish(link.shared[:publishers])
    end.close()
    return Span(begin, last, check.count, check.faults, check.count)


def is_all(link: Link, publishers: int, count: int) -> bool:
    """Whether ``count`` messages are all that there will be."""
    totals = link.shared[:publishers]
    return 0 not in totals and count >= sum(totals)

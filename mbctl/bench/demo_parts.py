"""The processes of the demo: publishers that number their messages, subscribers that count.

A payload is ``PUBLISHER SEQUENCE padding``, so each subscriber can tell by itself whether
something was lost, doubled or out of order.
"""

import time
from multiprocessing.synchronize import Event
from typing import Any

import msgspec

from mbctl.client.messages import Batch
from mbctl.client.publisher import Publisher
from mbctl.client.subscriber import Subscriber

_TICK_S = 0.05
_PADDING = b"." * 80


class PublisherPart(msgspec.Struct, frozen=True):
    """A publisher that sends ``rate`` messages a second."""

    name: str
    rate: int


class SubscriberPart(msgspec.Struct, frozen=True):
    """A subscriber that takes ``rate`` messages a second, 0 for as many as it can.

    Once the publishers are done it takes what is left as fast as it can.
    """

    name: str
    rate: int


def publish(address: str, topic: str, part: PublisherPart, counts: Any, stop: Event) -> None:
    """Send numbered messages evenly until told to stop."""
    sent = counts
    with Publisher(address, name=part.name) as publisher:
        begin, number = time.monotonic(), 0
        name = part.name.encode()
        while not stop.is_set():
            due = int((time.monotonic() - begin) * part.rate)
            with publisher.pipeline() as pipe:
                while number < due:
                    pipe.send(topic, b"%b %d %b" % (name, number, _PADDING))
                    number += 1
            sent.value = number
            stop.wait(_TICK_S)


def subscribe(address: str, topic: str, part: SubscriberPart, counts: Any, done: Event) -> None:
    """Take messages and check their numbers, until all have been sent and taken."""
    received, faults = counts
    expected: dict[bytes, int] = {}
    with Subscriber(address, name=part.name) as subscriber:
        begin, count = time.monotonic(), 0
        while True:
            is_draining = done.is_set()
            batch = subscriber.pull(topic, max_messages=_portion(part, is_draining), wait=_TICK_S)
            faults.value += _check(batch, expected)
            count += len(batch)
            received.value = count
            if is_draining and not batch:
                return
            if part.rate and not is_draining:
                done.wait(max(0.0, begin + count / part.rate - time.monotonic()))


def _portion(part: SubscriberPart, is_draining: bool) -> int:
    if is_draining or part.rate == 0:
        return 5_000
    return max(1, round(part.rate * _TICK_S))


def _check(batch: Batch, expected: dict[bytes, int]) -> int:
    faults = 0
    for payload in batch.payloads:
        name, number, _ = payload.split(b" ", 2)
        faults += int(number) != expected.get(name, 0)
        expected[name] = int(number) + 1
    return faults

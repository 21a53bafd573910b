"""What a message costs on its way, counted: so that what was taken out of it does not come back.

Counted are the calls of the package's functions and of a socket's methods, on each side by
itself. The bounds are a tenth above what there was when they were set; who needs more should
measure what it costs (``mbctl bench``) and say so here.
"""

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from server_harness import ServerInside

import mbctl
from mbctl import Publisher, Subscriber
from mbctl.patience import Patience

PACKAGE = str(Path(mbctl.__file__).parent)
TOPIC = "orders"
MANY = [b"x" * 100] * 2000
ROUNDS = 9

# What there was: 104, 126, 216, 72 and 57; a pull is counted with all that its acknowledgement
# brings about.
SERVER_SEND = 89
SERVER_DURABLE_SEND = 138
SERVER_PULL = 179
CLIENT_SEND = 79
CLIENT_PULL = 63

Calls = dict[str, int]


class Meter:
    """Counts calls in the thread that it is started in."""

    def __init__(self) -> None:
        self.calls: Calls = {"ours": 0, "sendall": 0, "sendmsg": 0, "recv_into": 0}

    def start(self) -> None:
        sys.setprofile(self._enter)

    def stop(self) -> None:
        sys.setprofile(None)

    def _enter(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.calls["ours"] += 1
        elif event == "c_call" and called.__name__ in self.calls:
            self.calls[called.__name__] += 1


class Way:
    """A server in this process, and the two ends of a topic."""

    def __init__(self, inside: ServerInside) -> None:
        self.inside = inside
        self.publisher = Publisher(inside.address)
        self.publisher.create_topic(TOPIC)
        self.subscriber = Subscriber(inside.address, name="reader")
        self.subscriber.subscribe(TOPIC)

    def close(self) -> None:
        self.subscriber.close()
        self.publisher.close()

    def in_server(self, work: Callable[[], object]) -> int:
        """The calls that ``work``, done here, needs in the server's thread; the fewest of many.

        What is sent in one piece may come in several, and each takes some.
        """
        return min(self._in_server(work) for _ in range(ROUNDS))

    def _in_server(self, work: Callable[[], object]) -> int:
        meter = Meter()
        self.inside.on_loop(meter.start)
        work()
        # What the work leaves to be done there is done when this is.
        self.inside.on_loop(meter.stop)
        return meter.calls["ours"]

    # --- work ---------------------------------------------------------------------------------

    def send(self) -> None:
        self.publisher.send(TOPIC, b"x" * 100)

    def send_many(self) -> None:
        self.publisher.send_many(TOPIC, MANY)

    def pull(self) -> None:
        assert self.subscriber.pull(TOPIC, 2000, wait=10).payloads


def here(work: Callable[[], object]) -> Calls:
    """The calls that ``work`` needs in this thread; the fewest of several times."""
    counted = []
    for _ in range(ROUNDS):
        meter = Meter()
        meter.start()
        try:
            work()
        finally:
            meter.stop()
        counted.append(meter.calls)
    return min(counted, key=lambda calls: calls["ours"])


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """In memory."""
    yield from _ways(monkeypatch, ServerInside())


@pytest.fixture
def durable_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Way]:
    """On a disk."""
    yield from _ways(monkeypatch, ServerInside(data=tmp_path / "data"))


def _ways(monkeypatch: pytest.MonkeyPatch, inside: ServerInside) -> Iterator[Way]:
    # How often one looks before one sleeps depends on the time.
    monkeypatch.setattr(Patience, "ns", lambda self: 0)
    with inside:
        way = Way(inside)
        way.send()
        way.pull()
        yield way
        way.close()


# --- the server -----------------------------------------------------------------------------------


def test_a_lone_send_needs_few_calls_in_the_server(way: Way) -> None:
    assert way.in_server(way.send) <= SERVER_SEND


def test_a_lone_durable_send_needs_few_calls_in_the_server(durable_way: Way) -> None:
    assert durable_way.in_server(durable_way.send) <= SERVER_DURABLE_SEND


def test_a_batch_needs_no_more_calls_in_the_server_than_a_message(way: Way) -> None:
    assert way.in_server(way.send_many) <= way.in_server(way.send) + 60


def test_a_pull_of_a_batch_needs_few_calls_in_the_server(way: Way) -> None:
    for _ in range(2 * ROUNDS):
        way.send_many()
    assert way.in_server(way.pull) <= SERVER_PULL


def test_a_batch_takes_little_more_memory_in_the_server_than_its_bytes(way: Way) -> None:
    way.send_many()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            way.publisher.send_many(TOPIC, MANY)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10 * 1.2 * 102 * len(MANY)


# --- the library ----------------------------------------------------------------------------------


def test_a_lone_send_needs_few_calls_and_one_write_and_one_read(way: Way) -> None:
    calls = here(way.send)
    assert calls["ours"] <= CLIENT_SEND
    assert (calls["sendall"], calls["sendmsg"], calls["recv_into"]) == (1, 0, 1)


def test_a_batch_needs_no_more_calls_than_a_message(way: Way) -> None:
    calls = here(way.send_many)
    assert calls["ours"] <= CLIENT_SEND + 15
    assert calls["sendall"] + calls["sendmsg"] <= 2
    assert calls["recv_into"] == 1


def test_a_message_of_a_pipeline_needs_two_calls(way: Way) -> None:
    with way.publisher.pipeline() as pipe:
        # A batch goes out on the way, too.
        calls = here(lambda: [pipe.send(TOPIC, b"x" * 100) for _ in range(2000)])
    assert calls["ours"] <= 2 * 2000 + 100
    assert calls["sendall"] + calls["sendmsg"] <= 2


def test_a_pull_needs_no_call_for_a_message(way: Way) -> None:
    for _ in range(2 * ROUNDS):
        way.send_many()
    calls = here(way.pull)
    # A long reply comes in as many pieces as the system likes, and each takes some calls.
    assert calls["ours"] <= CLIENT_PULL + 14 * (calls["recv_into"] - 1)
    assert calls["sendall"] + calls["sendmsg"] == 1


def test_a_followed_message_needs_one_call(way: Way) -> None:
    for _ in range(2 * ROUNDS):
        way.send_many()
    messages = way.subscriber.follow(TOPIC)
    next(messages)
    calls = here(lambda: [next(messages) for _ in range(2000)])
    messages.close()
    # To go on in a generator counts as a call, and each batch needs a pull.
    assert calls["ours"] <= 2000 + 200 + 14 * calls["recv_into"]

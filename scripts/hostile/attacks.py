"""What hostile and unlucky clients do. Each attack goes on until it is told to end.

An attack is a function of the server's address and ``Told``: it says when it has begun in
earnest, does what it does until it is over, and notes the errors that the server gave.
"""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from measuring.raw import Raw

from mbctl import Admin, MbctlError, Publisher
from mbctl.wire import messages as wire

KIB, MIB = 1024, 1024 * 1024


class Told:
    """What an attack hears and says."""

    def __init__(self, is_over: Callable[[], bool], begun: Callable[[], None]) -> None:
        self.is_over = is_over
        self.begun = begun
        self.seen: dict[str, int] = {}

    def note(self, what: str | None, count: int = 1) -> None:
        """Count an error that the server gave, or whatever else is worth counting."""
        self.seen[what or "closed"] = self.seen.get(what or "closed", 0) + count

    def sleep(self, seconds: float) -> None:
        """Wait, at most until it is over."""
        end = time.monotonic() + seconds
        while not self.is_over() and time.monotonic() < end:
            time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    def paced(self, per_s: float) -> Iterator[int]:
        """Count up, so often a second, until it is over."""
        begin, number = time.monotonic(), 0
        while not self.is_over():
            yield number
            number += 1
            # Late is made up for, but not more than a tenth of a second of it.
            begin = max(begin, time.monotonic() - 0.1 - number / per_s)
            delay = begin + number / per_s - time.monotonic()
            if delay > 0.002:
                time.sleep(delay)


def _is_closed(client: Raw) -> bool:
    """Whether the server has closed the connection; reads what is there."""
    client.socket.setblocking(False)
    try:
        while (content := client.socket.recv(1 << 16)) != b"":
            del content
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            client.socket.settimeout(30)
    return True


def _end_of(client: Raw) -> str | None:
    """Read to the end; the error that ended the connection."""
    client.socket.settimeout(5)
    with suppress(OSError):
        client.reply()
    client.close()
    return client.end


# --- who does not read --------------------------------------------------------------------------


def never_read(address: str, told: Told) -> None:
    """100 subscribers ask for 4 MiB at a time, sixty times, and never read an answer."""
    _large_topic(address)
    held = []
    for number in range(100):
        client = Raw(address, receive_bytes=128 * KIB).subscriber(f"deaf-{number}")
        client.ask(wire.Subscribe(0, "large", "earliest"))
        client.write(b"".join(client.frame(wire.Pull(0, "large", 1000)) for _ in range(60)))
        held.append(client)
    told.begun()
    while not told.is_over():
        told.sleep(0.5)


def slow_read(address: str, told: Told) -> None:
    """20 subscribers read answers of 4 MiB at 100 KiB/s each."""
    _large_topic(address)
    held = []
    for number in range(20):
        client = Raw(address, receive_bytes=128 * KIB).subscriber(f"slow-{number}")
        client.ask(wire.Subscribe(0, "large", "earliest"))
        client.write(b"".join(client.frame(wire.Pull(0, "large", 1000)) for _ in range(10)))
        held.append(client)
    told.begun()
    for _ in told.paced(10):
        for client in held:
            client.socket.setblocking(False)
            with suppress(BlockingIOError, OSError):
                client.socket.recv(10 * KIB)


def ask_and_never_read(address: str, told: Told) -> None:
    """20 connections ask for listings and status as fast as they can, and never read."""
    _many_topics(address, 300)
    questions = wire.encode(wire.GetTopics(7)) + wire.encode(wire.GetStatus(8))
    clients = [Raw(address, receive_bytes=128 * KIB).hello() for _ in range(20)]
    told.begun()
    _write_all(clients, questions * 2000, told)


def _large_topic(address: str) -> None:
    with Publisher(address) as publisher:
        publisher.create_topic("large")
        for _ in range(40):
            publisher.send_many("large", [os.urandom(MIB)] * 3)


def _many_topics(address: str, count: int) -> None:
    with Publisher(address) as publisher:
        for number in range(count):
            publisher.create_topic(f"t-{number}")


def _write_all(clients: list[Raw], content: bytes, told: Told) -> None:
    """Write ``content`` to all again and again, as far as they take it; read nothing."""
    left = {client: memoryview(content) for client in clients}
    for client in clients:
        client.socket.setblocking(False)
    while not told.is_over():
        written = 0
        for client in list(left):
            try:
                count = client.socket.send(left[client][: 256 * KIB])
            except BlockingIOError:
                continue
            except OSError:
                told.note("closed")
                del left[client]
                continue
            written += count
            left[client] = left[client][count:] or memoryview(content)
        if not written:
            told.sleep(0.05)


# --- who floods ---------------------------------------------------------------------------------


def ping_flood(address: str, told: Told) -> None:
    """4 connections ask small questions by the thousand and take the answers."""
    questions = b"".join(wire.encode(wire.Ping(number)) for number in range(1, 20_001))
    _flood(address, questions, 4, told)


def status_flood(address: str, told: Told) -> None:
    """4 connections ask for the status by the thousand, with 2,000 topics there."""
    _many_topics(address, 2_000)
    _flood(address, wire.encode(wire.GetStatus(7)) * 10_000, 4, told)


def empty_pull_flood(address: str, told: Told) -> None:
    """4 subscribers pull what is not there by the thousand, without waiting."""
    _many_topics(address, 1)
    clients = [Raw(address).subscriber(f"empty-{number}") for number in range(4)]
    for client in clients:
        client.ask(wire.Subscribe(0, "t-0", "new"))
    _flood(address, wire.encode(wire.Pull(7, "t-0", 1)) * 10_000, 4, told, clients)


def _flood(
    address: str, content: bytes, count: int, told: Told, clients: list[Raw] | None = None
) -> None:
    """Write ``content`` again and again, and read all that comes."""
    clients = clients or [Raw(address).hello() for _ in range(count)]
    left = {client: memoryview(content) for client in clients}
    told.begun()
    for client in clients:
        client.socket.setblocking(False)
    while not told.is_over():
        moved = False
        for client in list(left):
            with suppress(BlockingIOError):
                count = client.socket.send(left[client][: 256 * KIB])
                left[client] = left[client][count:] or memoryview(content)
                moved = moved or count > 0
            with suppress(BlockingIOError):
                moved = bool(client.socket.recv(MIB)) or moved
        if not moved:
            time.sleep(0.001)


# --- who is slow to speak -----------------------------------------------------------------------


def half_frames(address: str, told: Told) -> None:
    """300 connections begin a frame of 8 MiB, send 1 MiB of it, and stop."""
    begin = (8 * MIB).to_bytes(4, "big") + bytes(MIB)
    held = []
    for _ in range(300):
        client = Raw(address).hello()
        with suppress(OSError):
            client.write(begin)
        held.append(client)
    told.begun()
    while not told.is_over():
        told.sleep(0.5)
    for client in held:
        if _is_closed(client):
            told.note("ended")


def slow_before_hello(address: str, told: Told) -> None:
    """1,000 connections send one byte a second of their hello, and come back when ended."""
    _byte_by_byte(address, told, wire.encode(wire.Hello(1, 1, 1, "x" * 200)), opened=False)


def slow_after_hello(address: str, told: Told) -> None:
    """1,000 connections send one byte a second of their requests."""
    _byte_by_byte(address, told, wire.encode(wire.Ping(1)), opened=True)


def _byte_by_byte(address: str, told: Told, content: bytes, *, opened: bool) -> None:
    def new() -> Raw:
        return Raw(address).hello() if opened else Raw(address)

    clients = [new() for _ in range(1000)]
    told.begun()
    sent = [0] * len(clients)
    for turn in told.paced(len(clients)):
        number = turn % len(clients)
        client = clients[number]
        try:
            if _is_closed(client):
                raise ConnectionError
            client.write(content[sent[number] : sent[number] + 1])
            sent[number] = (sent[number] + 1) % len(content)
        except OSError:
            told.note("ended")
            client.close()
            clients[number], sent[number] = new(), 0


def silent(address: str, told: Told) -> None:
    """2,000 connections say nothing at all, and come back when they are ended."""
    clients = [Raw(address) for _ in range(2000)]
    told.begun()
    for turn in told.paced(2000):
        number = turn % len(clients)
        if _is_closed(clients[number]):
            told.note("ended")
            clients[number].close()
            clients[number] = Raw(address)


# --- who comes and goes -------------------------------------------------------------------------


def connect_storm(address: str, told: Told) -> None:
    """2,000 connections a second, each closed at once."""
    told.begun()
    for _ in told.paced(2000):
        with suppress(OSError):
            _connected(address).close()
            told.note("connections")


def register_storm(address: str, told: Told) -> None:
    """300 new publishers a second, one connection and one session each."""
    told.begun()
    for _ in told.paced(300):
        client = Raw(address).hello()
        reply = client.ask(wire.RegisterPublisher(0, os.urandom(16)))
        told.note(reply.code if isinstance(reply, wire.Error) else "sessions")
        client.reset()


def resets(address: str, told: Told) -> None:
    """500 connections a second that are reset in the middle of a frame."""
    told.begun()
    for number in told.paced(500):
        client = Raw(address)
        if number % 2:
            client.write(client.frame(wire.Hello(0, 1, 1, "x"))[:-3])
        else:
            client.hello().write((100 * KIB).to_bytes(4, "big") + bytes(70 * KIB))
        client.reset()


def garbage(address: str, told: Told) -> None:
    """500 connections a second that send what is no frame, or no request."""
    dice = random.Random(7)
    hello = wire.encode(wire.Hello(1, 1, 1, "x"))
    told.begun()
    for number in told.paced(500):
        noise = dice.randbytes(dice.randrange(1, 4000))
        content = (
            noise,
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            hello + noise,
            hello + len(noise).to_bytes(4, "big") + noise,
            hello + wire.encode(wire.Ping(2)).replace(b"ping", b"pong"),
        )[number % 5]
        client = Raw(address)
        with suppress(OSError):
            client.write(content)
        if number % 50 < 5:
            with suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
            told.note(_end_of(client))
        else:
            client.close()


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


# --- who wants everything -----------------------------------------------------------------------


def ten_thousand_topics(address: str, told: Told) -> None:
    """One client creates topics up to the limit and beyond, another lists them again and again."""
    told.begun()
    with Publisher(address) as publisher, Admin(address) as admin:
        number = 0
        while not told.is_over():
            if number < 10_050:
                number += 1
                try:
                    publisher.create_topic(f"one-of-many-{number}")
                    told.note("topics")
                except MbctlError as error:
                    told.note(error.code)
            else:
                told.note("listings")
                admin.topics()


def largest_frames(address: str, told: Told) -> None:
    """64 connections send frames of 8 MiB, all at once, to a topic that keeps one."""
    with Publisher(address) as publisher:
        publisher.create_topic("largest", max_messages=1)
    clients = [Raw(address).publisher() for _ in range(64)]
    payloads = [bytes(MIB - 64)] * 7
    content = b"".join(clients[0].send_frame("largest", n, *payloads) for n in range(1, 4))
    told.begun()
    _write_all(clients, content, told)


def a_send_to_thousands(address: str, told: Told) -> None:
    """2,000 subscribers wait for one topic, that gets a message twice a second."""
    with Publisher(address) as publisher:
        publisher.create_topic("shared")
        clients = []
        for number in range(2000):
            client = Raw(address).subscriber(None if number % 2 else f"w-{number // 4}")
            client.ask(wire.Subscribe(0, "shared", "new"))
            client.pulling = client.frame(wire.Pull(0, "shared", 1, None, 60_000))  # type: ignore[attr-defined]
            client.write(client.pulling)  # type: ignore[attr-defined]
            client.socket.setblocking(False)
            clients.append(client)
        told.begun()
        for _ in told.paced(2):
            publisher.send("shared", b"x")
            for client in clients:
                with suppress(BlockingIOError):
                    if client.socket.recv(MIB):
                        told.note("delivered")
                        client.write(client.pulling)  # type: ignore[attr-defined]


ATTACKS: dict[str, Callable[[str, Told], None]] = {
    attack.__name__: attack
    for attack in (
        never_read,
        slow_read,
        ask_and_never_read,
        ping_flood,
        status_flood,
        empty_pull_flood,
        half_frames,
        slow_before_hello,
        slow_after_hello,
        silent,
        connect_storm,
        register_storm,
        resets,
        garbage,
        ten_thousand_topics,
        largest_frames,
        a_send_to_thousands,
    )
}

"""Both ends of a Redis stream, as someone writes them who wants speed.

A subscriber reads with XREAD and keeps its place in a key, which goes out with the next question.
A consumer group would keep it too, and share the work among readers; but it notes every message
that it gives out and forgets it again, which takes the server twice as long (and puts an entry
for each into the append-only file).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from mbctl.bench.systems.interface import Publishing, Reading, Settings
from mbctl.bench.systems.redis_connection import RedisConnection, packed
from mbctl.bench.systems.sockets import LARGE_BYTES

# One call stores a batch, and one fsync of the append-only file covers it: Redis syncs after
# each 16 KiB of commands that it reads, but never within a command.
_FUNCTION = """#!lua name=bench
redis.register_function('bench_send', function(keys, arguments)
    for index = 1, #arguments do
        redis.call('XADD', keys[1], '*', 'p', arguments[index])
    end
    return #arguments
end)
"""
_GROUP_MESSAGES = 1000
"""Messages asked for at once where they are sent one by one."""


def create(address: str, topic: str, subscribers: Sequence[str]) -> None:
    """Load the function, and note for each subscriber where the stream ends now."""
    connection = RedisConnection(address)
    connection.call("FUNCTION", "LOAD", "REPLACE", _FUNCTION)
    newest = connection.call("XREVRANGE", topic, "+", "-", "COUNT", 1)
    for subscriber in subscribers:
        connection.call("SET", _place(topic, subscriber), newest[0][0] if newest else "0")
    connection.close()


def drop(address: str, topic: str) -> None:
    """Delete a stream and the places of its subscribers."""
    connection = RedisConnection(address)
    connection.call("UNLINK", topic, *connection.call("KEYS", _place(topic, "*")))
    connection.close()


def _place(topic: str, subscriber: str) -> str:
    """The key that holds the id of the last entry that a subscriber has acknowledged."""
    return f"{topic}:{subscriber}"


class PublishingEnd(Publishing):
    """One connection, with many commands without an answer."""

    def __init__(self, address: str, topic: str, settings: Settings) -> None:
        self._connection = RedisConnection(address)
        self._in_flight = settings.in_flight
        self._synced = settings.durability == "synced"
        self._topic = topic
        # The command of every message as far as it is always the same.
        head = packed("XADD", topic, "*", "p", b"").removesuffix(b"$0\r\n\r\n")
        self._head = head.replace(b"%", b"%%") + b"$%d\r\n"
        self._line = self._head + b"%b\r\n"

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Store each batch by one call of the function if it is synced, else by XADDs."""
        return self._publish_calls(batches) if self._synced else self._publish_adds(batches)

    def _publish_calls(self, batches: Iterator[Sequence[bytes]]) -> int:
        sent = waiting = 0
        for batch in batches:
            if waiting == self._in_flight:
                self._connection.reply()
                waiting -= 1
            self._connection.send(packed("FCALL", "bench_send", 1, self._topic, *batch))
            waiting += 1
            sent += len(batch)
        self._connection.replies(waiting)
        return sent

    def _publish_adds(self, batches: Iterator[Sequence[bytes]]) -> int:
        line, sent, waiting = self._line, 0, deque[int]()
        for batch in batches:
            if len(waiting) == self._in_flight:
                self._connection.replies(waiting.popleft())
            if len(batch[0]) < LARGE_BYTES:
                self._connection.send(b"".join([line % (len(each), each) for each in batch]))
            else:
                self._send_large(batch)
            waiting.append(len(batch))
            sent += len(batch)
        self._connection.replies(sum(waiting))
        return sent

    def _send_large(self, batch: Sequence[bytes]) -> None:
        parts = ((self._head % len(each), each, b"\r\n") for each in batch)
        self._connection.send_parts([*chain.from_iterable(parts)])

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Store each message by an XADD of its own, packed by itself and written in groups."""
        topic, sent, waiting = self._topic, 0, deque[int]()
        for batch in batches:
            if len(waiting) == self._in_flight:
                self._connection.replies(waiting.popleft())
            group = [packed("XADD", topic, "*", "p", payload) for payload in batch]
            self._connection.send(b"".join(group))
            waiting.append(len(batch))
            sent += len(batch)
        self._connection.replies(sum(waiting))
        return sent

    def publish_one(self, payload: bytes) -> None:
        """One XADD and its answer."""
        self._connection.send(self._line % (len(payload), payload))
        self._connection.reply()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class ReadingEnd(Reading):
    """One connection; while messages abound the next group is on its way when one is given out."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._connection = RedisConnection(address)
        self._topic = topic
        self._key = _place(topic, subscriber)
        self._count = settings.batch if settings.batch > 1 else _GROUP_MESSAGES
        # Ids of the last entries asked for, given out, and acknowledged.
        self._received = self._given = self._kept = self._connection.call("GET", self._key)
        self._outstanding = 0

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """Payloads in groups; the place before one is kept with the question for the next."""
        ahead = False
        while True:
            if not ahead:
                self._ask("BLOCK", int(idle_s * 1000))
            entries = self._answer()
            if not entries and not ahead:
                return
            ahead = len(entries) == self._count
            if not entries:
                continue
            self._received = entries[-1][0]
            if ahead:
                self._ask()
            self._given = self._received
            yield [entry[1][1] for entry in entries]

    def _ask(self, *how: str | int) -> None:
        """Ask for the next group, and acknowledge what was given out."""
        ask = packed("XREAD", "COUNT", self._count, *how, "STREAMS", self._topic, self._received)
        self._connection.send(self._acknowledgement() + ask)
        self._outstanding += 1

    def _acknowledgement(self) -> bytes:
        """The command that keeps the place of what was given out; nothing if nothing was."""
        if self._given == self._kept:
            return b""
        self._kept = self._given
        self._outstanding += 1
        return packed("SET", self._key, self._kept)

    def _answer(self) -> list[Any]:
        """The group asked for; an empty one when nothing came."""
        self._connection.replies(self._outstanding - 1)
        self._outstanding = 0
        reply = self._connection.reply()
        return reply[0][1] if reply else []

    def close(self) -> None:
        """Keep the place of what was given out, and end the connection."""
        self._connection.send(self._acknowledgement())
        self._connection.replies(self._outstanding)
        self._connection.close()

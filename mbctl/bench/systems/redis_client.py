"""Both ends of a Redis stream, as someone writes them who wants speed.

Commands are packed by hiredis and written to a connection of redis-py, and the answers are read
later: its own pipelines wait for all answers of one before they send the next, which halves the
rate, and build objects around each command, which halves it again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from hiredis import pack_command

from mbctl.bench.systems.interface import Publishing, Reading, Settings
from mbctl.bench.systems.spawn import host_and_port

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


def _client(address: str) -> Any:
    """A client without time limits. Version 2 of the protocol, for its lists cost less than maps."""
    host, port = host_and_port(address)
    return redis.Redis(
        host, port, protocol=2, socket_timeout=None, socket_read_size=1 << 20, retry_on_timeout=False
    )


def create(address: str, topic: str, subscribers: Sequence[str]) -> None:
    """Make a stream with a group for each subscriber, and load the function that fills it."""
    with _client(address) as client:
        client.function_load(_FUNCTION, replace=True)
        for subscriber in subscribers:
            client.xgroup_create(topic, subscriber, id="$", mkstream=True)


class RedisPublishing(Publishing):
    """One connection, with many commands without an answer."""

    def __init__(self, address: str, topic: str, settings: Settings) -> None:
        self._client = _client(address)
        self._connection = self._client.connection_pool.get_connection()
        self._topic = topic
        self._in_flight = settings.in_flight

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Store each batch by one call of the function."""
        head = ("FCALL", "bench_send", 1, self._topic)
        read, sent, waiting = self._connection.read_response, 0, 0
        for batch in batches:
            if waiting == self._in_flight:
                read()
                waiting -= 1
            self._connection.send_packed_command([pack_command((*head, *batch))])
            waiting += 1
            sent += len(batch)
        for _ in range(waiting):
            read()
        return sent

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Store each message by an XADD of its own, written in groups."""
        topic, sent, waiting = self._topic, 0, deque[int]()
        for batch in batches:
            if len(waiting) == self._in_flight:
                self._read_answers(waiting.popleft())
            packed = [pack_command(("XADD", topic, "*", "p", payload)) for payload in batch]
            self._connection.send_packed_command([b"".join(packed)])
            waiting.append(len(batch))
            sent += len(batch)
        self._read_answers(sum(waiting))
        return sent

    def _read_answers(self, count: int) -> None:
        read = self._connection.read_response
        for _ in range(count):
            read()

    def publish_one(self, payload: bytes) -> None:
        """One XADD and its answer."""
        command = pack_command(("XADD", self._topic, "*", "p", payload))
        self._connection.send_packed_command([command])
        self._connection.read_response()

    def close(self) -> None:
        """End the connection."""
        self._connection.disconnect()
        self._client.close()


class RedisReading(Reading):
    """One connection; while messages abound the next group is on its way when one is given out."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._client = _client(address)
        self._connection = self._client.connection_pool.get_connection()
        self._topic = topic
        self._group = subscriber
        self._count = settings.batch if settings.batch > 1 else _GROUP_MESSAGES
        # Ids that were given out and are not acknowledged.
        self._given: list[bytes] = []

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """Payloads in groups. XACK goes out with or after the next XREADGROUP, never by itself."""
        who = ("XREADGROUP", "GROUP", self._group, "reader", "COUNT", self._count)
        ask = pack_command((*who, "BLOCK", int(idle_s * 1000), "STREAMS", self._topic, ">"))
        # What the answers that are still to come belong to: whether to the asking.
        answers = deque[bool]()
        while True:
            commands = self._acknowledgement()
            if commands:
                answers.append(False)
            if True not in answers:
                commands += ask
                answers.append(True)
            if commands:
                self._connection.send_packed_command([commands])
            reply = self._connection.read_response()
            while not answers.popleft():
                reply = self._connection.read_response()
            if not reply:
                return
            entries = reply[0][1]
            if len(entries) == self._count:
                self._connection.send_packed_command([ask])
                answers.append(True)
            self._given = [entry[0] for entry in entries]
            yield [entry[1][1] for entry in entries]

    def _acknowledgement(self) -> bytes:
        """The XACK of what was given out; nothing if nothing was."""
        if not self._given:
            return b""
        packed: bytes = pack_command(("XACK", self._topic, self._group, *self._given))
        self._given = []
        return packed

    def close(self) -> None:
        """Acknowledge on another connection, for this one may be blocked by its last question."""
        if self._given:
            self._client.xack(self._topic, self._group, *self._given)
        self._connection.disconnect()
        self._client.close()

"""A connection to a Redis server: a blocking socket, and hiredis to cut the answers.

redis-py waits for all answers of a pipeline before it sends the next, and makes objects around
each command; the same commands and answers cost a third without it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hiredis import Reader, ReplyError, pack_command

from mbctl.bench.systems.sockets import connected, send_parts

_READ_BYTES = 1 << 20


class RedisConnection:
    """One socket. Version 2 of the protocol, whose lists cost less than maps."""

    def __init__(self, address: str) -> None:
        self._socket = connected(address)
        reader = Reader(notEnoughData=_MORE)
        self._feed: Callable[[bytes], None] = reader.feed
        self._gets: Callable[[], Any] = reader.gets

    def send(self, commands: bytes) -> None:
        """Write packed commands."""
        self._socket.sendall(commands)

    def send_parts(self, parts: Sequence[bytes]) -> None:
        """Write large parts without copying them."""
        send_parts(self._socket, parts)

    def reply(self) -> Any:
        """The next answer.

        Raises:
            ConnectionError: it is a refusal, or the server is gone.
        """
        while (reply := self._gets()) is _MORE:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the Redis server closed the connection")
            self._feed(data)
        if isinstance(reply, ReplyError):
            raise ConnectionError(f"Redis refused: {reply}")
        return reply

    def replies(self, count: int) -> None:
        """Wait for answers that tell nothing but success."""
        for _ in range(count):
            self.reply()

    def call(self, *words: str | bytes | int) -> Any:
        """Send one command and wait for its answer."""
        self.send(packed(*words))
        return self.reply()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


_MORE = object()


def packed(*words: str | bytes | int) -> bytes:
    """A command as it is sent."""
    every: Any = words  # Its types say that a command has one word.
    command: bytes = pack_command(every)
    return command

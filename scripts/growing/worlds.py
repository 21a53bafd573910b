"""Lets a server have much of something, and of nothing else.

Each world is built through the protocol, by clients as there may be any, and is beside the
topic ``used``, in which the rounds are measured, or around it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from measuring.raw import Raw

from mbctl import Publisher
from mbctl.wire import messages as wire

USED = "used"
READER = "reader"
# Requests on their way at once; the server takes 1,024.
_WINDOW = 500


def _ask_all(client: Raw, requests: Iterator[wire.Message]) -> None:
    """Ask all of them, some hundreds at a time."""
    while True:
        frames = [client.frame(request) for request, _ in zip(requests, range(_WINDOW))]  # noqa: B905
        if not frames:
            return
        client.write(b"".join(frames))
        client.reply()


class World:
    """A server with clients that stay as long as the world does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.clients: list[Raw] = []

    def close(self) -> None:
        """Let the clients go."""
        for client in self.clients:
            client.close()

    def topics(self, count: int) -> None:
        """So many topics."""
        client = Raw(self.address).hello()
        _ask_all(client, (wire.CreateTopic(0, f"topic-{number}") for number in range(count)))
        client.close()

    def subscriptions_of_one(self, count: int) -> None:
        """So many subscriptions of the used topic, which nobody reads from."""
        for number in range(count):
            client = Raw(self.address).subscriber(f"other-{number}")
            client.ask(wire.Subscribe(0, USED, "new"))
            client.close()

    def subscriptions(self, count: int) -> None:
        """So many subscriptions, a hundred of each topic."""
        topics = count // 100
        self.topics(topics)
        for number in range(100):
            client = Raw(self.address).subscriber(f"other-{number}")
            _ask_all(client, (wire.Subscribe(0, f"topic-{n}", "new") for n in range(topics)))
            client.close()

    def backlog(self, count: int) -> None:
        """So many messages of the used topic in batches that one subscriber has yet to read."""
        with self.subscriber("behind"), Publisher(self.address) as publisher:
            batch = [b"x" * 10] * 1000
            with publisher.pipeline() as pipe:
                for _ in range(count // len(batch)):
                    pipe.send_many(USED, batch)

    @contextmanager
    def subscriber(self, name: str) -> Iterator[Raw]:
        """A subscriber of the used topic."""
        client = Raw(self.address).subscriber(name)
        client.ask(wire.Subscribe(0, USED, "new"))
        yield client
        client.close()

    def ranges(self, count: int) -> None:
        """The reader has acknowledged every other of so many messages, and read on."""
        with Publisher(self.address) as publisher:
            publisher.send_many(USED, [b"x"] * (2 * count))
        client = Raw(self.address).subscriber(READER)
        pulled = client.ask(wire.Pull(0, USED, 2 * count))
        assert isinstance(pulled, wire.Pulled)
        begin = pulled.pieces[0].first + 1
        for first in range(begin, begin + 2 * count, 1000):
            next_offset = min(first + 1000, begin + 2 * count)
            ranges = [(offset, offset + 1) for offset in range(first, next_offset, 2)]
            counted = client.ask(wire.Ack(0, USED, pulled.topic_id, ranges))
            assert isinstance(counted, wire.Counted), counted
        self.clients.append(client)

    def connections(self, count: int) -> None:
        """So many connections that are open and silent."""
        for _ in range(count):
            self.clients.append(Raw(self.address).hello())

    def waiting(self, count: int) -> None:
        """So many subscribers whose pulls wait for what does not come."""
        self.topics(1)
        for number in range(count):
            client = Raw(self.address).subscriber(f"waiting-{number}")
            client.ask(wire.Subscribe(0, "topic-0", "new"))
            client.write(client.frame(wire.Pull(0, "topic-0", 10, None, 3_600_000)))
            self.clients.append(client)

    def sessions(self, count: int) -> None:
        """So many publishers that have sent something lately and are gone."""
        self.topics(1)
        for _ in range(count):
            client = Raw(self.address).hello()
            frames = client.frame(wire.RegisterPublisher(0, os.urandom(16)))
            client.write(frames + client.send_frame("topic-0", 1, b"x"))
            client.reply()
            client.close()


GROWN: dict[str, tuple[Callable[[World, int], None], int]] = {
    "topics": (World.topics, 9_990),
    "subscriptions of one topic": (World.subscriptions_of_one, 990),
    "subscriptions in all": (World.subscriptions, 99_900),
    "messages of backlog": (World.backlog, 10_000_000),
    "ranges acknowledged out of order": (World.ranges, 4_500),
    "connections": (World.connections, 9_900),
    "waiting pulls": (World.waiting, 1_000),
    "publisher sessions": (World.sessions, 20_000),
}
"""How each world grows, and by how much."""

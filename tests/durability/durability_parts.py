"""A publisher that notes what becomes of each message, and what has to be true afterwards."""

import threading
from collections.abc import Callable
from pathlib import Path

from crashes.processes import Server

from mbctl import (
    Admin,
    ConnectionFatal,
    MbctlError,
    OutcomeUnknown,
    Publisher,
    RequestRefused,
    Subscriber,
)

StartServer = Callable[..., Server]


class Sending:
    """Sends numbered messages, one after the other, in a thread, until the server is gone."""

    def __init__(
        self, address: str, topic: str = "t", *, size: int = 200, timeout: float = 1.0
    ) -> None:
        self.stored: dict[int, int] = {}
        """The offset of each message that was acknowledged, by its number."""
        self.refused: dict[int, RequestRefused] = {}
        self.unknown: list[int] = []
        self.begun = 0
        """How many messages were sent or are about to be."""
        self.end: MbctlError | None = None
        """What ended it, if it was not told to end."""
        self._topic = topic
        self._filling = b"." * size
        self._publisher = Publisher(address, timeout=timeout)
        self._is_told_to_end = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._publisher.create_topic(self._topic)
        except MbctlError as error:
            self.end = error
            return
        while not self._is_told_to_end:
            number = self.begun
            self.begun += 1
            try:
                receipt = self._publisher.send(self._topic, b"<%d>%b" % (number, self._filling))
            except RequestRefused as error:
                self.refused[number] = error
            except OutcomeUnknown as error:
                self.unknown.append(number)
                self.end = error
                return
            except ConnectionFatal as error:
                # It was never written, so nobody has it.
                self.end = error
                return
            else:
                self.stored[number] = receipt.offset

    def stop(self) -> None:
        """Let the send under way end, and send no more."""
        self._is_told_to_end = True
        self._thread.join()
        self._publisher.close()

    def check(self, address: str) -> None:
        """Assert that the topic holds all that was acknowledged and nothing it should not."""
        with Admin(address) as admin:
            if all(topic.topic != self._topic for topic in admin.topics()):
                assert self.begun == 0
                return
        found = read_numbers(address, self._topic)
        assert {number: found.get(number) for number in self.stored} == self.stored
        assert found.keys() <= {*self.stored, *self.unknown}
        # One publisher's messages, in its order and without a hole.
        assert list(found) == sorted(found)
        assert list(found.values()) == list(range(len(found)))


def read_numbers(address: str, topic: str) -> dict[int, int]:
    """The offset of each message ``<number>...`` of a topic; every one must be there once."""
    found: dict[int, int] = {}
    with Subscriber(address) as subscriber:
        subscriber.subscribe(topic, start="earliest")
        while batch := subscriber.pull(topic, 10_000, wait=0):
            for message in batch:
                number = int(message.payload.rstrip(b".").strip(b"<>"))
                assert number not in found
                found[number] = message.offset
    return found


def contents(directory: Path) -> dict[str, bytes]:
    """All files below a directory, with what is in them."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }

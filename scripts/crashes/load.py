"""The load: publishers and subscribers in all their ways, each of which keeps an account.

Run as ``python -m crashes.load publish|subscribe SETTINGS`` with the settings as JSON, in
the folder above this one. They go on through crashes of the server, by the reconnects of
the client library alone, until stdin is closed.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from crashes.ledger import Account, payload
from mbctl import (
    ConnectionLost,
    MbctlError,
    OutcomeUnknown,
    Publisher,
    RequestRefused,
    SendFailed,
    ServerStopping,
    Subscriber,
    Timeout,
)
from mbctl.model import Range

# An impatient publisher gives up during a restart, so that some outcomes are unknown.
_IMPATIENT_S = 0.2
# How many of the sends go to the rare topic.
_RARE_SHARE = 0.003
# Now and then all publishers rest together, so that everything is read and can go.
_LULL_EVERY_S = 10.0
_LULL_S = 3.0
# A late reader looks only now and then: what it has not got must be kept.
_LATE_S = 0.7
_GONE = (ConnectionLost, OutcomeUnknown, ServerStopping, Timeout)


class Settings(msgspec.Struct, kw_only=True):
    """What both programs are told."""

    address: str
    ledger: str
    """The directory of the accounts."""
    topics: list[str]
    rare_topic: str
    """A topic that is seldom sent to, and that nobody reads before the end."""
    seed: int
    actors: list[str]
    """Names of accounts, ``KIND-NUMBER``; the numbers of publishers are their ids."""
    pause_ms: float = 6.0
    """How long a publisher rests after each act, on average."""
    payload_bytes: int = 3_000


def _watch_stdin() -> threading.Event:
    """Set when stdin is closed: everybody finishes what is under way."""
    stop = threading.Event()

    def watch() -> None:
        while os.read(0, 1024):
            pass
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    return stop


class Sender:
    """One publisher: numbers its messages, and notes what becomes of each batch."""

    def __init__(self, settings: Settings, name: str, stop: threading.Event) -> None:
        self.kind, _, number = name.rpartition("-")
        self.number = int(number)
        self._settings = settings
        self._random = random.Random(f"{settings.seed} {name}")
        self._account = Account(Path(settings.ledger), name)
        self._stop = stop
        self._began = time.monotonic()
        self._next = 0
        self._publisher: Publisher | None = None

    def run(self) -> None:
        """Send until told to stop."""
        act = {
            "single": self._send_one,
            "batch": self._send_batch,
            "pipeline": self._send_pipeline,
            "impatient": self._send_batch,
        }[self.kind]
        while not self._stop.is_set():
            act()
            while self._is_lull() and not self._stop.wait(0.02):
                pass
            self._stop.wait(self._random.expovariate(1.0) * self._settings.pause_ms / 1000)
        if self._publisher is not None:
            self._publisher.close()
        self._account.close()

    def _is_lull(self) -> bool:
        return (time.monotonic() - self._began) % _LULL_EVERY_S > _LULL_EVERY_S - _LULL_S

    def _client(self) -> Publisher:
        while self._publisher is None:
            timeout = _IMPATIENT_S if self.kind == "impatient" else 30.0
            try:
                self._publisher = Publisher(self._settings.address, self.kind, timeout=timeout)
            except (ConnectionLost, Timeout):
                if self._stop.is_set():
                    raise
        return self._publisher

    def _batch(self, most: int) -> tuple[str, int, list[bytes]]:
        """A topic, the first number and the payloads of the next batch."""
        rng = self._random
        first, count = self._next, rng.randint(1, most)
        self._next += count
        # Mostly small ones, and now and then some that fill a segment soon.
        largest = self._settings.payload_bytes if rng.random() < 0.2 else 100
        payloads = [
            payload(self.number, number, (first, count), rng.randint(0, largest))
            for number in range(first, first + count)
        ]
        is_rare = rng.random() < _RARE_SHARE
        topic = self._settings.rare_topic if is_rare else rng.choice(self._settings.topics)
        return topic, first, payloads

    def _send_one(self) -> None:
        topic, first, payloads = self._batch(1)
        self._note(topic, first, 1, lambda: self._client().send(topic, payloads[0]).offset)

    def _send_batch(self) -> None:
        topic, first, payloads = self._batch(25)
        self._note(
            topic, first, len(payloads), lambda: self._client().send_many(topic, payloads).offset
        )

    def _note(self, topic: str, first: int, count: int, send: Callable[[], int]) -> None:
        account = self._account
        account.send(topic, first, count)
        try:
            offset = send()
        except OutcomeUnknown:
            account.unknown(topic, first, count)
        except (RequestRefused, ConnectionLost) as error:
            account.refused(topic, first, count, error.code)
        else:
            account.stored(topic, first, count, offset)

    def _send_pipeline(self) -> None:
        client, account = self._client(), self._account
        sends: dict[tuple[str, bytes], tuple[str, int, int]] = {}
        refused: list[tuple[str, list[bytes], MbctlError]] = []
        try:
            with client.pipeline() as pipe:
                for _ in range(self._random.randint(2, 10)):
                    topic, first, payloads = self._batch(10)
                    account.send(topic, first, len(payloads))
                    sends[topic, payloads[0]] = topic, first, len(payloads)
                    pipe.send_many(topic, payloads)
        except SendFailed as failed:
            refused = failed.refused
        except _GONE:
            # Which of them were answered before is not told.
            for send in sends.values():
                account.unknown(*send)
            return
        for topic, payloads, error in refused:
            account.refused(*sends.pop((topic, payloads[0])), error.code)
        for send in sends.values():
            account.stored(*send)


class Reader:
    """One subscriber: notes what it received, and which acknowledgements were confirmed."""

    def __init__(self, settings: Settings, name: str, stop: threading.Event) -> None:
        self.name = name
        self.kind = name.rpartition("-")[0]
        self._settings = settings
        self._random = random.Random(f"{settings.seed} {name}")
        self._account = Account(Path(settings.ledger), name)
        self._stop = stop

    def run(self) -> None:
        """Read until told to stop."""
        if self.kind == "tail":
            self._until_stopped(self._tail)
        else:
            self._until_stopped(self._pull)
        self._account.close()

    def _until_stopped(self, read: Callable[[Subscriber], None]) -> None:
        while not self._stop.is_set():
            try:
                self._serve(read)
            except _GONE:
                continue

    def _serve(self, read: Callable[[Subscriber], None]) -> None:
        name = None if self.kind == "tail" else self.name
        client = Subscriber(self._settings.address, name)
        try:
            for topic in self._settings.topics:
                client.subscribe(topic, "new" if name is None else "earliest")
            while not self._stop.is_set():
                read(client)
                if self.kind == "late":
                    self._stop.wait(_LATE_S)
        finally:
            client.close()

    def _tail(self, client: Subscriber) -> None:
        """See each message as soon as it is visible; ephemeral, so acks mean nothing."""
        for topic in self._settings.topics:
            batch = client.pull(topic, 1000, wait=0.01)
            if batch:
                self._account.got(batch)

    def _pull(self, client: Subscriber) -> None:
        rng = self._random
        for topic in self._settings.topics:
            most = 1000 if self.kind != "picky" else rng.choice((20, 1000))
            batch = client.pull(topic, most, wait=0.02, auto_ack=self.kind == "carrier")
            if not batch:
                continue
            self._account.got(batch)
            if self.kind == "carrier":
                continue
            if self.kind == "picky" and len(batch) <= 20:
                for message in rng.sample(list(batch), -(-len(batch) // 3)):
                    if message.ack() == 1:
                        one: Range = (message.offset, message.offset + 1)
                        self._account.confirmed(topic, batch.topic_id, [one])
                batch.nack()
            else:
                ranges, count = batch.open_ranges, len(batch)
                if batch.ack() == count:
                    self._account.confirmed(topic, batch.topic_id, ranges)


def main() -> None:
    """Run the actors of one program, each in a thread of its own."""
    settings = msgspec.json.decode(sys.argv[2], type=Settings)
    kinds: dict[str, type[Sender] | type[Reader]] = {"publish": Sender, "subscribe": Reader}
    stop = _watch_stdin()
    actors = [kinds[sys.argv[1]](settings, name, stop) for name in settings.actors]
    # An error in one of them must not leave the others to run on alone.
    failed: list[threading.ExceptHookArgs] = []

    def on_error(args: threading.ExceptHookArgs) -> None:
        failed.append(args)
        threading.__excepthook__(args)
        stop.set()

    threading.excepthook = on_error
    threads = [threading.Thread(target=actor.run) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

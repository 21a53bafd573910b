"""What a message system has to offer to be measured, whichever it is.

A ``System`` runs in the process that measures: it starts the server and ends it. Its
``publishing`` and ``reading`` run in worker processes, which are told the address only.

    System.start ─▶ address ─▶ worker: Publishing.publish(batches)   ─▶ acknowledged
                            ─▶ worker: Reading.read()                ─▶ lists of payloads

Each does what a careful user of that system would write who wants speed: pipelines, batches,
windows of sends in flight, acknowledgements in groups.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

Durability = Literal["memory", "written", "synced"]
"""What an acknowledgement means: kept in memory, given to the kernel, forced to disk."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a system is run and used in one measurement; printed in every line of results."""

    durability: Durability = "memory"
    batch: int = 2000
    """Messages that are sent together, where the system can; 1 for one a call."""
    in_flight: int = 64
    """Sends (batches, or messages where there are none) without an answer at most."""


class Unavailable(Exception):
    """This system cannot be measured here; the text says what to install."""


class Publishing(ABC):
    """A publisher's end, in a worker process."""

    @abstractmethod
    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Send all batches, many in flight; how many messages, once all are acknowledged."""

    @abstractmethod
    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """The same with one call for each message, as a program has that gets them one by one."""

    @abstractmethod
    def publish_one(self, payload: bytes) -> None:
        """Send one message and return when it is acknowledged."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class Reading(ABC):
    """A subscriber's end, in a worker process."""

    @abstractmethod
    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """The payloads as they come, in order, in the groups the system gives them out in.

        A group is acknowledged when the next one is asked for, or when this is closed. It
        ends when nothing came for ``idle_s`` seconds.
        """

    @abstractmethod
    def close(self) -> None:
        """Acknowledge what was read last, and end the connection."""


class System(ABC):
    """A message system: its server, and how to use it."""

    name: str
    """As in ``--peer``."""
    durabilities: tuple[Durability, ...]
    """What it can promise, the weakest first."""
    stores: bool = True
    """Whether a server acknowledges messages and keeps them for subscribers that are not there."""

    @abstractmethod
    def version(self) -> str:
        """Versions of server and client, such as ``redis 8.0.3, redis-py 5.2.1 + hiredis 3.1``.

        Raises:
            Unavailable: something is not installed.
        """

    @abstractmethod
    def describe(self, settings: Settings) -> str:
        """In a line, how server and client are set up for this, so that a reader can judge it."""

    @abstractmethod
    def start(self, directory: Path, settings: Settings) -> str:
        """Start a server that keeps its data in ``directory``; its address once it answers.

        Raises:
            Unavailable: it is not installed.
        """

    @abstractmethod
    def pids(self) -> list[int]:
        """The processes of the server, for their memory and time."""

    @abstractmethod
    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Make a topic, and subscriptions that each get everything sent from now on."""

    def drop(self, address: str, topic: str) -> None:  # noqa: B027
        """Delete a topic that was measured, where that is easy; by default it stays."""

    @abstractmethod
    def publishing(self, address: str, topic: str, settings: Settings) -> Publishing:
        """A publisher's end, in the process that calls."""

    @abstractmethod
    def reading(self, address: str, topic: str, subscriber: str, settings: Settings) -> Reading:
        """A subscriber's end, in the process that calls."""

    @abstractmethod
    def stop(self) -> None:
        """End the server and wait until it is gone."""

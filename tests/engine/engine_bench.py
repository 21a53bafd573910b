"""A local engine whose journal is held back, damaged or full when a test says so."""

from typing import Any

from engine_client import Client, Messages
from engine_drivers import LocalDriver, Pending, TestJournal, VolatileStore

from mbctl.model import MIB, Limits, Range


class Bench:
    """A local engine on a journal that is held back when a test says so."""

    def __init__(self, limits: Limits | None = None, max_bytes: int = 64 * MIB) -> None:
        store = VolatileStore(lambda runtime: TestJournal(max_bytes))
        self.driver = LocalDriver(store, limits)
        self.engine = self.driver.engine
        self.runtime = self.driver.runtime
        self.client = Client(self.driver)
        self.client.create_topic("orders")
        self.client.reader()

    @property
    def journal(self) -> TestJournal:
        assert isinstance(self.driver.journal, TestJournal)
        return self.driver.journal

    def start(self, verb: str, *args: Any, **named: Any) -> Pending:
        """Begin a verb and end its turn."""
        pending = self.driver.start(verb, *args, **named)
        self.runtime.run_turns()
        return pending

    def send(self, *payloads: bytes) -> Pending:
        pending = self.client.start_send(*payloads)
        self.runtime.run_turns()
        return pending

    def ack(self, *ranges: Range) -> Pending:
        """Begin an explicit ack, and end its turn."""
        return self.start("ack", b"a", "orders", self.client.topic_ids["orders"], list(ranges))

    def ack_with_pull(self, *ranges: Range) -> None:
        """Acknowledge as a pull carries it, and end the turn that may have begun."""
        topic_id = self.client.topic_ids["orders"]
        self.driver.tell("ack_with_pull", b"a", "orders", topic_id, list(ranges))
        self.runtime.run_turns()

    def pulled(self, pull: Pending) -> list[bytes]:
        """The payloads that a pull was answered with."""
        return Messages(pull.result()).payloads

    def let_go(self, count: int | None = None) -> None:
        self.journal.let_go(count)
        self.runtime.run_turns()

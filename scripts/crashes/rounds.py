"""A round: topics, a load on them and a ledger, from the first message to the last.

The load goes on while the server is killed and started again. In between the topics are
read and compared with the ledger, and at the end everything has to have arrived.
"""

from pathlib import Path

from crashes.books import Books
from crashes.ledger import Account, AccountReader, Entry, read_payload
from crashes.load import Settings
from crashes.processes import Failed, Load, wait_until
from mbctl import Admin, Subscriber

_PUBLISHERS = ("single", "batch", "pipeline", "impatient")
_READERS = ("prompt", "carrier", "picky", "late")
_TOPICS = {
    # What holds back a publisher that is faster than the readers.
    "orders": 3_000,
    "events": 3_000,
    # So tight that sends are refused all the time.
    "tight": 40,
}
# What goes here is kept to the end of the round, in segments that are dead but for it.
_RARE = {"archive": 3_000}
# A server that dies while it is read is given up soon.
_AUDIT_TIMEOUT_S = 0.5
# How long the readers may take to get everything at the end.
_DRAIN_S = 30.0


class Round:
    """One round. ``begin``, then ``audit`` at every start of the server, then ``finish``."""

    def __init__(self, number: int, seed: int, ledger: Path) -> None:
        self.books = Books()
        self.audits = 0
        self._number = number
        self._seed = seed
        self._ledger = ledger
        self._accounts = AccountReader(ledger)
        self._durable = [f"{kind}-{number}" for kind in _READERS]
        self._sleeper = f"sleeper-{number}"
        self._loads: list[Load] = []
        ledger.mkdir()

    @property
    def subscribers(self) -> dict[str, list[str]]:
        """Who has to get everything, by topic."""
        return {topic: self._durable for topic in _TOPICS} | {t: [self._sleeper] for t in _RARE}

    def begin(self, address: str) -> None:
        """Create the topics and subscriptions, and start the load."""
        with Admin(address) as admin:
            for topic, most in {**_TOPICS, **_RARE}.items():
                assert admin.create_topic(topic, exist_ok=False, max_messages=most)
        for topic, names in self.subscribers.items():
            for name in names:
                with Subscriber(address, name) as subscriber:
                    subscriber.subscribe(topic, "earliest")
        publishers = [f"{kind}-{10 * self._number + n}" for n, kind in enumerate(_PUBLISHERS)]
        readers = [*self._durable, f"tail-{self._number}"]
        for kind, actors in (("publish", publishers), ("subscribe", readers)):
            settings = Settings(
                address=address,
                ledger=str(self._ledger),
                topics=list(_TOPICS),
                rare_topic=next(iter(_RARE)),
                seed=self._seed,
                actors=actors,
            )
            self._loads.append(Load(kind, settings))
        wait_until(lambda: self.is_begun and self._is_served(publishers))

    def _is_served(self, publishers: list[str]) -> bool:
        self._read_accounts()
        served = {
            publisher
            for (publisher, _), send in self.books.sends.items()
            if send.outcome == "stored"
        }
        return len(served) == len(publishers)

    @property
    def is_begun(self) -> bool:
        """Whether publishers and subscribers are at work.

        Raises:
            Failed: they were, and have ended by an error of their own.
        """
        if not all(load.is_running for load in self._loads):
            raise Failed("the load ended by an error of its own, see above")
        return bool(self._loads)

    def audit(self, address: str) -> None:
        """Read all that is kept and compare it with what was acknowledged before.

        Raises:
            MbctlError: the server went away meanwhile.
        """
        self._read_accounts()
        stored = self.books.stored()
        kept = {}
        with Subscriber(address, timeout=_AUDIT_TIMEOUT_S) as subscriber:
            for topic in self.subscribers:
                kept[topic] = self._read_topic(subscriber, topic)
        # What was reclaimed while we read is in the accounts of those who have it.
        self._read_accounts()
        self.books.compare_kept(stored, kept, self.subscribers)
        self.audits += 1

    def finish(self, address: str) -> None:
        """End the load, let everybody read everything, compare, and delete the topics."""
        publishers, readers = self._loads
        publishers.end()
        self._wake_sleeper(address)
        with Admin(address) as admin:
            wait_until(lambda: not _unread(admin), _DRAIN_S)
            readers.end()
            self.audit(address)
            self.books.compare_sends()
            self.books.compare_delivered(self.subscribers)
            for topic in self.subscribers:
                admin.delete_topic(topic)

    def _wake_sleeper(self, address: str) -> None:
        account = Account(self._ledger, self._sleeper)
        with Subscriber(address, self._sleeper) as subscriber:
            for topic in _RARE:
                while batch := subscriber.pull(topic, wait=0, auto_ack=False):
                    account.got(batch)
                    batch.ack()
        account.close()

    def find_nothing(self) -> None:
        """Compare the ledger with a broker that does not start: it has kept nothing."""
        self._read_accounts()
        self.books.compare_kept(self.books.stored(), {}, self.subscribers)

    def abandon(self) -> None:
        """End the load at once."""
        for load in self._loads:
            load.kill()

    def _read_accounts(self) -> None:
        self.books.enter(self._accounts.read())

    def _read_topic(self, subscriber: Subscriber, topic: str) -> list[Entry]:
        subscriber.subscribe(topic, "earliest")
        kept: list[Entry] = []
        while batch := subscriber.pull(topic, 10_000, wait=0):
            entries = [read_payload(message.payload, message.offset) for message in batch]
            self.books.enter_delivery("audit", topic, batch.topic_id, entries)
            before = kept[-1:] if not batch.skipped else []
            self.books.compare_offsets(topic, [*before, *entries])
            kept += entries
        subscriber.unsubscribe(topic)
        return kept


def _unread(admin: Admin) -> int:
    return sum(found.unread for found in admin.subscriptions() if found.durable)

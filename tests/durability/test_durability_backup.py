"""Backups of a server under load are what it had at one moment."""

import threading
from pathlib import Path

from broker_process import BrokerProcess

from mbctl import Admin, Publisher, Server, Subscriber
from mbctl.offline.restore import restore

BACKUPS = 3


class Load:
    """One who sends its number as each message, and one who acknowledges every second batch."""

    def __init__(self, address: str) -> None:
        self.acknowledged = 0
        """Every message below this offset was acknowledged by the server."""
        self.begun = 0
        """No message from this offset on was sent."""
        self.cursor = 0
        """Below this all was acknowledged by the reader, and answered."""
        self.asked = 0
        """From here on nothing was acknowledged by the reader."""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work, args=(address,)) for work in (self._send, self._read)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, address: str) -> None:
        with Publisher(address) as publisher:
            while not self._stop.is_set():
                first = self.begun
                self.begun += 20
                payloads = [b"%d" % number for number in range(first, first + 20)]
                assert publisher.send_many("orders", payloads).offset == first
                self.acknowledged = first + 20

    def _read(self, address: str) -> None:
        with Subscriber(address, "billing") as reader:
            reader.subscribe("orders")
            while not self._stop.is_set():
                batch = reader.pull("orders", 40, wait=0.1, auto_ack=False)
                if batch:
                    *_, last = batch
                    self.asked = last.offset + 1
                    batch.ack()
                    self.cursor = self.asked


def test_backup_under_load_is_what_there_was_at_one_moment(tmp_path: Path) -> None:
    broker = BrokerProcess(data=tmp_path / "data")
    bounds = []
    with Admin(broker.address) as admin, Publisher(broker.address) as publisher:
        # What one keeps unread shows what has become of it.
        publisher.create_topic("orders", retain_bytes=200_000)
        with (
            Subscriber(broker.address, "audit") as audit,
            Subscriber(broker.address, "billing") as b,
        ):
            audit.subscribe("orders")
            b.subscribe("orders", "earliest")
        with Load(broker.address) as load:
            for number in range(BACKUPS):
                while load.acknowledged < 400 * (number + 1):
                    admin.topic("orders")
                before = load.acknowledged, load.cursor
                admin.backup(tmp_path / f"{number}.backup")
                bounds.append((before, (load.begun, load.asked)))
    broker.check()
    for number, (low, high) in enumerate(bounds):
        check(tmp_path / f"{number}.backup", tmp_path / f"restored-{number}", low, high)


def check(backup: Path, directory: Path, low: tuple[int, int], high: tuple[int, int]) -> None:
    """What was restored has no more and no less than there was between two moments."""
    report = restore(backup, directory)
    assert report.is_whole
    with Server(memory=False, data=directory) as server, Admin(server.address) as admin:
        topic = admin.topic("orders")
        cursor = admin.subscription("orders", "billing").cursor
        assert low[0] <= topic.next_offset <= high[0]
        assert low[1] <= cursor <= high[1]
        assert cursor <= topic.next_offset
        assert topic.first_offset == 0
        with Subscriber(server.address, "audit") as audit:
            audit.subscribe("orders")
            read: list[bytes] = []
            while batch := audit.pull("orders", 10_000, wait=0):
                read += batch.payloads
        assert read == [b"%d" % offset for offset in range(topic.next_offset)]

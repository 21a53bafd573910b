"""What was sent and read, noted outside of everything that is being broken meanwhile."""

import threading
import time
from bisect import bisect_left
from functools import partial
from itertools import pairwise

from mbctl import Admin, Publisher, Subscriber
from mbctl.errors import MbctlError

TOPIC, READER = "orders", "billing"
# A batch of so many messages is one message of the cluster, and so many batches are under way.
_BATCH = 5
_BATCHES = 4
_BEHIND = 1000


class Ledger:
    """A publisher and readers of one name under load, and all that they were told."""

    def __init__(self, send_to: str, *read_from: str) -> None:
        self.sent: list[int] = []
        """The messages whose send was acknowledged, in the order of the sends."""
        self.read: list[int] = []
        """Each delivery, in order."""
        self.offsets: dict[int, set[int]] = {}
        """Where each message was read."""
        self.acknowledged: set[int] = set()
        """The messages whose acknowledgement was confirmed."""
        self.again: list[int] = []
        """Those that were delivered after that."""
        self.errors: list[BaseException] = []
        self.sent_at: list[float] = []
        self.read_at: list[float] = []
        self._is_over = threading.Event()
        self._is_read_out = threading.Event()
        self._send_to = send_to
        self._is_single = len(read_from) == 1
        with Admin(send_to, timeout=30) as admin:
            admin.create_topic(TOPIC)
        with Subscriber(read_from[0], READER, timeout=30) as subscriber:
            subscriber.subscribe(TOPIC, "earliest")
        work = [self._send, *(partial(self._read, address) for address in read_from)]
        self._threads = [threading.Thread(target=self._guard, args=(one,)) for one in work]
        for thread in self._threads:
            thread.start()

    def _guard(self, work) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)

    def _send(self) -> None:
        number = 0
        with Publisher(self._send_to, timeout=60) as publisher:
            while not self._is_over.is_set():
                numbers = range(number, number + _BATCH * _BATCHES)
                with publisher.pipeline() as pipe:
                    for first in numbers[::_BATCH]:
                        pipe.send_many(TOPIC, [b"%d" % (first + more) for more in range(_BATCH)])
                self.sent += numbers
                self.sent_at.append(time.monotonic())
                number = numbers.stop
                # The reader, who waits for each confirmation, is to keep up.
                while len(self.sent) - len(self.read) > _BEHIND and not self._is_over.is_set():
                    time.sleep(0.001)

    def _read(self, address: str) -> None:
        with Subscriber(address, READER, timeout=60) as subscriber:
            while True:
                batch = subscriber.pull(TOPIC, 50, wait=0.5, auto_ack=False)
                messages = [(int(message.payload), message.offset) for message in batch]
                numbers = [number for number, _ in messages]
                self.read += numbers
                for number, offset in messages:
                    self.offsets.setdefault(number, set()).add(offset)
                self.again += [one for one in numbers if one in self.acknowledged]
                if numbers:
                    self.read_at.append(time.monotonic())
                    try:
                        batch.ack()
                    except MbctlError:
                        # It is not known: then they may come again.
                        continue
                    self.acknowledged.update(numbers)
                elif self._is_over.is_set() and not set(self.sent) - set(self.read):
                    return
                if self._is_read_out.is_set():
                    return

    def wait_for(self, more: int, *, patience_s: float = 40.0) -> float:
        """Wait until so many more messages were sent and read; how long that took."""
        begun, sent = time.monotonic(), len(self.sent) + more
        read = max(len(self.read), len(self.sent)) + more
        while len(self.sent) < sent or len(self.read) < read:
            assert time.monotonic() - begun < patience_s, "the service did not come back"
            assert not self.errors, self.errors
            time.sleep(0.01)
        return time.monotonic() - begun

    def close(self) -> None:
        """End, once all that was sent is read."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(40)
        self._is_read_out.set()
        for thread in self._threads:
            thread.join(10)

    # --- what was seen --------------------------------------------------------------------

    @property
    def lost(self) -> list[int]:
        """What was acknowledged to its sender and never read."""
        return sorted(set(self.sent) - set(self.read))

    @property
    def stored_twice(self) -> list[int]:
        """What was read at two places of the topic."""
        return [number for number, offsets in self.offsets.items() if len(offsets) > 1]

    @property
    def out_of_order(self) -> list[int]:
        """What a single reader read for the first time after a message that was sent later."""
        if not self._is_single:
            return []
        first_seen = list(dict.fromkeys(self.read))
        return [later for earlier, later in pairwise(first_seen) if later < earlier]

    @property
    def read_twice(self) -> int:
        """How many deliveries were not the first one of their message."""
        return len(self.read) - len(set(self.read))

    def pauses(self, since: float = 0.0) -> tuple[float, float]:
        """The longest time without an acknowledged send, and without a delivery, since then."""
        return longest_pause(self.sent_at, since), longest_pause(self.read_at, since)

    def check(self) -> None:
        """Assert that all was stored once, and read in order, and not after it was acknowledged."""
        if self.errors:
            raise self.errors[0]
        assert not self.lost, _told(self.lost, "acknowledged messages are lost")
        assert not self.stored_twice, _told(self.stored_twice, "messages are stored twice")
        assert not self.again, _told(self.again, "came again after a confirmed acknowledgement")
        assert not self.out_of_order, _told(self.out_of_order, "came after later ones")


def longest_pause(at: list[float], since: float) -> float:
    at = at[max(0, bisect_left(at, since) - 1) :]
    return max((later - earlier for earlier, later in pairwise(at)), default=0.0)


def _told(numbers: list[int], what: str) -> str:
    return f"{len(numbers)} {what}, the first {numbers[0]}"

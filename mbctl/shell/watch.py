"""Keeps an eye on the server while somebody types: its names, and whether it is there.

It has a connection and a thread of its own, so that no key press ever waits for a server.
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mbctl.actions.text import amount, counted, duration, is_name, unread
from mbctl.errors import MbctlError
from mbctl.shell.completion import LiveNames
from mbctl.shell.interrupts import for_others

if TYPE_CHECKING:
    from mbctl import Admin
    from mbctl.model import SubscriptionInfo, TopicInfo

INTERVAL_S = 1.0
TIMEOUT_S = 2.0

# A server with so many topics that listing them takes long is asked less often: this
# bounds what the watching costs it to one part in this many.
_COST_SHARE = 50

# How often somebody who waits for the server looks up to see whether he is interrupted.
_WAIT_S = 0.2


def _nobody(sentence: str) -> None:
    """Tell nobody."""


class ServerWatch:
    """The newest names and state of a server. What is public may be read by any thread.

    ``changed`` is called from the watching thread after each look, and ``tell`` with a
    sentence when the server goes or comes back.
    """

    def __init__(
        self,
        server: str,
        *,
        changed: Callable[[], None],
        tell: Callable[[str], None] = _nobody,
    ) -> None:
        self.names = LiveNames()
        self.reachable: bool | None = None
        """None before the first look."""
        self.subscriber: str | None = None
        """Whose subscriptions count as subscribed."""
        self.unacknowledged = 0
        """Messages that the subscriber was shown and that are not acknowledged yet."""
        self.lag: int | None = None
        """Messages that the subscriber has not acknowledged."""
        self.rate: float | None = None
        """Messages a second that come into its topics; without a subscriber, into all."""
        self._server = server
        self._changed = changed
        self._tell = tell
        self._wanted = threading.Event()
        self._back = threading.Event()
        self._lost_at = 0.0
        self._own: list[SubscriptionInfo] = []
        self._stopped = False
        self._counted: tuple[frozenset[str], int, float] = (frozenset(), 0, 0.0)
        self._thread = threading.Thread(target=self._run, name="server-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        with for_others():
            self._thread.start()

    def refresh(self) -> None:
        """Look again now; returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Look no more; returns at once, whatever the server does."""
        self._stopped = True
        self._wanted.set()

    def wait_until_back(self) -> None:
        """Return when the server is not known to be gone."""
        while self.reachable is False:
            self._back.wait(_WAIT_S)

    def _run(self) -> None:
        admin: Admin | None = None
        while not self._stopped:
            started, cost = time.monotonic(), 0.0
            try:
                admin = admin or _connect(self._server)
                had = self._own
                self.names = self._look(admin)
                cost = time.monotonic() - started
                self._is_there(had)
            except MbctlError as error:
                self._is_gone(error)
            self._changed()
            self._wanted.wait(max(INTERVAL_S, cost * _COST_SHARE))
            self._wanted.clear()
        if admin is not None:
            admin.close()

    def _is_there(self, had: "list[SubscriptionInfo]") -> None:
        if self.reachable is False and not self._stopped:
            gone_s = time.monotonic() - self._lost_at
            became = self._what_became(had) if self.subscriber else ""
            # Said before a verb that waits goes on, so that its answer comes behind.
            self._tell(f"{self._server} is back after {duration(gone_s)}{became}")
        self.reachable = True
        self._back.set()

    def _what_became(self, had: "list[SubscriptionInfo]") -> str:
        """What became of the subscriber's messages while the server was gone."""
        # A server that starts again knows of no lease, and one that only lost the connection
        # has ended them: what was shown and not acknowledged is granted again either way.
        again = max(self.unacknowledged, sum(info.redeliver for info in self._own))
        lost = sum(info.lost for info in self._own)
        unless = " unless acknowledged" if again else ""
        became = f", {lost:,} lost, {again:,} to come again{unless}"
        # An ephemeral one subscribes again with its next pull.
        had_names = {info.topic for info in had if info.durable}
        gone = had_names - {info.topic for info in self._own}
        return f"{became}; {counted(len(gone), 'subscription')} gone" if gone else became

    def _is_gone(self, error: MbctlError) -> None:
        was_there, self.reachable = self.reachable is not False, False
        self._back.clear()
        if was_there and not self._stopped:
            self._lost_at = time.monotonic()
            reason = getattr(error, "reason", None) or str(error)
            self._tell(f"lost {self._server} ({reason}); commands wait until it is back")

    def _look(self, admin: "Admin") -> LiveNames:
        infos = admin.topics()
        topics = {
            info.topic: f"{amount(info.messages, info.batches)}, "
            f"{counted(info.subscriptions, 'subscription')}"
            for info in infos
            if is_name(info.topic)
        }
        subscriber = self.subscriber
        own = [
            i for i in (admin.subscriptions() if subscriber else ()) if i.subscriber == subscriber
        ]
        self._own = own
        lag = [info.unread for info in own if info.unread is not None]
        self.lag = sum(lag) if subscriber and len(lag) == len(own) else None
        subscribed = {info.topic: unread(info) for info in own if is_name(info.topic)}
        self._measure([info for info in infos if not subscriber or info.topic in subscribed])
        return LiveNames(topics, subscribed)

    def _measure(self, infos: "list[TopicInfo]") -> None:
        names = frozenset(info.topic for info in infos)
        total, now = sum(info.next_offset for info in infos), time.monotonic()
        before_names, before, then = self._counted
        self._counted = (names, total, now)
        # A topic that came or went would count as thousands of messages.
        is_same = names == before_names and total >= before
        # Offsets count messages only where messages are counted.
        is_same = is_same and all(info.messages is not None for info in infos)
        self.rate = (total - before) / (now - then) if is_same and now > then else None


def _connect(server: str) -> "Admin":
    from mbctl import Admin

    return Admin(server, timeout=TIMEOUT_S)

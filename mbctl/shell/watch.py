"""Keeps an eye on the server while somebody types: its names, and whether it is there.

It has a connection and a thread of its own, so that no key press ever waits for a server.
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mbctl.actions.text import amount, counted, unread
from mbctl.errors import MbctlError
from mbctl.shell.completion import LiveNames

if TYPE_CHECKING:
    from mbctl import Admin

INTERVAL_S = 1.0
TIMEOUT_S = 2.0

# A server with so many topics that listing them takes long is asked less often: this
# bounds what the watching costs it to one part in this many.
_COST_SHARE = 50


class ServerWatch:
    """The newest names and state of a server. ``names`` and ``reachable`` are for any thread.

    ``changed`` is called from the watching thread after each look.
    """

    def __init__(self, server: str, *, changed: Callable[[], None]) -> None:
        self.names = LiveNames()
        self.reachable: bool | None = None
        """None before the first look."""
        self.subscriber: str | None = None
        """Whose subscriptions count as subscribed."""
        self._server = server
        self._changed = changed
        self._wanted = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="server-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def refresh(self) -> None:
        """Look again now; returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Look no more; returns at once, whatever the server does."""
        self._stopped = True
        self._wanted.set()

    def _run(self) -> None:
        admin: Admin | None = None
        while not self._stopped:
            started = time.monotonic()
            try:
                admin = admin or _connect(self._server)
                self.names = self._look(admin)
                self.reachable = True
            except MbctlError:
                self.reachable = False
            self._changed()
            cost = time.monotonic() - started
            self._wanted.wait(max(INTERVAL_S, cost * _COST_SHARE))
            self._wanted.clear()
        if admin is not None:
            admin.close()

    def _look(self, admin: "Admin") -> LiveNames:
        topics = {
            info.topic: f"{amount(info.messages, info.batches)}, "
            f"{counted(info.subscriptions, 'subscription')}"
            for info in admin.topics()
        }
        subscriber = self.subscriber
        subscribed = {
            info.topic: unread(info)
            for info in (admin.subscriptions() if subscriber else ())
            if info.subscriber == subscriber
        }
        return LiveNames(topics, subscribed)


def _connect(server: str) -> "Admin":
    from mbctl import Admin

    return Admin(server, timeout=TIMEOUT_S)

"""Following while somebody types: messages above the prompt, no more than can be read.

What is too much is not pulled: it waits on the server, unread, and is counted. The thread
shares the subscriber with the verbs; whoever holds the lock has it.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions.output import Output
from mbctl.actions.text import counted
from mbctl.errors import MbctlError, RequestRefused
from mbctl.shell.interrupts import for_others

if TYPE_CHECKING:
    from mbctl import Subscriber
    from mbctl.actions.messages import Look

SHOWN_PER_S = 100
"""Messages a second that are shown. Arbitrary: more than anybody reads, little to draw."""

_TICK_S = 0.1
_NOTE_INTERVAL_S = 5.0
_END_S = 2.0


class Beside(msgspec.Struct, frozen=True):
    """Where to show what comes while a line is typed, and when not to."""

    output: Output
    is_busy: Callable[[], bool]
    """Whether a menu or a search is open, which new lines would push about."""


class Follower:
    """Shows the messages of ``topics`` until stopped. ``unread`` counts what waits for it."""

    def __init__(
        self,
        subscriber: "Subscriber",
        lock: AbstractContextManager[object],
        beside: Beside,
        *,
        topics: list[str],
        look: "Look",
        unread: Callable[[list[str]], int],
    ) -> None:
        self.topics = topics
        self.held = 0
        """Messages that wait because there are too many to show."""
        self._subscriber = subscriber
        self._lock = lock
        self._beside = beside
        self._look = look
        self._unread = unread
        self._noted_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        with for_others():
            self._thread.start()

    def stop(self) -> bool:
        """Show no more; whether it has ended, which a lost server may delay."""
        self._stopped.set()
        self._thread.join(_END_S)
        return not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        """Whether there is still something to follow."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while self.topics and not self._stopped.wait(_TICK_S):
            if self._beside.is_busy():
                continue
            with self._lock:
                if not self._stopped.is_set():
                    self._show_some()

    def _show_some(self) -> None:
        left = round(SHOWN_PER_S * _TICK_S)
        for topic in list(self.topics):
            try:
                left -= self._show(topic, left)
            except RequestRefused as error:
                # The topic or the subscription is gone.
                self.topics.remove(topic)
                self._beside.output.error(error)
            except MbctlError:
                # The server is lost, which the watch tells; the next turn tries again.
                return
            if left <= 0:
                break
        self._count_held(is_limited=left <= 0)

    def _show(self, topic: str, count_max: int) -> int:
        batch = self._subscriber.pull(topic, count_max, wait=0)
        if batch:
            with self._beside.output.messages(self._look) as writer:
                writer.write(batch)
                writer.flush()
        return len(batch)

    def _count_held(self, *, is_limited: bool) -> None:
        if not is_limited:
            self.held = 0
            return
        now = time.monotonic()
        if now - self._noted_at < _NOTE_INTERVAL_S:
            return
        # What was shown just now is still unread: the next pull acknowledges it.
        shown = round(SHOWN_PER_S * _TICK_S)
        try:
            self.held = max(0, self._unread(self.topics) - shown)
        except MbctlError:
            return
        # What is shown within a second needs no words.
        if self.held > SHOWN_PER_S:
            self._noted_at = now
            self._beside.output.note(
                f"{counted(self.held, 'message')} held back: {SHOWN_PER_S} a second are shown;"
                " the others wait on the server, for pull or follow"
            )

"""A journal whose backups are bytes that the test chose, for looking at who holds them."""

from collections.abc import Callable

from mbctl.errors import MbctlError
from mbctl.journal.memory import MemoryJournal
from mbctl.model import MIB


class StoredBackup:
    """Bytes, read piece by piece; ``is_open`` until it is closed."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.is_open = True

    def read(self, position: int, size: int, done: Callable[[bytes | MbctlError], None]) -> None:
        """Answer at once."""
        done(self.content[position : position + size])

    def close(self) -> None:
        """Note that nobody needs it any more."""
        self.is_open = False


class BackedUpJournal(MemoryJournal):
    """Memory of which backups can be taken; they wait to begin while ``is_held``."""

    def __init__(self, content: bytes) -> None:
        super().__init__(1024 * MIB)
        self.content = content
        self.is_held = False
        self.backups: list[StoredBackup] = []
        self._waiting: list[Callable[[StoredBackup | MbctlError], None]] = []

    def backup(self, done: Callable[[StoredBackup | MbctlError], None]) -> None:
        """Begin one, now or when let go."""
        if self.is_held:
            self._waiting.append(done)
        else:
            self._begin(done)

    def let_begin(self) -> None:
        """Begin those that wait."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            self._begin(done)

    def _begin(self, done: Callable[[StoredBackup | MbctlError], None]) -> None:
        self.backups.append(StoredBackup(self.content))
        done(self.backups[-1])

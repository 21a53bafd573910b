"""Backups that clients read part by part: one a connection, few in all, none forgotten.

    none ── position 0 ──▶ beginning ── the engine has it ──▶ open ── the last part, no
                                                                position, silence, or the
                                                                connection's end ──▶ none

An open backup keeps files that the server would else delete, so it never outlives the
interest in it.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from mbctl.errors import InvalidArgument, LimitExceeded, MbctlError
from mbctl.wire.messages import BACKUP_PART_BYTES

if TYPE_CHECKING:
    from mbctl.engine.interface import Backup, Engine

PartDone = Callable[["tuple[int, int, bytes] | MbctlError"], None]
"""Told a part, as size of the whole, position and content, or why there is none."""

# Arbitrary: each may keep as much disk taken up as the journal had when it began.
BACKUPS_MAX = 4
# How long a backup stays open that nobody asks for a part of.
IDLE_S = 60.0


class Backups:
    """The backups of one server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle_s: float = IDLE_S) -> None:
        self.loop = loop
        self.idle_s = idle_s
        self.count = 0
        """Backups begun and not ended."""

    def slot(self) -> "BackupSlot":
        """Where a connection has its backup."""
        return BackupSlot(self)


class BackupSlot:
    """The backup of one connection, if it has one."""

    def __init__(self, backups: Backups) -> None:
        self._backups = backups
        self._taken = 0
        """Which backup it is, counted from 1; 0 while there is none."""
        self._begun = 0
        self._backup: Backup | None = None
        self._timer: asyncio.TimerHandle | None = None

    def part(self, engine: "Engine", position: int, done: PartDone) -> None:
        """Begin a backup at position 0, else go on with the one that is open."""
        try:
            if position == 0 and not self._taken:
                self._begin(engine, done)
            elif position == 0:
                raise LimitExceeded(what="backups of a connection", limit=1)
            elif self._backup is None or not 0 < position < self._backup.size:
                raise InvalidArgument(reason=f"no backup is open that has a byte {position}")
            else:
                self._read(self._backup, position, done)
        except MbctlError as error:
            done(error)

    def end(self) -> None:
        """Let go of the backup, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._taken:
            self._taken = 0
            self._backups.count -= 1
        backup, self._backup = self._backup, None
        if backup is not None:
            backup.close()

    def _begin(self, engine: "Engine", done: PartDone) -> None:
        if self._backups.count >= BACKUPS_MAX:
            raise LimitExceeded(what="backups at a time", limit=BACKUPS_MAX)
        self._begun += 1
        begun = self._taken = self._begun
        self._backups.count += 1

        def begin(backup: "Backup | MbctlError") -> None:
            is_wanted = self._taken == begun
            if isinstance(backup, MbctlError):
                if is_wanted:
                    self.end()
                done(backup)
            elif not is_wanted:
                # It was ended, or its connection, before it had begun.
                backup.close()
                done(InvalidArgument(reason="the backup was ended before it began"))
            else:
                self._backup = backup
                self._read(backup, 0, done)

        engine.backup(begin)

    def _read(self, backup: "Backup", position: int, done: PartDone) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._backups.loop.call_later(self._backups.idle_s, self.end)

        def read(content: bytes | MbctlError) -> None:
            if isinstance(content, MbctlError):
                done(content)
            else:
                done((backup.size, position, content))
                is_last = position + len(content) >= backup.size
                if is_last and self._backup is backup:
                    self.end()

        backup.read(position, BACKUP_PART_BYTES, read)

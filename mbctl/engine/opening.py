"""Which journal the local engine gets: on disk, with what is in it, or in memory."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from mbctl import files
from mbctl.engine.interface import Runtime
from mbctl.engine.local import LocalEngine
from mbctl.journal.memory import MemoryJournal
from mbctl.journal.records import Journal, Recovered
from mbctl.model import LIMITS, Limits

Notice = Callable[[str], None]


class StorageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages are kept and how; None means the journal's own default."""

    directory: Path | None
    """None keeps them in memory."""
    sync: str = "always"
    max_bytes: int | None = None
    segment_bytes: int | None = None
    snapshot_bytes: int | None = None
    limits: Limits = LIMITS


class Storage(msgspec.Struct, frozen=True):
    """A journal that is open, and what it held."""

    journal: Journal
    recovered: Recovered | None

    def engine(self, runtime: Runtime, limits: Limits) -> LocalEngine:
        """The engine that goes on with it. To be called in the runtime's loop."""
        return LocalEngine(self.journal, runtime, limits, self.recovered)


def open_storage(options: StorageOptions, runtime: Runtime, notice: Notice) -> Storage:
    """Open the journal, recovering what is there; takes its time, in any thread.

    ``notice`` is told what was found that is out of the ordinary.

    Raises:
        ServerError: the directory is in use, or cannot be used.
        StorageCorrupt, NewerFormat: what is in it cannot be served; nothing was changed.
        OSError: the system refused something.
    """
    if options.directory is None:
        assert options.max_bytes is not None
        return Storage(MemoryJournal(options.max_bytes), None)
    # Where nothing is stored on a disk, a server starts without all that.
    from mbctl.journal.disk import JournalOptions, open_journal

    # What is not said is the journal's to choose.
    sizes = {
        name: value
        for name in ("segment_bytes", "snapshot_bytes")
        if (value := getattr(options, name)) is not None
    }
    journal, recovered = open_journal(
        files.Directory(files.Disk(), options.directory),
        runtime,
        JournalOptions(
            durability=options.sync,
            max_bytes=options.max_bytes,
            window=options.limits.sends_in_flight,
            **sizes,
        ),
        progress=notice,
    )
    return Storage(journal, recovered)

"""What is written and synced together, and who waits for it.

A group gathers while the one before is on its way to the disk. It may reach over the end
of a segment: then all records of that are synced, its footer is written and synced, and
only then is the next one written to. So a footer proves that its segment is whole, and a
record in a segment that all segments before it are.
"""

import time
from collections.abc import Callable

from mbctl.batch import Buffer
from mbctl.files import File
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.segment import Segment, seal

# Records up to this size are copied together: each buffer of a write costs a microsecond.
_COPIED_BYTES = 1024


class _Part:
    """Records for one segment, and its footer if it ends with them."""

    __slots__ = ("buffers", "footer", "footer_number", "footer_position", "position", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.position = segment.position
        self.buffers: list[Buffer] = []
        self.footer: SegmentIndex | None = None
        self.footer_position = 0
        self.footer_number = 0


class Group:
    """Records to be written, and who is called when they are durable."""

    __slots__ = ("_parts", "end", "is_mark", "size", "waiters")

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self.size = 0
        """Bytes of its records."""
        self.end = 0
        """The place where its last record ends."""
        self.waiters: list[Callable[[], None]] = []
        self.is_mark = False
        """Whether there is nothing in it but a mark."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self._parts

    @property
    def is_small(self) -> bool:
        """Whether it stays within one segment."""
        return len(self._parts) == 1 and self._parts[0].footer is None

    def add(self, segment: Segment, head: bytes, body: Buffer) -> None:
        """Add a record, at the position that the segment has reached."""
        part = self._parts[-1] if self._parts else None
        if part is None or part.segment is not segment:
            part = _Part(segment)
            self._parts.append(part)
        size = memoryview(body).nbytes
        if size <= _COPIED_BYTES:
            part.buffers.append(head + bytes(body))
        else:
            part.buffers.append(head)
            part.buffers.append(body)
        self.size += len(head) + size
        self.is_mark = False

    def end_segment(self, segment: Segment, number: int) -> None:
        """Have the segment sealed after the records added so far, the next has ``number``."""
        part = self._parts[-1] if self._parts else None
        if part is None or part.segment is not segment:
            part = _Part(segment)
            self._parts.append(part)
        part.footer = segment.index
        part.footer_position = segment.position
        part.footer_number = number

    def write(self, *, is_synced: bool, salt: int) -> tuple[int, int, dict[int, int]]:
        """Write all; how many syncs, how long the last took in ns, and what was sealed.

        The last is the length of each sealed segment, by its number.

        Raises:
            OSError: a write or sync failed; nothing can be said of what is on disk.
        """
        syncs = sync_ns = 0
        sealed: dict[int, int] = {}
        for part in self._parts:
            file = part.segment.file
            if part.buffers:
                file.write(part.buffers, part.position)
            if is_synced or part.footer is not None:
                sync_ns = _sync(file)
                syncs += 1
            if part.footer is not None:
                number = part.segment.number
                sealed[number] = seal(
                    file,
                    number,
                    part.footer_position,
                    part.footer.encode(),
                    record_number=part.footer_number,
                    salt=salt,
                )
                syncs += 1
                file.close()
        return syncs, sync_ns, sealed


def _sync(file: File) -> int:
    began_ns = time.monotonic_ns()
    file.sync()
    return time.monotonic_ns() - began_ns

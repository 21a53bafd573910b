"""Reads a whole directory, says what is wrong, and what can be made of the rest."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import msgspec

from mbctl.errors import InvalidArgument, StorageCorrupt
from mbctl.files import Directory
from mbctl.journal.directory import (
    FORMAT_NAME,
    LOCK_NAME,
    REPAIRED_NAME,
    REPAIRING_NAME,
    is_unused,
    read_format,
)
from mbctl.journal.format import (
    SEGMENT_HEAD_BYTES,
    SNAPSHOT_HEAD_BYTES,
    TRAILER_BYTES,
    SegmentHead,
    is_cold,
    place_of,
    segment_name,
    unpack_any_trailer,
    unpack_segment_head,
    unpack_snapshot_head,
)
from mbctl.journal.recovery import LOST_AND_FOUND, cold_numbers, segment_numbers
from mbctl.journal.snapshot import NEXT_NAME, SNAPSHOT_NAME, Snapshot, read_snapshot
from mbctl.model import LIMITS
from mbctl.offline.rebuild import Rebuilt, rebuild
from mbctl.offline.report import Finding, Report
from mbctl.offline.salvage import Salvaged, records_are, salvage

WINDOW = LIMITS.sends_in_flight
"""How many sends of a publisher session are kept."""


class Examined(msgspec.Struct):
    """A directory that was read: what to say of it, and what a repair makes of it."""

    report: Report
    journal_id: bytes = b""
    segments: list[Salvaged] = []
    """Those with records that batches were appended to, in order."""
    cold: list[Salvaged] = []
    """Those that batches were moved to, in order."""
    empty: list[int] = []
    """The numbers of those that are there to be written to, and can stay."""
    rebuilt: Rebuilt | None = None
    next_number: int = 1
    """The number that the next record gets."""
    is_format_whole: bool = True
    headless: set[int] = set()
    """The numbers of segments whose heads are not readable."""

    def must_be_written(self, segment: Salvaged) -> bool:
        """Whether a segment is not as it should be, or not sealed."""
        assert self.rebuilt is not None
        plan = self.rebuilt.plans.get(segment.number)
        return (
            bool(segment.findings)
            or not segment.is_sealed
            or segment.number in self.headless
            or segment.file != segment_name(segment.number)
            or (plan is not None and not plan.is_empty)
        )


Progress = Callable[[int, int], None]
"""Told how many bytes were read, of how many."""


def examine(directory: Directory, progress: Progress = lambda done, total: None) -> Examined:
    """Read all that is in ``directory``; nothing is changed.

    Raises:
        InvalidArgument: it is no data directory.
        NewerFormat: a newer mbctl wrote it.
        StorageCorrupt: nothing tells which journal its files are of.
        OSError: the disk fails.
    """
    names = directory.names()
    report = Report(directory=str(directory.path))
    if REPAIRED_NAME in names:
        report.findings.append(Finding(REPAIRED_NAME, 0, "a repair was interrupted"))
        return Examined(report)
    check_is_one(directory, names)
    if FORMAT_NAME not in names and is_unused(directory):
        report.notes.append("nothing has been kept here yet")
        return Examined(report)
    return _Examination(directory, report, progress).run()


def check_is_one(directory: Directory, names: list[str]) -> None:
    """Refuse a directory with these names in it if it is no data directory.

    Raises:
        InvalidArgument: it is none.
    """
    if FORMAT_NAME in names or SNAPSHOT_NAME in names or _numbers(directory):
        return
    known = {LOCK_NAME, LOST_AND_FOUND, NEXT_NAME, REPAIRING_NAME}
    what = "is empty" if set(names) <= known else "is not a data directory of mbctl"
    raise InvalidArgument(reason=f"{directory.path} {what}")


def _numbers(directory: Directory) -> list[int]:
    """The numbers of all segments."""
    return segment_numbers(directory) + cold_numbers(directory)


class _Examination:
    """One reading of a directory."""

    def __init__(self, directory: Directory, report: Report, progress: Progress) -> None:
        self._directory = directory
        self._report = report
        self._progress = progress
        self._read = self._total = 0
        self._journal_id = b""
        self._snapshot: Snapshot | None = None
        self._headless: set[int] = set()

    def run(self) -> Examined:
        """Read all of it."""
        heads = self._segment_heads()
        is_format_whole = self._identify(heads)
        self._read_snapshot()
        sources = self._sources(heads)
        self._check_none_missing(sources)
        self._total = sum(map(self._size_of, sources.values()))
        cold = self._salvage_cold(sources)
        segments, empty = self._salvage(
            {number: name for number, name in sources.items() if not is_cold(number)}
        )
        for segment in [*segments, *cold]:
            self._report.totals.add(segment.totals)
            self._report.findings += segment.findings
            self._report.lost_records += segment.lost_records
        rebuilt = rebuild(self._snapshot, segments, cold, WINDOW)
        self._tell(rebuilt, [*segments, *cold])
        return Examined(
            self._report,
            self._journal_id,
            segments,
            cold,
            empty,
            rebuilt,
            self._next_number(segments),
            is_format_whole,
            self._headless,
        )

    def _next_number(self, segments: list[Salvaged]) -> int:
        known = self._snapshot.next_number if self._snapshot is not None else 1
        return max([known, *(segment.next_number for segment in segments)])

    def _find(self, file: str, what: str, position: int = 0) -> None:
        self._report.findings.append(Finding(file, position, what))

    # --- which journal it is ------------------------------------------------------------------

    def _segment_heads(self) -> dict[int, SegmentHead | None]:
        """By the number in its name, the head of each segment if it is whole."""
        heads = {}
        for number in _numbers(self._directory):
            heads[number] = unpack_segment_head(
                self._first_bytes(segment_name(number), SEGMENT_HEAD_BYTES)
            )
        return heads

    def _first_bytes(self, name: str, size: int) -> bytes:
        file = self._directory.open(name)
        try:
            return file.read(size, 0)
        finally:
            file.close()

    def _identify(self, heads: dict[int, SegmentHead | None]) -> bool:
        """Find out the journal's id: what most files say; whether FORMAT says so too."""
        said = [head.journal_id for head in heads.values() if head is not None]
        with suppress(FileNotFoundError):
            data = self._first_bytes(SNAPSHOT_NAME, SNAPSHOT_HEAD_BYTES)
            snapshot_head = unpack_snapshot_head(data)
            if snapshot_head is not None:
                said.append(snapshot_head.journal_id)
        format_id, wrong = self._read_format()
        # FORMAT first: where as many say the one as the other, it counts.
        votes = Counter([format_id, *said] if format_id is not None else said)
        if not votes:
            raise StorageCorrupt(
                path=str(self._directory.path / FORMAT_NAME),
                position=0,
                reason="nothing tells which journal this is",
            )
        self._journal_id = votes.most_common(1)[0][0]
        self._report.journal = self._journal_id.hex()
        if not wrong and format_id != self._journal_id:
            wrong = "it is of another journal than the other files"
        if wrong:
            self._find(FORMAT_NAME, wrong)
        return not wrong

    def _read_format(self) -> tuple[bytes | None, str]:
        try:
            return read_format(self._directory), ""
        except FileNotFoundError:
            return None, "it is missing"
        except StorageCorrupt as error:
            return None, f"it is not readable: {error.details['reason']}"

    def _read_snapshot(self) -> None:
        try:
            self._snapshot = read_snapshot(self._directory, self._journal_id, WINDOW)
        except StorageCorrupt as error:
            position = error.details["position"]
            assert isinstance(position, int)
            self._find(SNAPSHOT_NAME, str(error.details["reason"]), position)
            self._report.may_be_missing += [
                "topics and subscriptions that did not change since the oldest file that is there",
                "which messages had been deleted: some may be there again",
                "the answers to sends that publishers repeat",
            ]
            if SNAPSHOT_NAME in self._directory.names():
                self._report.put_away.append(SNAPSHOT_NAME)

    # --- which file is which segment ------------------------------------------------------------

    def _sources(self, heads: dict[int, SegmentHead | None]) -> dict[int, str]:
        """By number of a segment, the file that has it."""
        sources: dict[int, str] = {}
        misnamed: list[tuple[int, str]] = []
        for number, head in heads.items():
            name = segment_name(number)
            if head is None:
                self._find(name, "its head is not readable")
                real = self._number_at_end(name)
                if real in (None, number):
                    self._headless.add(number)
                else:
                    misnamed.append((real, name))
            elif head.journal_id != self._journal_id:
                self._find(name, "it is of another journal")
                self._report.put_away.append(name)
            elif head.number != number:
                self._find(name, f"it is segment {head.number} under the name of another")
                misnamed.append((head.number, name))
            else:
                sources[number] = name
        for number, name in misnamed:
            self._report.put_away.append(name)
            sources.setdefault(number, name)
        for number in sorted(self._headless):
            if number in sources:
                self._report.put_away.append(segment_name(number))
            sources.setdefault(number, segment_name(number))
        return dict(sorted(sources.items()))

    def _number_at_end(self, name: str) -> int | None:
        """The number that the trailer of a segment says, if it is whole."""
        file = self._directory.open(name)
        try:
            found = unpack_any_trailer(file.read(TRAILER_BYTES, max(0, file.size - TRAILER_BYTES)))
        finally:
            file.close()
        return None if found is None else found[0]

    def _check_none_missing(self, sources: dict[int, str]) -> None:
        """Find gaps in what is to be replayed; what is before it may have been deleted."""
        if self._snapshot is None:
            return
        first = self._snapshot.segment
        there = {number for number in sources if number >= first and not is_cold(number)}
        for number in range(first, max(there, default=first) + 1):
            if number not in there:
                self._find(segment_name(number), "it is missing")

    # --- what is in them --------------------------------------------------------------------

    def _salvage(self, sources: dict[int, str]) -> tuple[list[Salvaged], list[int]]:
        """The segments that have records, and the numbers of those that have none yet."""
        found: list[Salvaged] = []
        for number, name in sources.items():
            before = found[-1] if found else None
            found.append(self._salvage_one(number, name, self._floor(number, before)))
        found = self._cut_off(found)
        last = max((at for at, one in enumerate(found) if not one.is_empty), default=-1)
        for segment, after in zip(found, [*found, None][1:], strict=True):
            self._judge_rest(segment, after)
        empty = []
        for at, segment in enumerate(found):
            if not segment.is_empty:
                continue
            is_usable = (
                segment.number not in self._headless
                and segment.file == segment_name(segment.number)
                and segment.limit is None
            )
            if is_usable and at > last:
                empty.append(segment.number)
            else:
                self._report.put_away.append(segment.file)
        kept = [segment for segment in found if not segment.is_empty]
        self._check_numbers(kept)
        self._tell_of_the_end(kept, [*sources], empty)
        for segment in kept:
            if segment.number < self._covered:
                # Its changes are in the snapshot, and how far its topics reach.
                segment.lost_records = []
        return kept, empty

    def _salvage_cold(self, sources: dict[int, str]) -> list[Salvaged]:
        """The segments that batches were moved to. They were whole when they got their names."""
        found = [
            self._salvage_one(number, name, 0)
            for number, name in sources.items()
            if is_cold(number)
        ]
        for segment in found:
            if segment.is_empty:
                segment.findings.append(Finding(segment.file, 0, "nothing is left of it"))
        return found

    @property
    def _covered(self) -> int:
        """The first segment that the snapshot does not cover."""
        return self._snapshot.segment if self._snapshot is not None else 0

    def _floor(self, number: int, before: Salvaged | None) -> int:
        """The number that no record of a segment is below."""
        if number < self._covered:
            return 0
        if before is not None and before.number >= self._covered:
            return before.next_number
        return self._snapshot.next_number if self._snapshot is not None else 0

    def _salvage_one(self, number: int, name: str, floor: int, end: int | None = None) -> Salvaged:
        file = self._directory.open(name)
        try:
            return salvage(file, number, floor, journal_id=self._journal_id, window=WINDOW, end=end)
        finally:
            # One may be read twice.
            self._read = min(self._total, self._read + file.size)
            self._progress(self._read, self._total)
            file.close()

    def _size_of(self, name: str) -> int:
        file = self._directory.open(name)
        try:
            return file.size
        finally:
            file.close()

    def _cut_off(self, found: list[Salvaged]) -> list[Salvaged]:
        """Leave off what a start would cut off: what is wrong where nothing proves it durable."""
        durable = place_of(self._covered, 0)
        for segment in found:
            begun = 0 if segment.is_empty else place_of(segment.number, 0)
            durable = max(durable, begun, segment.mark)
        for at, segment in enumerate(found):
            place = place_of(segment.number, segment.end)
            if segment.is_sealed or not segment.findings or place < durable:
                continue
            floor = segment.index.first_number
            whole = self._salvage_one(segment.number, segment.file, floor, segment.end)
            self._report.notes.append(
                f"a write to {segment.file} was never finished and never acknowledged: "
                f"from byte {segment.end} on it does not count"
            )
            self._report.put_away += [one.file for one in found[at + 1 :]]
            return [*found[:at], whole]
        return found

    def _tell_of_the_end(self, kept: list[Salvaged], known: list[int], empty: list[int]) -> None:
        """Tell of segments of which nothing is left, and no later one that says what they had."""
        if self._snapshot is None:
            return
        last = max([self._covered - 1, *(segment.number for segment in kept)])
        numbers = {*range(last + 1, max([*known, self._covered]) + 1)}
        # Those too whose files are something else now.
        numbers.update(segment_numbers(self._directory))
        for number in sorted(numbers - {*empty}):
            if number > last:
                self._report.lost_records.append(
                    Finding(segment_name(number), 0, "whether anything was in it is not known")
                )

    def _check_numbers(self, kept: list[Salvaged]) -> None:
        """Find records that are missing between segments."""
        expected = None
        if self._snapshot is not None:
            expected = self._snapshot.next_number
        before: Salvaged | None = None
        for segment in kept:
            if segment.number < self._covered:
                continue
            first = segment.index.first_number
            is_next = before is None or before.number + 1 == segment.number
            if self._snapshot is None and not is_next:
                # Those between may have been deleted, with what they held.
                expected = None
            if expected is not None and first != expected:
                what = f"it begins with record {first}, and {expected} was expected"
                if first > expected:
                    what = records_are(expected, first, "missing before this file")
                segment.findings.insert(0, Finding(segment.file, SEGMENT_HEAD_BYTES, what))
                if first > expected:
                    segment.lost_records.insert(0, segment.findings[0])
            before, expected = segment, segment.next_number

    def _judge_rest(self, segment: Salvaged, after: Salvaged | None) -> None:
        """Decide whether what is not readable at the end of a segment was any record."""
        rest, segment.rest = segment.rest, None
        is_footer = (
            after is not None
            and not after.is_empty
            and after.number == segment.number + 1
            and after.index.first_number == segment.next_number
        )
        if rest is not None and not is_footer:
            segment.lost_records.append(rest)

    # --- what there is to say -----------------------------------------------------------------

    def _tell(self, rebuilt: Rebuilt, segments: list[Salvaged]) -> None:
        report = self._report
        report.topics = len(rebuilt.state.topics)
        report.subscriptions = sum(len(topic.places) for topic in rebuilt.state.topics.values())
        report.lost = rebuilt.lost
        report.may_be_missing += rebuilt.guesses
        if rebuilt.lost and not report.findings:
            self._find("", "messages are missing")
        for segment in segments:
            for topic_id, first, next_offset in segment.given_up:
                topic = rebuilt.state.topics.get(topic_id)
                if topic is not None and next_offset > topic.first_offset:
                    report.notes.append(
                        f"messages {first} to before {next_offset} of topic {topic.name!r} were "
                        "given up in an earlier repair"
                    )

"""Moves the live batches out of mostly dead segments, so that these can be deleted.

    look ─▶ inspect sources ─▶ copy, piece by piece ─▶ seal, name ─▶ switch the index
              (footer; live?)     (read, write, sync)                  (in the loop)

The copy is on disk, with its name, before anything is said to be there. A batch that was
given up meanwhile is not switched. What was switched is counted as being at its new place;
the old segments are dead then and deleted like others, once no read uses them. Who is
killed in between leaves both: the copies count, see ``runs``.

Files are read and written by a worker of its own, a piece at a time, and for no
more than a tenth of the time.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from mbctl.batch import Buffer
from mbctl.files import Directory
from mbctl.journal.census import BATCH_BYTES, Census
from mbctl.journal.cold import TOPIC_BYTES, ColdSegment
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import COLD_NUMBER, is_cold, segment_name, segment_of
from mbctl.journal.records import Index
from mbctl.journal.segment import read_footer
from mbctl.journal.snapshot import NoRoom
from mbctl.journal.space import Space
from mbctl.journal.worker import Loop, Timer, Worker
from mbctl.model import MIB, NS_PER_MS, NS_PER_S

# How much is copied at once: so many bytes, or so many batches, whose heads take time too.
_PIECE_BYTES = MIB
_PIECE_BATCHES = 512
# It takes a tenth of the disk's time. What it did not take of that in the last minute it may
# take at once: a segment is emptied before the next one is full.
_DISK_SHARE = 10
_BURST_NS = 60 * NS_PER_S // _DISK_SHARE
# How many footers are read before somebody else gets a turn.
_FOOTERS = 8
# How many batches the index is asked about, or told of, in one turn of the loop.
_ASKED_A_TURN = 10_000
# How long after something has died it is looked what is left, if no segment is sealed before;
# and for each segment there is, to keep what that takes below a thousandth of the time.
_ROUND_NS = 100 * NS_PER_MS
_SEGMENT_NS = 200_000
# How long to wait after one that came to nothing: for want of room, or of anything alive.
_RETRY_NS = NS_PER_S

Batch = tuple[int, int, int]
"""One that is alive: its first offset, place and size."""


class _Move:
    """Segments that are being emptied, and what comes of it."""

    def __init__(self, sources: list[int], cold: ColdSegment, *, is_check: bool = False) -> None:
        self.sources = sources
        self.cold = cold
        self.is_check = is_check
        """Whether it is only to be known what is alive."""
        self.alive: dict[int, list[Batch]] = {}
        """By topic id, what is to be moved."""
        self.size = 0
        """How large the copy gets at most, beside its ends."""
        self.held = 0
        """Bytes that are counted for the copy."""
        self.pieces: Iterator[list[tuple[int, Batch]]] = iter(())
        self.moves: dict[int, list[tuple[int, int, int]]] = {}
        """By topic id, what was copied: first offset, place and new place."""
        self.is_over = False


class Mover:
    """Empties mostly dead segments, one copy at a time."""

    def __init__(
        self,
        directory: Directory,
        loop: Loop,
        worker: Worker,
        census: Census,
        space: Space,
        *,
        journal_id: bytes,
        window: int,
        failed: Callable[[Exception], None],
        on_moved: Callable[[list[int]], None],
    ) -> None:
        self.index: Index | None = None
        self.switching: int | None = None
        """The copy that the index is being told of, which the census does not have yet."""
        self._directory = directory
        self._loop = loop
        self._worker = worker
        self._census = census
        self._space = space
        self._journal_id = journal_id
        self._window = window
        self._failed = failed
        self._on_moved = on_moved
        self._next_number = max([COLD_NUMBER, *filter(is_cold, census.sizes)]) + 1
        self._move: _Move | None = None
        self._timer: Timer | None = None
        self._round: Timer | None = None
        self._not_before_ns = 0
        self._credit_ns = _BURST_NS
        self._noted_ns = loop.now_ns()
        # After a move for which there was no room.
        self._is_cautious = False
        # Nothing that is at rest was found worth it the last time.
        self._is_in_vain = False
        self._is_closed = False

    def look(self) -> None:
        """Note that something has died or was sealed: there may be something to empty."""
        if self._is_closed or self.index is None:
            return
        if self._census.is_changed:
            self._look_around()
        else:
            self._look_later()
            self._empty()

    def _look_later(self) -> None:
        if self._round is None:
            after_ns = max(_ROUND_NS, _SEGMENT_NS * len(self._census.sizes))
            self._round = self._loop.call_at(self._loop.now_ns() + after_ns, self._look_around)

    def _empty(self) -> None:
        """Begin to empty what is worth it, unless that is under way."""
        # A segment is sealed and another filled while this one is emptied.
        excess = self._census.excess() + self._space.capacity
        if self._move is not None or self._is_in_vain or excess <= 0:
            return
        if self._loop.now_ns() < self._not_before_ns:
            self._look_later()
            return
        # After there was no room for many, as few as can be.
        capacity = 0 if self._is_cautious else self._space.to_copy()
        sources = self._census.sources(capacity, excess)
        if not sources:
            self._is_in_vain = True
            return
        self._move = _Move(sources, self._next_cold())
        self._next_number += 1
        self._inspect(self._move, sources)

    def _next_cold(self) -> ColdSegment:
        return ColdSegment(self._directory, self._next_number, self._journal_id, self._window)

    def _look_around(self) -> None:
        """Look how much is really alive where that is in doubt; again, until all is at rest."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        if self._is_closed:
            return
        self._is_in_vain = False
        sources = self._census.look_around()
        if not self._census.is_at_rest:
            self._look_later()
        if sources and self._move is None:
            self._move = _Move(sources, self._next_cold(), is_check=True)
            self._inspect(self._move, sources)
        else:
            self._empty()

    # --- what is alive ------------------------------------------------------------------------

    def _inspect(self, move: _Move, sources: list[int]) -> None:
        """Find out what is alive in these, some at a time."""
        if sources:
            some, left = sources[:_FOOTERS], sources[_FOOTERS:]
            done = partial(self._inspected, move, left)
            self._worker.submit(lambda: {n: self._read_index(n) for n in some}, done)
        else:
            self._begin(move)

    def _read_index(self, number: int) -> SegmentIndex | None:
        """The footer of a segment, or None if it cannot be read. For the worker."""
        try:
            file = self._directory.open(segment_name(number))
        except FileNotFoundError:
            # All of it has died since.
            return None
        try:
            sealed = read_footer(file, number, self._journal_id, self._window)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return None
        finally:
            file.close()
        return None if sealed is None else sealed[0]

    def _inspected(
        self,
        move: _Move,
        left: list[int],
        outcome: dict[int, SegmentIndex | None] | Exception,
    ) -> None:
        if self._is_to_end(move, outcome):
            return
        assert isinstance(outcome, dict)
        self._ask(move, left, self._asking(move, outcome))

    def _ask(self, move: _Move, left: list[int], steps: Iterator[None]) -> None:
        """Ask the index what is alive, a portion a turn."""
        if self._is_to_end(move, None):
            return
        for _ in steps:
            self._loop.call_soon_threadsafe(partial(self._ask, move, left, steps))
            return
        self._inspect(move, left)

    def _asking(self, move: _Move, indexes: dict[int, SegmentIndex | None]) -> Iterator[None]:
        """Ask what is alive of these segments; after each portion something else may be done."""
        assert self.index is not None
        for number, index in indexes.items():
            if index is None:
                # It was sealed, and is damaged now; nothing is lost while it is left as it is.
                self._leave(move, number)
                continue
            found: dict[int, list[Batch]] = {}
            asked = 0
            for topic_id, firsts, places, sizes in _portions(index, number):
                positions = self.index.live(topic_id, firsts, places)
                if positions:
                    found.setdefault(topic_id, []).extend(
                        (firsts[at], places[at], sizes[at]) for at in positions
                    )
                asked += len(firsts)
                if asked >= _ASKED_A_TURN:
                    asked = 0
                    yield
            self._asked(move, number, found)
            yield

    def _asked(self, move: _Move, number: int, found: dict[int, list[Batch]]) -> None:
        count = sum(map(len, found.values()))
        size = sum(batch[2] + BATCH_BYTES for batches in found.values() for batch in batches)
        size += TOPIC_BYTES * len(found)
        self._census.put_right(number, count, size)
        if move.is_check:
            return
        if not self._census.is_sparse(number) and not is_cold(number):
            # It was taken to be emptier than it is.
            move.sources.remove(number)
            return
        for topic_id, batches in found.items():
            move.alive.setdefault(topic_id, []).extend(batches)
        move.size += size

    def _leave(self, move: _Move, number: int) -> None:
        """Leave a segment as it is, for good: something in it cannot be read."""
        self._census.fix(number)
        if number in move.sources:
            move.sources.remove(number)

    # --- copying ------------------------------------------------------------------------------

    def _begin(self, move: _Move) -> None:
        if move.is_check:
            self._move = None
            self.look()
            return
        if not move.alive or not any(map(self._census.is_sparse, move.sources)):
            self._end(move)
            return
        for batches in move.alive.values():
            batches.sort()
        move.pieces = _pieces(move.alive)
        move.held = move.size
        self._census.bytes += move.held
        begin = partial(self._make, move, self._loop.wall_ns())
        self._worker.submit(begin, partial(self._copied, move, []))

    def _make(self, move: _Move, created: int) -> tuple[list[int | None], int]:
        """Make the file if there is room for it. For the worker."""
        if not self._space.may_copy(move.size):
            raise NoRoom
        move.cold.begin(move.size, created)
        return [], 0

    def _copy(self, move: _Move, piece: list[tuple[int, Batch]]) -> tuple[list[int | None], int]:
        """Copy one piece; where it is now, and how long the disk had to do. For the worker."""
        if move.is_over:
            return [], 0
        buffers: list[Buffer] = []
        places = move.cold.copy([batch[1:] for _, batch in piece], buffers)
        began_ns = self._loop.now_ns()
        if buffers:
            move.cold.write(buffers)
        # To read is not measured: while others use the interpreter, this waits for it after
        # every small read. What is read was written not long ago, or is little.
        return places, self._loop.now_ns() - began_ns

    def _copied(
        self,
        move: _Move,
        piece: list[tuple[int, Batch]],
        outcome: tuple[list[int | None], int] | Exception,
    ) -> None:
        if self._is_to_end(move, outcome):
            return
        assert isinstance(outcome, tuple)
        new_places, took_ns = outcome
        for (topic_id, (first, place, _)), new_place in zip(piece, new_places, strict=True):
            if new_place is None:
                self._leave(move, segment_of(place))
            else:
                move.moves.setdefault(topic_id, []).append((first, place, new_place))
        if not any(self._census.live(number) for number in move.sources):
            # All of it has died meanwhile.
            self._end(move)
        elif rest_ns := self._spend(took_ns):
            when_ns = self._loop.now_ns() + rest_ns
            self._timer = self._loop.call_at(when_ns, partial(self._go_on, move))
        else:
            self._go_on(move)

    def _spend(self, took_ns: int) -> int:
        """Note that the disk was used for so long; for how long to leave it alone now."""
        now_ns = self._loop.now_ns()
        earned_ns = (now_ns - self._noted_ns) // _DISK_SHARE
        self._credit_ns = min(_BURST_NS, self._credit_ns + earned_ns) - took_ns
        self._noted_ns = now_ns
        return max(0, -self._credit_ns * _DISK_SHARE)

    def _go_on(self, move: _Move) -> None:
        """Copy the next piece, or seal the copy if that was all."""
        self._timer = None
        if self._is_to_end(move, None):
            return
        piece = next(move.pieces, None)
        if piece is not None:
            self._worker.submit(
                partial(self._copy, move, piece), partial(self._copied, move, piece)
            )
        elif move.moves:
            self._worker.submit(partial(self._finish, move), partial(self._finished, move))
        else:
            self._end(move)

    def _finish(self, move: _Move) -> tuple[int, int]:
        """Seal the copy; its size, and how long that took. For the worker."""
        if move.is_over:
            return 0, 0
        began_ns = self._loop.now_ns()
        size = move.cold.finish()
        return size, self._loop.now_ns() - began_ns

    # --- switching ----------------------------------------------------------------------------

    def _finished(self, move: _Move, outcome: tuple[int, int] | Exception) -> None:
        if self._is_to_end(move, outcome):
            return
        assert isinstance(outcome, tuple)
        size, took_ns = outcome
        self._not_before_ns = self._loop.now_ns() + self._spend(took_ns)
        self._census.bytes += size - move.held
        move.held = size
        self.switching = move.cold.number
        self._switch(move, size, _switches(move.moves))

    def _switch(
        self,
        move: _Move,
        size: int,
        portions: Iterator[tuple[int, list[tuple[int, int, int]]]],
    ) -> None:
        """Tell the index where batches are now, a portion a turn."""
        if self._is_closed:
            return
        portion = next(portions, None)
        if portion is None:
            self._census.bytes -= move.held
            move.held = 0
            self._census.add_cold(move.cold.number, size, move.cold.count)
            self.switching = None
            self._move = None
            self._is_cautious = self._is_in_vain = False
            self._on_moved([])
            return
        topic_id, moves = portion
        assert self.index is not None
        left = set(self.index.move(topic_id, moves))
        moved = [place for _, place, new_place in moves if new_place not in left]
        self._census.move(moved, move.cold.number)
        self._on_moved(moved)
        self._loop.call_soon_threadsafe(partial(self._switch, move, size, portions))

    # --- the end ------------------------------------------------------------------------------

    def _is_to_end(self, move: _Move, outcome: Any) -> bool:
        """Whether nothing more is to be done, for one reason or another."""
        if isinstance(outcome, NoRoom):
            self._is_cautious = True
            self._end(move)
        elif isinstance(outcome, Exception):
            self._failed(outcome)
            return True
        return move.is_over

    def _end(self, move: _Move) -> None:
        """Leave it at that; the copy is of no use."""
        if move.is_over:
            return
        move.is_over = True
        self._move = None
        self._census.bytes -= move.held
        self._worker.submit(move.cold.discard, self._discarded)
        if not self._is_closed:
            self._not_before_ns = self._loop.now_ns() + _RETRY_NS
            self._timer = self._loop.call_at(self._not_before_ns, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()

    def _discarded(self, outcome: Exception | None) -> None:
        if isinstance(outcome, Exception):
            self._failed(outcome)

    def close(self) -> None:
        """Begin nothing more, and leave what is under way."""
        self._is_closed = True
        for timer in (self._timer, self._round):
            if timer is not None:
                timer.cancel()
        if self._move is not None:
            self._end(self._move)

    def halt(self) -> None:
        """Do nothing more: the disk has failed."""
        self._is_closed = True
        if self._move is not None:
            self._move.is_over = True


def _portions(
    index: SegmentIndex, number: int
) -> Iterator[tuple[int, Sequence[int], Sequence[int], Sequence[int]]]:
    """What is in a segment, topic by topic and not too much at once: firsts, places, sizes."""
    for topic_id, columns in index.topics.items():
        places = columns.places(number)
        for at in range(0, len(places), _ASKED_A_TURN):
            end = at + _ASKED_A_TURN
            yield topic_id, columns.firsts[at:end], places[at:end], columns.sizes[at:end]


def _pieces(alive: dict[int, list[Batch]]) -> Iterator[list[tuple[int, Batch]]]:
    """What is to be copied, topic by topic, a piece at a time."""
    piece: list[tuple[int, Batch]] = []
    size = 0
    for topic_id, batches in alive.items():
        for batch in batches:
            piece.append((topic_id, batch))
            size += batch[2]
            if size >= _PIECE_BYTES or len(piece) >= _PIECE_BATCHES:
                yield piece
                piece, size = [], 0
    if piece:
        yield piece


def _switches(
    moves: dict[int, list[tuple[int, int, int]]],
) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """What was moved, topic by topic, and not too much at once."""
    for topic_id, of_topic in moves.items():
        rest: Iterable[tuple[int, int, int]] = iter(of_topic)
        while portion := list(islice(rest, _ASKED_A_TURN)):
            yield topic_id, portion

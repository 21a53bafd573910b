"""Answers pulls: from what core granted, through the journal, to the one who asked."""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, cast

from msgspec.structs import replace

from mbctl.batch import Buffer
from mbctl.core.broker import Broker
from mbctl.core.grant import Grant, Piece, Wake
from mbctl.core.topic import Topic
from mbctl.engine.cuts import Cuts
from mbctl.engine.interface import Done, Pulled, Runtime
from mbctl.engine.turn import Turns
from mbctl.errors import DataLoss, DiskFull, MbctlError, ServerStopping
from mbctl.journal.records import Damaged, Journal
from mbctl.model import Range

# So many pulls that had waited are answered in one turn: about a third of a millisecond, and
# ten times what the turn itself costs.
_ANSWERS_A_TURN = 12


class _Pull:
    """Who asked, how much may be answered, and how."""

    __slots__ = ("done", "max_bytes", "member")

    def __init__(self, member: bytes | None, max_bytes: int, done: Done[Pulled]) -> None:
        self.member = member
        """None if nobody is granted anything: somebody only looks."""
        self.max_bytes = max_bytes
        self.done = done


class Deliveries:
    """The pulls that have no answer yet; counts what was delivered."""

    def __init__(
        self, core: Broker, journal: Journal, runtime: Runtime, turns: Turns, cuts: Cuts
    ) -> None:
        self.messages = 0
        self.bytes = 0
        self._core = core
        self._journal = journal
        self._runtime = runtime
        self._turns = turns
        self._cuts = cuts
        self._pulls: dict[int, _Pull] = {}
        self._next_number = 1
        self._wakes: deque[tuple[int, deque[Wake]]] = deque()
        """Waiting pulls that have their answer, by what they had been waiting for, numbered."""
        self._next_woken = 1
        # The numbers of those, and who waits until all below a number are answered.
        self._woken: OrderedDict[int, None] = OrderedDict()
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._is_waking = False
        self._is_due = False
        self._when_empty: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """How many pulls have no answer yet."""
        return len(self._pulls)

    def expect(self, member: bytes, max_bytes: int, done: Done[Pulled]) -> int:
        """Note a pull; the number by which it is answered, later or at once."""
        number = self._next_number
        self._next_number += 1
        self._pulls[number] = _Pull(member, max_bytes, done)
        return number

    def show(
        self, topic: Topic, pieces: Sequence[Piece], max_bytes: int, done: Done[Pulled]
    ) -> None:
        """Answer with messages that nobody was granted."""
        number = self._next_number
        self._next_number += 1
        self._pulls[number] = _Pull(None, max_bytes, done)
        places = [piece.place for piece in pieces]
        self._journal.read(places, partial(self._show_with, topic, pieces, number))

    def answer(self, number: int, result: Grant | MbctlError) -> None:
        """Answer a pull with what it was granted, or with its refusal, unless it ended."""
        if number not in self._pulls:
            return
        if isinstance(result, Grant) and result.pieces:
            places = [piece.place for piece in result.pieces]
            self._journal.read(places, partial(self._answer_with, result, number))
            return
        pull = self._pulls.pop(number)
        if isinstance(result, MbctlError):
            pull.done(result)
        else:
            pull.done(Pulled(result.topic_id, result.skipped, []))

    def wake(self, wakes: list[Wake]) -> None:
        """Answer pulls that had been waiting: now, or over the next turns if they are many."""
        if not wakes:
            return
        if len(wakes) == 1 and not self._wakes and not self._is_waking:
            # The usual case: there are no others to take turns with.
            self._is_waking = True
            try:
                self._answer_wake(wakes[0])
            finally:
                self._is_waking = False
            if self._wakes or self._when_empty is not None:
                self._answer_some()
            return
        self._wakes.append((self._next_woken, deque(wakes)))
        self._woken[self._next_woken] = None
        self._next_woken += 1
        if not self._is_waking and not self._is_due:
            self._answer_some()

    def _answer_some(self) -> None:
        # Thousands may have waited for one message: others are served in between. What does
        # not fit into one answer wakes the next pull, and calls within calls do not go deep.
        self._is_due = False
        self._is_waking = True
        try:
            for _ in range(_ANSWERS_A_TURN):
                if not self._wakes:
                    break
                # In turn of all that were woken together, so that few do not wait for many.
                number, together = self._wakes.popleft()
                wake = together.popleft()
                if together:
                    self._wakes.append((number, together))
                else:
                    del self._woken[number]
                self._answer_wake(wake)
        finally:
            self._is_waking = False
        if self._wakes:
            self._is_due = True
            self._runtime.call_soon(self._answer_some)
        self._call_waiting()
        self._look_if_empty()

    def _answer_wake(self, wake: Wake) -> None:
        assert isinstance(wake.token, int)
        self.answer(wake.token, wake.result)

    def after_wakes(self, call: Callable[[], None]) -> None:
        """Call when all that was granted to pulls that waited is being read: maybe now.

        A place that is released may not be read any more.
        """
        if not self._woken:
            call()
            return
        self._waiting.append((self._next_woken, call))
        self._call_waiting()

    def _call_waiting(self) -> None:
        while self._waiting:
            until, call = self._waiting[0]
            if next(iter(self._woken), until) < until:
                break
            self._waiting.popleft()
            call()

    def move(self, topic_id: int, places: dict[int, int]) -> None:
        """Read batches of a topic that were granted and are not being read at their new places."""
        for _, together in self._wakes:
            for at, wake in enumerate(together):
                grant = wake.result
                if isinstance(grant, Grant) and grant.topic_id == topic_id:
                    pieces = [_moved(piece, places) for piece in grant.pieces]
                    together[at] = Wake(wake.token, replace(grant, pieces=pieces))

    def close(self, when_empty: Callable[[], None]) -> None:
        """Answer all pulls that wait with nothing; call when those being read are answered."""
        self._when_empty = when_empty
        for number, pull in list(self._pulls.items()):
            if pull.member is not None:
                self.wake(self._core.cancel_pull(number))
        self._look_if_empty()

    def fail(self) -> None:
        """End all pulls: nothing is delivered any more."""
        pulls, self._pulls = self._pulls, {}
        for pull in pulls.values():
            pull.done(ServerStopping())
        self._look_if_empty()

    def _look_if_empty(self) -> None:
        if self._when_empty is not None and not self._pulls:
            when_empty, self._when_empty = self._when_empty, None
            when_empty()

    def _show_with(
        self, topic: Topic, pieces: Sequence[Piece], number: int, bodies: list[Buffer | Damaged]
    ) -> None:
        pull = self._pulls.pop(number, None)
        if pull is None:
            return
        # Up to what cannot be read; that is said to who looks from there on.
        whole = list(takewhile(lambda body: not isinstance(body, Damaged), bodies))
        if whole or not pieces:
            readable = cast("list[Buffer]", whole)
            shown, _ = self._cuts.pieces(pieces[: len(whole)], readable, pull.max_bytes)
            pull.done(Pulled(topic.topic_id, 0, shown))
        else:
            first, next_offset = _first_damaged(pieces, bodies)
            pull.done(DataLoss(topic=topic.name, first=first, next=next_offset))
        self._look_if_empty()

    def _answer_with(self, grant: Grant, number: int, bodies: list[Buffer | Damaged]) -> None:
        pull = self._pulls.pop(number, None)
        if pull is None:
            return
        if Damaged in map(type, bodies):
            self._answer_with_loss(grant, pull, bodies)
        else:
            self._answer_with_messages(grant, pull, bodies)
        self._look_if_empty()

    def _answer_with_messages(self, grant: Grant, pull: _Pull, bodies: list[Any]) -> None:
        pieces, over = self._cuts.pieces(grant.pieces, bodies, pull.max_bytes)
        for granted in grant.pieces:
            self.messages += granted.next - granted.first
        for first, next_offset in over:
            self.messages -= next_offset - first
        for _, _, _, body in pieces:
            self.bytes += memoryview(body).nbytes
        pull.done(Pulled(grant.topic_id, grant.skipped, pieces))
        if over:
            # The mean message size promised more than fits: the rest goes back, unseen.
            now_ns = self._runtime.now_ns()
            assert pull.member is not None
            self.wake(self._core.take_back(pull.member, grant, over, now_ns))

    def _answer_with_loss(
        self, grant: Grant, pull: _Pull, bodies: Sequence[Buffer | Damaged]
    ) -> None:
        """Pass over the first messages that cannot be read, and say so when that is durable.

        All else that was granted goes back unseen; what is damaged of it shows in later pulls.
        """
        if self._when_empty is not None:
            # Nothing more becomes durable here; whoever asks the next process is told.
            pull.done(Pulled(grant.topic_id, grant.skipped, []))
            return
        lost = _first_damaged(grant.pieces, bodies)
        refusal = None
        try:
            self._turns.reserve(len(grant.subscriber))
        except DiskFull as error:
            refusal, lost = error, (lost[0], lost[0])
        assert pull.member is not None
        passed, wakes = self._core.lose(
            pull.member,
            grant,
            lost,
            now_ns=self._runtime.now_ns(),
            wall_ns=self._runtime.wall_ns(),
        )
        if passed:
            loss = DataLoss(topic=grant.topic, first=passed[0][0], next=passed[-1][1])
            self._turns.answer_when_durable(pull.done, loss)
        else:
            # Somebody else was told meanwhile, or the subscription has no room for the gap now.
            pull.done(refusal or Pulled(grant.topic_id, 0, []))
        self.wake(wakes)


def _moved(piece: Piece, places: dict[int, int]) -> Piece:
    new_place = places.get(piece.place)
    return piece if new_place is None else replace(piece, place=new_place)


def _first_damaged(pieces: Sequence[Piece], bodies: Sequence[Buffer | Damaged]) -> Range:
    """The offsets of the first damaged batch and of those after it without a gap."""
    first = next_offset = -1
    for piece, body in zip(pieces, bodies, strict=True):
        if isinstance(body, Damaged) and next_offset in (-1, piece.batch_first, piece.batch_next):
            first = piece.batch_first if next_offset == -1 else first
            next_offset = piece.batch_next
    assert first != -1
    return first, next_offset

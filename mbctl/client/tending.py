"""What the Admins of both faces ask for besides looking: peeks, seeks, parked messages, backups."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from mbctl.client.base import ClientBase, Flow, expect
from mbctl.client.packing import StartLike, to_ranges, to_start, to_text
from mbctl.client.pulled import Peeked
from mbctl.errors import ConnectionLost, InvalidArgument, ProtocolError
from mbctl.model import AtTime, Sought
from mbctl.wire import messages as wire

Progress = Callable[[int, int], None]
"""Told how many bytes are done, and of how many."""


class AdminBase(ClientBase):
    """The flows of an Admin. No I/O."""

    def __init__(self, server: str, timeout: float) -> None:
        self._is_backing_up = False
        super().__init__(server, timeout)

    def _peek(self, topic: str, offset: StartLike, count: int) -> Flow[Peeked]:
        """One reply brings as much as its bound of bytes allows, so it may take several."""
        start = to_start(offset)
        peeked: Peeked | None = None
        while True:
            left = count if peeked is None else count - len(peeked)
            part = yield from self._peek_part(topic, start, left)
            if peeked is None:
                peeked = part
            elif part.topic_id != peeked.topic_id:
                # Another topic has the name now.
                return peeked
            else:
                peeked.add(part)
            if not part or len(peeked) >= count:
                return peeked
            start = part.next_offset

    def _peek_part(self, topic: str, start: int | str | AtTime, count: int) -> Flow[Peeked]:
        """What one reply brings."""
        reply = expect(wire.Pulled, (yield wire.Peek(0, topic, start, count)))
        part = Peeked(topic, reply)
        if isinstance(start, int) and reply.pieces:
            part.skipped = reply.pieces[0].first - start
        return part

    def _purge_topic(self, topic: str) -> Flow[int]:
        return self._counted(wire.PurgeTopic(0, topic))

    def _seek(self, topic: str, subscriber: str, start: StartLike) -> Flow[Sought]:
        # Without one the server takes it for that of who asks.
        to_text(subscriber, "subscriber")
        reply = yield wire.Seek(0, topic, to_start(start), subscriber)
        return expect(wire.SoughtReply, reply).sought

    def _release(self, topic: str, subscriber: str, offsets: Iterable[int] | None) -> Flow[int]:
        return self._counted(wire.Release(0, topic, subscriber, to_ranges(offsets)))

    def _drop(self, topic: str, subscriber: str, offsets: Iterable[int] | None) -> Flow[int]:
        return self._counted(wire.Drop(0, topic, subscriber, to_ranges(offsets)))

    def _counted(self, request: wire.Message) -> Flow[int]:
        return expect(wire.Counted, (yield request)).count

    # --- backups --------------------------------------------------------------------------------

    @contextmanager
    def _one_backup(self) -> Iterator[None]:
        """Let there be one backup at a time: a connection has no more.

        Raises:
            InvalidArgument: there is one.
        """
        if self._is_backing_up:
            raise InvalidArgument(reason="this Admin is reading a backup; use another for a second")
        self._is_backing_up = True
        try:
            yield
        finally:
            self._is_backing_up = False

    def _backup_part(self, position: int) -> Flow[wire.BackupPart]:
        try:
            reply = yield wire.GetBackup(0, position)
        except InvalidArgument as error:
            if position == 0:
                raise
            # The connection that had it is gone, and this one is new.
            reason = "it broke in the middle of the backup, which has to begin anew"
            raise ConnectionLost(address=self.server, reason=reason) from error
        part = expect(wire.BackupPart, reply)
        if part.position != position or not part.content:
            raise ProtocolError(reason=f"a part of the backup from {position} on was expected")
        return part

"""What the Publishers of both faces are without a connection: a session and its window."""

import os
import time
from collections.abc import Iterator
from weakref import WeakSet

from mbctl.client.base import ClientBase
from mbctl.client.buffers import Buffers
from mbctl.client.gathering import Gatherer
from mbctl.client.window import PendingSend, SendWindow
from mbctl.errors import OutcomeUnknown, from_wire
from mbctl.model import check_name
from mbctl.wire import messages as wire


class PublisherBase(ClientBase):
    """A publisher's session and its sends without an answer. No I/O."""

    _buffers: Buffers | None = None
    """What large batches are packed into, where writing is over when it returns."""

    def __init__(self, server: str, name: str | None, timeout: float) -> None:
        self.name = name if name is None else check_name(name)
        self._begin_session()
        self._pipelines: WeakSet[Gatherer] = WeakSet()
        super().__init__(server, timeout)

    def _begin_session(self) -> None:
        """Be a session that nobody has been before, and that has sent nothing."""
        self._session = os.urandom(16)
        self._window = SendWindow(self._buffers)

    def opening(self) -> list[wire.Message]:
        """Say hello and name the session."""
        return [*super().opening(), wire.RegisterPublisher(0, self._session, self.name)]

    def opened(self, replies: list[wire.Message]) -> None:
        """Take the answers to the opening."""
        super().opened(replies)
        if isinstance(replies[1], wire.Error):
            raise from_wire(replies[1].code, replies[1].details)

    def _frame_of(self, send: PendingSend) -> list[bytes | bytearray]:
        """``send`` as it goes out now, under a new id."""
        now = time.monotonic()
        id_ = next(self._ids)
        age_ms = send.age_ms(now)
        self._window.written(send, id_, now)
        return wire.encode_send(id_, send.topic, send.sequence, age_ms, send.batch)

    def _bursts(self) -> Iterator[tuple[list[PendingSend], bool]]:
        """What a new connection sends again, in parts, and whether more parts follow.

        That is what went to one that is gone and has no answer, in order, with its
        old numbers. First one, then twice as many each time, once the first of a part is
        answered: where connections do not last for the whole window, each still gets some
        answers.
        """
        sends = list(self._window)
        burst = 1
        while sends:
            part, sends = sends[:burst], sends[burst:]
            yield [send for send in part if send in self._window], bool(sends)
            burst *= 2

    def _note_answer(self, id_: int, reply: wire.Message) -> None:
        """Take the reply to request ``id_`` if it is about a send."""
        if isinstance(reply, wire.Sent):
            self._window.sent(id_, reply.offset, reply.count)
        elif isinstance(reply, wire.Error):
            self._window.answer(id_, from_wire(reply.code, reply.details))

    def _give_up(self, sends: list[PendingSend]) -> None:
        """Do not repeat ``sends``: nobody will ask for their answers."""
        for send in sends:
            self._window.drop(send)

    def _in_child(self) -> None:
        # Sends without an answer are the parent's, and so is what its pipelines have gathered.
        self._begin_session()
        for pipeline in list(self._pipelines):
            pipeline._begin()
        super()._in_child()


def unknown(sends: list[PendingSend]) -> OutcomeUnknown:
    """The error that says that those of ``sends`` without an answer have none."""
    unanswered = [send for send in sends if send.answer is None]
    what = f"the send to {unanswered[0].topic!r}"
    if len(unanswered) > 1:
        what += f" and {len(unanswered) - 1} more"
    return OutcomeUnknown(what=what)

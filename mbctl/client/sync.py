"""The sync face: flows run on a plain blocking socket, with reconnects in between.

No thread: everything happens inside the caller's calls. A call that finds the connection
gone connects again, with jittered backoff, inside its own time.
"""

from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import Self, TypeVar, cast

from mbctl import forks
from mbctl.client.backoff import FIRST_CONNECT_S, LAST_ATTEMPT_S, Backoff, is_survivable
from mbctl.client.base import ClientBase, Flow
from mbctl.client.channel import Channel, nap
from mbctl.client.deadline import Deadline
from mbctl.client.packing import to_frame
from mbctl.client.turns import OWNER, Turn
from mbctl.errors import (
    ConnectionLost,
    InvalidArgument,
    MbctlError,
    Timeout,
    from_wire,
)
from mbctl.wire import messages as wire

T = TypeVar("T")


def _never() -> bool:
    """Wait for nothing but the turn."""
    return False


class SyncClient(ClientBase):
    """A client whose calls block. Use it as a context manager, or ``close`` it."""

    def __init__(self, server: str, timeout: float) -> None:
        super().__init__(server, timeout)
        self._channel: Channel | None = None
        self._turn = Turn()
        """Whose call is at work at the connection."""
        forks.watch(self)
        self._connect(Deadline(min(timeout, FIRST_CONNECT_S)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The object may be used again: it connects anew."""
        if self._turn.owner == get_ident():
            # From inside of a call of this thread, as the handler of a signal may.
            self._drop_channel()
        else:
            self._in_turn(self._close, Deadline(self.timeout))

    def _close(self) -> None:
        self._drop_channel()

    @property
    def is_connected(self) -> bool:
        """Whether there was a connection at the last call."""
        return self._channel is not None

    # --- the connection -----------------------------------------------------------------------

    def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _connected(self, deadline: Deadline) -> Channel:
        """The connection, made anew if it is gone."""
        if self._channel is not None:
            return self._channel
        # A pull may wait for hours, but not for a server that is gone.
        return self._connect(deadline.within(self.timeout))

    def _in_child(self) -> None:
        self._channel = None
        self._turn = Turn()
        super()._in_child()

    def _connect(self, deadline: Deadline) -> Channel:
        backoff = Backoff()
        reason: MbctlError = ConnectionLost(address=self.server, reason="no answer in time")
        while True:
            try:
                return self._attempt(deadline)
            except MbctlError as error:
                # The last attempt has little time; why the one before it failed says more.
                reason = reason if isinstance(error, Timeout) else error
                pause = min(backoff.next_s(), deadline.remaining - LAST_ATTEMPT_S)
                if not error.retryable or pause <= 0:
                    if reason is error:
                        raise
                    raise reason from error
            nap(pause)

    def _attempt(self, deadline: Deadline) -> Channel:
        channel = Channel.connect(self.address, deadline.remaining)
        try:
            requests = self.opening()
            for request in requests:
                request.id = next(self._ids)
            channel.write([b"".join(map(wire.encode, requests))], deadline)
            self.opened([channel.reply(request.id, deadline) for request in requests])
            self._channel = channel
            self._reopened(channel, deadline)
        except BaseException:
            self._channel = None
            channel.close()
            raise
        return channel

    def _reopened(self, channel: Channel, deadline: Deadline) -> None:
        """What else a new connection needs; a publisher sends again here."""

    # --- whose turn it is ---------------------------------------------------------------------

    def _in_turn(
        self, work: Callable[[], T], deadline: Deadline, is_done: Callable[[], bool] = _never
    ) -> T:
        """Do ``work`` when no other thread is at work; nothing if it ``is_done`` before that.

        Raises:
            InvalidArgument: this thread is inside a call of this object already.
        """
        turn, thread = self._turn, get_ident()
        if turn.is_used_by(thread):
            what = type(self).__name__
            raise InvalidArgument(reason=f"this {what} is at work in a call below this one")
        try:
            return work() if self._take_turn(deadline, is_done) else cast(T, None)
        finally:
            # Without a call, so that no Ctrl-C comes in between.
            if turn.taken == {OWNER: thread}:
                del turn.taken[OWNER]
            if turn.waiting:
                turn.wake_next()

    def _take_turn(self, deadline: Deadline, is_done: Callable[[], bool]) -> bool:
        """Wait until it is this thread's turn, or ``is_done``, and then False."""
        return self._turn.take(deadline, is_done)

    # --- requests -----------------------------------------------------------------------------

    def _run(self, flow: Flow[T]) -> T:
        """Run a verb's flow to its answer, within the client's timeout."""
        deadline = Deadline(self.timeout)
        return self._in_turn(lambda: self._answer_of(flow, deadline), deadline)

    def _answer_of(self, flow: Flow[T], deadline: Deadline) -> T:
        """Run a verb's flow to its answer, in a turn."""
        try:
            request = next(flow)
            while True:
                try:
                    reply = self._exchange(request, deadline)
                except MbctlError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(reply)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _exchange(self, request: wire.Message, deadline: Deadline) -> wire.Message:
        """Send ``request`` and wait for its reply; again, if the connection is lost.

        Every request may be repeated. A pull or an ack that was answered unheard has
        nothing left to do the second time, which is what its reply then says.
        """

        request.id = next(self._ids)
        frame = to_frame(request)

        def attempt(channel: Channel, deadline: Deadline) -> wire.Message:
            again = self.was_retried and isinstance(request, wire.Pull)
            channel.write([self._shortened(request, deadline) if again else frame], deadline)
            return channel.reply(request.id, deadline)

        reply = self._surviving(attempt, deadline)
        if isinstance(reply, wire.Error):
            raise from_wire(reply.code, reply.details)
        return reply

    def _shortened(self, request: wire.Message, deadline: Deadline) -> bytes:
        """A pull that is repeated: it waits only for what is left of its time."""
        assert isinstance(request, wire.Pull)
        left_ms = round((deadline.remaining - self.timeout) * 1000)
        request.wait_ms = max(0, min(request.wait_ms, left_ms))
        return to_frame(request)

    def _surviving(self, attempt: Callable[[Channel, Deadline], T], deadline: Deadline) -> T:
        """Do ``attempt``, again on a new connection while the old ones are lost.

        Whatever stops it midway, a Ctrl-C above all, leaves the connection in an unknown
        place: it is closed, and the next call begins a new one.
        """
        self.was_retried = False
        backoff: Backoff | None = None
        while True:
            channel = self._channel or self._connected(deadline)
            try:
                return attempt(channel, deadline)
            except BaseException as error:
                self._drop_channel()
                if not is_survivable(error, channel.end) or deadline.remaining <= 0:
                    raise
            self.was_retried = True
            backoff = backoff or Backoff()
            nap(min(backoff.next_s(), deadline.remaining))

"""A publisher's sends that have no answer yet, in order, so that they can be sent again.

Pure: it numbers, keeps and answers; the face that owns it does the writing and reading.
"""

from collections.abc import Callable, Iterator

from mbctl.client.buffers import Buffers
from mbctl.client.packing import Packed, size_of
from mbctl.errors import MbctlError
from mbctl.model import Limits, Receipt


class PendingSend:
    """One numbered send. It is answered when ``answer`` is set."""

    __slots__ = (
        "answer",
        "batch",
        "count",
        "first_tried",
        "id",
        "sequence",
        "size",
        "told",
        "topic",
    )

    def __init__(self, topic: str, batch: Packed, count: int) -> None:
        self.sequence = 0
        """Its number in the session, from 1 up; 0 until it has one."""
        self.topic = topic
        self.batch = batch
        self.size = size_of(batch)
        """Its bytes."""
        self.count = count
        self.id = 0
        """The request's id on the present connection."""
        self.first_tried: float | None = None
        """When it was first written, in monotonic seconds; None before."""
        self.answer: Receipt | MbctlError | None = None
        self.told: Callable[[MbctlError | None], None] | None = None
        """Whom the asyncio face tells that there is an answer, or why there will be none."""

    def age_ms(self, now: float) -> int:
        """How long ago the first attempt was."""
        return 0 if self.first_tried is None else round((now - self.first_tried) * 1000)


class SendWindow:
    """The sends in flight, at most as many and as large as the server allows."""

    def __init__(self, buffers: Buffers | None = None, sequence: int = 0) -> None:
        self._buffers = buffers
        self._pending: dict[int, PendingSend] = {}
        self._by_id: dict[int, PendingSend] = {}
        self._bytes = 0
        self._sequence = sequence

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[PendingSend]:
        """The sends without an answer, in the order of their numbers."""
        return iter(list(self._pending.values()))

    def __contains__(self, send: PendingSend) -> bool:
        """Whether ``send`` waits for its answer."""
        return self._pending.get(send.sequence) is send

    def is_full(self, limits: Limits) -> bool:
        """Whether the next send has to wait for an answer to one before it."""
        # Half of what the server takes from a connection, so that it never has to stop
        # reading from this one.
        return (
            max(len(self._pending), len(self._by_id)) >= limits.sends_in_flight
            or self._bytes > limits.connection_bytes // 2
        )

    def add(self, topic: str, batch: Packed, count: int) -> PendingSend:
        """Number a send and keep it until it is answered."""
        send = PendingSend(topic, batch, count)
        self.number(send)
        return send

    def number(self, send: PendingSend) -> None:
        """Give ``send`` the next number, and keep it until it is answered."""
        assert send.sequence == 0
        self._sequence += 1
        self._pending[self._sequence] = send
        self._bytes += send.size
        send.sequence = self._sequence

    def written(self, send: PendingSend, id: int, now: float) -> None:
        """Note that ``send`` went out as request ``id``."""
        self._by_id.pop(send.id, None)
        send.id = id
        self._by_id[id] = send
        if send.first_tried is None:
            send.first_tried = now

    def answer(self, id: int, answer: Receipt | MbctlError) -> None:
        """Take the answer to request ``id``; nothing if that send was given up."""
        send = self._by_id.get(id)
        if send is not None:
            send.answer = answer
            self.drop(send)
            self._by_id.pop(id, None)
            if isinstance(answer, Receipt):
                # Whoever keeps the send for its receipt does not need its messages.
                batch, send.batch = send.batch, b""
                if self._buffers is not None and isinstance(batch, bytearray):
                    self._buffers.give_back(batch)

    def sent(self, id: int, offset: int, count: int) -> None:
        """Take the receipt for request ``id``; nothing if that send was given up."""
        send = self._by_id.get(id)
        if send is not None:
            self.answer(id, Receipt(send.topic, offset, count))

    def drop(self, send: PendingSend) -> None:
        """Forget ``send``: it is answered, or nobody will ask any more."""
        if self._pending.pop(send.sequence, None) is not None:
            self._by_id.pop(send.id, None)
            self._bytes -= send.size

    def abandon(self, send: PendingSend) -> None:
        """Do not repeat ``send``; until it is answered it counts as in flight."""
        if self._pending.pop(send.sequence, None) is not None:
            self._bytes -= send.size

    def disconnected(self) -> None:
        """Note that no send gets an answer on the connection that it was written to."""
        self._by_id.clear()

    def lost(self, send: PendingSend) -> None:
        """Note that ``send`` gets no answer on the connection that it was written to."""
        self._by_id.pop(send.id, None)

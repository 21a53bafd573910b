"""What a pull of the asyncio face returns: a Batch of Messages, and how they are acknowledged."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from mbctl.client.pulled import PulledBatch, PulledMessage
from mbctl.model import Range
from mbctl.wire.messages import Pulled


class Settler(Protocol):
    """What settles messages: the Subscriber that pulled them."""

    async def settle_ack(self, batch: "Batch", ranges: list[Range]) -> int:
        """Acknowledge, and wait until that is durable."""

    async def settle_nack(self, batch: "Batch", ranges: list[Range], delay: float) -> int:
        """Give back."""

    async def settle_extend(self, batch: "Batch", ranges: list[Range]) -> int:
        """Renew the lease."""


class Message(PulledMessage["Batch"], frozen=True, eq=False, gc=False):
    """One message. ``timestamp`` is nanoseconds since 1970; ``deliveries`` counts this one too."""

    async def ack(self) -> int:
        """Acknowledge this message alone; 1 if that was still open to us, else 0."""
        return await self.batch.ack_range(self.offset, self.offset + 1)

    async def nack(self, delay: float = 0.0) -> int:
        """Give this message back, to be delivered again after ``delay`` seconds."""
        return await self.batch.nack_range(self.offset, self.offset + 1, delay)

    async def extend(self) -> int:
        """Renew the lease of this message alone."""
        ranges = [(self.offset, self.offset + 1)]
        return await self.batch.settler.settle_extend(self.batch, ranges)


class Batch(PulledBatch[Message]):
    """The messages of one pull, in the order of their offsets. Empty when nothing came.

    Iterate for messages, or take ``payloads`` when nothing else is needed: that builds no
    message objects. What is cancelled while it settles is still open, and may be settled anew.
    """

    __slots__ = ("settler",)

    _message_type = Message

    def __init__(self, settler: Settler, topic: str, reply: Pulled, skipped: int = 0) -> None:
        super().__init__(topic, reply, skipped)
        self.settler = settler

    async def ack(self) -> int:
        """Acknowledge what is still open, and wait until that is durable; how many messages.

        Messages that were granted to someone else meanwhile do not count.
        """
        return await self._close(self.settler.settle_ack)

    async def nack(self, delay: float = 0.0) -> int:
        """Give back what is still open, to be delivered again after ``delay`` seconds."""

        def give_back(batch: "Batch", ranges: list[Range]) -> Awaitable[int]:
            return self.settler.settle_nack(batch, ranges, delay)

        return await self._close(give_back)

    async def extend(self) -> int:
        """Renew the lease of what is still open; how many messages are still leased to us."""
        return await self.settler.settle_extend(self, self.open_ranges) if self._open else 0

    async def _close(self, settle: Callable[["Batch", list[Range]], Awaitable[int]]) -> int:
        ranges = self.open_ranges
        if not ranges:
            return 0
        count = await settle(self, ranges)
        for first, next in ranges:
            self.close_range(first, next)
        return count

    async def ack_range(self, first: int, next: int) -> int:
        """Acknowledge ``first <= offset < next`` of this batch."""
        count = await self.settler.settle_ack(self, [(first, next)])
        self.close_range(first, next)
        return count

    async def nack_range(self, first: int, next: int, delay: float) -> int:
        """Give back ``first <= offset < next`` of this batch."""
        count = await self.settler.settle_nack(self, [(first, next)], delay)
        self.close_range(first, next)
        return count

"""The asyncio Pipeline: many sends of a Publisher in flight at once."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mbctl.client.deadline import Deadline
from mbctl.client.gathering import Gatherer, Part
from mbctl.client.packing import Key, Payload
from mbctl.errors import MbctlError

if TYPE_CHECKING:
    from mbctl.client.aio.publisher import Publisher


class Pipeline(Gatherer):
    """Gathers messages into batches and keeps many of them in flight.

    Leaving the block sends what is gathered, waits for all answers, and raises SendFailed
    if something was refused. If the block raises, what was gathered is dropped and what
    was sent stands. May be shared by tasks. What a cancelled call had gathered stays gathered.
    """

    def __init__(self, publisher: "Publisher") -> None:
        super().__init__(publisher.limits)
        self._publisher = publisher

    def _begin(self) -> None:
        super()._begin()
        self._ready: deque[Part] = deque()
        """Batches that are full and have not been sent."""
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._publisher._connected(Deadline(self._publisher.timeout))
        self._keep_to(self._publisher.limits)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.flush()
            return
        self._gathered.clear()
        self._ready.clear()
        if not self._publisher.is_connected:
            self._publisher._give_up(self._sends)

    async def send(
        self,
        topic: str,
        payload: Payload,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Gather one message.

        Raises:
            MessageTooLarge, InvalidArgument: this message cannot be sent; the pipeline goes
                on without it.
            SendFailed: very much has been refused; as from ``flush``.
            OutcomeUnknown, ConnectionLost, Timeout: what was gathered could not be sent.
        """
        if self._gather(topic, payload, key, headers):
            self._ready.extend(self._parts_of(topic))
            await self._send_ready()

    async def send_many(self, topic: str, payloads: Iterable[Payload]) -> None:
        """Send messages as one batch, or as several where one would be above a limit.

        Raises: as ``send``.
        """
        self._ready.extend(self._parts_of(topic))
        listed = self._checked(payloads)
        if listed:
            self._ready.extend(self._split(topic, listed))
        await self._send_ready()

    async def flush(self) -> None:
        """Send what is gathered and wait for all answers.

        Raises:
            SendFailed: some were refused; it holds them, and the pipeline starts anew.
            OutcomeUnknown: not all answers came in time.
            ConnectionLost, Timeout: what was gathered could not be sent.
        """
        for topic in list(self._gathered):
            self._ready.extend(self._parts_of(topic))
        async with self._turn:
            await self._submit_ready()
            await self._finish()

    async def _send_ready(self) -> None:
        if self._ready:
            async with self._turn:
                await self._submit_ready()

    async def _submit_ready(self) -> None:
        """Send the batches that are full, in order; one leaves the queue when it is sent."""
        publisher = self._publisher
        while self._ready:
            part = self._ready[0]
            try:
                send = await publisher._submit(*part, Deadline(publisher.timeout))
            except MbctlError:
                self._ready.clear()
                raise
            self._ready.popleft()
            self._sends.append(send)
            if self._is_to_flush():
                await self._finish()

    async def _finish(self) -> None:
        """Wait for all answers, and hand back what was refused."""
        publisher = self._publisher
        sends = self._sends
        try:
            await publisher._wait_for(sends, Deadline(publisher.timeout))
        finally:
            self._collect()
            self._sends = []
        self._raise_refused()

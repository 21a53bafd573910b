"""The asyncio Publisher."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Unpack

from mbctl.client import packing
from mbctl.client.aio.client import AioClient
from mbctl.client.aio.connection import Connection, Reply, anew, until
from mbctl.client.aio.pipeline import Pipeline
from mbctl.client.backoff import Backoff
from mbctl.client.deadline import Deadline
from mbctl.client.packing import Key, Packed, Payload, TopicKeywords
from mbctl.client.publishing import PublisherBase, unknown
from mbctl.client.window import PendingSend
from mbctl.errors import MbctlError, Timeout
from mbctl.model import Receipt, TopicSettings


class Publisher(PublisherBase, AioClient):
    """Sends messages. Each object is a session of its own; ``name`` is only a label.

    A send is numbered, so one that is repeated after a lost connection is stored once.
    May be shared by tasks: their sends go out in the order of the calls, without waiting
    for each other's answers.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._turn = asyncio.Lock()
        """Held by who sends next, from before it waits for room."""
        self._room: asyncio.Future[None] | None = None
        super().__init__(server, name, timeout)

    # --- verbs --------------------------------------------------------------------------------

    async def create_topic(
        self, topic: str, *, exist_ok: bool = True, **settings: Unpack[TopicKeywords]
    ) -> bool:
        """Create a topic; whether it was created now.

        ``settings`` are ``max_messages``, ``max_bytes``, ``max_age`` (s), ``retain_age`` (s),
        ``retain_bytes`` and ``when_full`` ("refuse" or "drop_oldest").

        Raises:
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            InvalidName, LimitExceeded, NotSupported: the server refuses it.
        """
        return await self._run(self._create_topic(topic, TopicSettings(**settings), exist_ok))

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic with its messages and subscriptions.

        Raises:
            TopicNotFound: there is none.
        """
        await self._run(self._delete_topic(topic))

    async def send(
        self,
        topic: str,
        payload: Payload,
        *,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Send one message and wait until it is stored; where.

        Text is encoded as UTF-8. A send that is cancelled is stored or not, and not repeated.

        Raises:
            TopicNotFound, TopicFull, DiskFull, MessageTooLarge: refused, nothing stored.
            OutcomeUnknown: the connection was lost and time ran out; it may be stored.
            ConnectionLost: it could not be sent at all.
        """
        return await self.send_many(
            topic,
            [packing.to_bytes(payload)],
            keys=None if key is None else [key],
            headers=None if headers is None else [headers],
        )

    async def send_many(
        self,
        topic: str,
        payloads: Iterable[Payload],
        *,
        keys: Sequence[Key | None] | None = None,
        headers: Sequence[Mapping[str, str] | None] | None = None,
    ) -> Receipt:
        """Send messages as one batch, stored and acknowledged as a unit; where it begins.

        Raises: as ``send``, and BatchTooLarge.
        """
        deadline = Deadline(self.timeout)
        if self.welcome is None:
            # The server's limits are not known before.
            await self._connected(deadline)
        listed = packing.to_payloads(payloads)
        batch = packing.pack(
            listed, packing.to_keys(keys), packing.to_headers(headers), self.limits
        )
        send = await self._submit(topic, batch, len(listed), deadline)
        await self._wait_for([send], deadline)
        if isinstance(send.answer, MbctlError):
            raise send.answer
        assert send.answer is not None
        return send.answer

    def pipeline(self) -> Pipeline:
        """Send many messages without waiting for each; leaving its block waits for all."""
        pipeline = Pipeline(self)
        self._pipelines.add(pipeline)
        return pipeline

    async def close(self) -> None:
        """Close the connection. Sends without an answer are not repeated any more."""
        self._check_closable()
        sends = list(self._window)
        self._give_up(sends)
        for send in sends:
            _tell(send, self._lost("it was closed here"))
        self._wake_room()
        await super().close()

    # --- sending ------------------------------------------------------------------------------

    async def _submit(
        self, topic: str, batch: Packed, count: int, deadline: Deadline
    ) -> PendingSend:
        """Number a send and write it; its answer comes later.

        Cancelled, it is as if it had never been called: nothing waits between number and write.
        """
        packing.to_text(topic, "topic")
        self._here()
        closes = self._closes
        await self._take_turn(deadline)
        try:
            while True:
                connection = await self._connected(deadline, closes)
                if self._window.is_full(self.limits):
                    await self._room_made(connection, deadline)
                elif connection.is_congested:
                    await connection.drained(deadline)
                else:
                    break
            send = self._window.add(topic, batch, count)
            self._write(send, connection)
        finally:
            self._turn.release()
        return send

    async def _take_turn(self, deadline: Deadline) -> None:
        """Wait for the sends that were called before this one to go out."""
        if not self._turn.locked():
            await self._turn.acquire()
            return
        try:
            async with asyncio.timeout(deadline.remaining):
                await self._turn.acquire()
        except TimeoutError as error:
            raise deadline.timeout("sending what came before") from error

    async def _room_made(self, connection: Connection, deadline: Deadline) -> None:
        """Wait until a send is answered, or the connection is lost."""
        self._room = asyncio.get_running_loop().create_future()
        try:
            await until(self._room, deadline, "the answers to earlier sends")
        except Timeout as error:
            # A server that does not answer in this time is as good as gone.
            connection.fail(self._lost(str(error)))
            raise
        finally:
            self._room = None

    def _write(self, send: PendingSend, connection: Connection) -> None:
        frame = self._frame_of(send)
        connection.post(send.id, frame, partial(self._take_answer, send))

    def _take_answer(self, send: PendingSend, reply: Reply) -> None:
        error = reply if isinstance(reply, MbctlError) else None
        if isinstance(reply, MbctlError):
            self._window.lost(send)
        else:
            self._note_answer(send.id, reply)
        _tell(send, error)
        self._wake_room()

    def _wake_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _wait_for(self, sends: list[PendingSend], deadline: Deadline) -> None:
        """Wait until all of ``sends`` are answered.

        Raises:
            OutcomeUnknown: some are not; nothing will repeat them any more.
        """
        try:
            for send in sends:
                if send.answer is None:
                    await self._answered(send, deadline)
        except BaseException as error:
            self._give_up(sends)
            if not isinstance(error, MbctlError):
                raise
            raise unknown(sends) from error
        if any(send.answer is None for send in sends):
            # The publisher was closed meanwhile.
            raise unknown(sends)

    async def _answered(self, send: PendingSend, deadline: Deadline) -> None:
        """Wait until ``send`` is answered or given up, connecting again if need be."""
        backoff = Backoff()
        while send.answer is None and send in self._window:
            connection = await self._connected(deadline)
            # A new connection may have brought the answer.
            error = await self._told(send, connection, deadline) if send.answer is None else None
            if error is None:
                continue
            if not self._survives(error, connection, deadline):
                raise anew(error)
            await asyncio.sleep(min(backoff.next_s(), max(deadline.remaining, 0)))

    async def _told(
        self, send: PendingSend, connection: Connection, deadline: Deadline
    ) -> MbctlError | None:
        """Wait until ``send`` is answered, or an error: why it will not be on ``connection``."""
        told: asyncio.Future[MbctlError | None] = asyncio.get_running_loop().create_future()

        def tell(error: MbctlError | None) -> None:
            if not told.done():
                told.set_result(error)

        send.told = tell
        try:
            return await until(told, deadline, "the answer")
        except Timeout as error:
            if send.answer is not None:
                return None
            # A server that does not answer in this time is as good as gone.
            connection.fail(self._lost(str(error)))
            raise
        finally:
            send.told = None

    def _give_up(self, sends: list[PendingSend]) -> None:
        # The server may be about to answer them: until then they count as in flight there.
        for send in sends:
            self._window.abandon(send)

    # --- a new connection -----------------------------------------------------------------------

    async def _reopened(self, connection: Connection, deadline: Deadline) -> None:
        for sends, are_more in self._bursts():
            for send in sends:
                self._write(send, connection)
            while are_more and sends and sends[0] in self._window:
                error = await self._told(sends[0], connection, deadline)
                if error is not None:
                    raise anew(error)

    def _rebound(self) -> None:
        super()._rebound()
        self._turn = asyncio.Lock()
        self._room = None


def _tell(send: PendingSend, error: MbctlError | None) -> None:
    if send.told is not None:
        send.told(error)

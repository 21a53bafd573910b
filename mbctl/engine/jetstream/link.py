"""The connection to the cluster: requests by callback, streams of replies, and reconnecting.

It is nats-py's connection, used in three ways only: publish, one subscription for all that is
answered, and one for events. What nats-py adds on top of that is not used: it waits for each
answer in turn, and what it has waiting has no bound in time.

A request whose connection breaks is told so at once.
"""

import asyncio
import contextlib
import itertools
import secrets
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from mbctl.engine.jetstream.address import Address
from mbctl.errors import ServerError

_SWEEP_S = 0.1
_CONNECT_S = 10.0
_CLOSE_S = 2.0
# What may wait to be written before a publisher of the link waits for the socket.
_PENDING_BYTES = 8 * 1024 * 1024
_NO_RESPONDERS = 503

Headers = dict[str, str]


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What came back; ``status`` is 0 for a message, and ``LOST`` if nothing came in time."""

    status: int
    body: bytes
    reply: str = ""
    """Where the message wants its acknowledgement."""
    headers: Headers | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it is not known what became of the request, or that nobody took it."""
        return self.status in (LOST, _NO_RESPONDERS)

    @property
    def has_no_taker(self) -> bool:
        """Whether nobody was there to take the request: a leader is missing, or the stream."""
        return self.status == _NO_RESPONDERS


LOST = -1
_LOST = Reply(LOST, b"")

Answer = Callable[[Reply], None]


Heard = Callable[[str, Reply], None]
"""What is called with the name of a request and what is said of it, or with a delivery and ""."""


class Listening:
    """Deliveries of one consumer are heard, until ``close``."""

    def __init__(self, inbox: str, subscription: Subscription) -> None:
        self.inbox = inbox
        self._subscription = subscription

    async def close(self) -> None:
        """Hear no more."""
        try:
            await self._subscription.unsubscribe()
        except NatsError:
            # The connection is closed, or this is.
            return


class _Request:
    __slots__ = ("answer", "is_stream", "until")

    def __init__(self, answer: Answer, until: float, is_stream: bool) -> None:
        self.answer = answer
        self.until = until
        self.is_stream = is_stream


class Link:
    """One connection to the cluster, which comes back by itself."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.on_reconnect: Callable[[], None] = _nothing
        self.on_event: Callable[[bytes, str], None] = _ignore
        self.on_closed: Callable[[str], None] = _ignore_text
        self.on_disconnect: Callable[[], None] = _nothing
        self._loop = asyncio.get_running_loop()
        self._client = Client()
        self.name = secrets.token_hex(11)
        self._inbox = f"_INBOX.{self.name}"
        self._tokens = itertools.count(1)
        self._requests: dict[str, _Request] = {}
        self._out: deque[tuple[str, bytes, str, Headers | None]] = deque()
        self._has_output = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._patience: asyncio.Timeout | None = None
        """While it connects for the first time: until when."""
        self._last_error: Exception | None = None

    # --- life -----------------------------------------------------------------------------

    async def open(self, events: str) -> None:
        """Connect, and hear ``events``.

        Raises:
            ServerError: no server of the cluster can be reached, or none lets us in.
        """
        address = self.address
        options: dict[str, Any] = {}
        if address.certificate is not None or address.authority is not None or address.is_tls:
            options["tls"] = _tls_context(address)
        if address.user is not None:
            options.update(user=address.user, password=address.password)
        if address.token is not None:
            options["token"] = address.token
        if address.credentials is not None:
            options["user_credentials"] = address.credentials
        try:
            async with asyncio.timeout(_CONNECT_S) as patience:
                self._patience = patience
                await self._client.connect(
                    servers=list(address.servers),
                    name="mbctl",
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=cast(int, 0.1),
                    connect_timeout=2,
                    ping_interval=1,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    flush_timeout=10,
                    skip_subject_validation=True,
                    allow_reconnect=True,
                    error_cb=self._note_error,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    closed_cb=self._closed,
                    **options,
                )
        except (NatsError, OSError, TimeoutError, ssl.SSLError, ValueError) as error:
            reason = str(self._last_error or error) or type(error).__name__
            raise ServerError(
                reason=f"no connection to the cluster at {address}: {reason}; "
                "start one with: mbctl cluster start, or mend the --engine"
            ) from error
        self._patience = None
        # No bound on what waits: it is acted on at once, and what is asked for is bounded.
        for subject, call in ((f"{self._inbox}.*", self._received), (events, self._event)):
            await self._client.subscribe(
                subject, cb=call, pending_msgs_limit=0, pending_bytes_limit=0
            )
        self._tasks.append(self._loop.create_task(self._write()))
        self._sweep = self._loop.call_later(_SWEEP_S, self._sweep_once)

    async def close(self) -> None:
        """Send what is to be sent, and let go."""
        self._is_closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_S):
                until = self._loop.time() + _CLOSE_S
                while self._out and self._client.is_connected and self._loop.time() < until:
                    await self._publish(*self._out.popleft())
                if self._client.is_connected:
                    await self._client.flush(1)
        except (NatsError, OSError, TimeoutError):
            pass
        # It waits until a node takes what was written, which one that stands still never does.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return bool(self._client.is_connected)

    @property
    def is_awaiting(self) -> bool:
        """Whether something that was asked for has not been answered."""
        return bool(self._requests)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of the server that we are connected to."""
        version = self._client.connected_server_version
        return version.major, version.minor

    @property
    def max_payload(self) -> int:
        """The largest message that the servers take, headers included."""
        return int(self._client.max_payload)

    # --- requests -------------------------------------------------------------------------

    def publish(
        self, subject: str, body: bytes, *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Send a message; it goes nowhere if there is no connection."""
        self._out.append((subject, body, reply, headers))
        self._has_output.set()

    def expect(self, answer: Answer, timeout: float) -> str:
        """Where to have one reply sent; ``answer`` is called once, with it or with a lost one."""
        return self._expect(answer, timeout, is_stream=False)[0]

    def open_stream(self, answer: Answer, timeout: float) -> tuple[str, str]:
        """Where to have many replies sent, and the name by which ``close_stream`` ends that.

        After ``timeout``, or when the connection breaks, the last of them is a lost one.
        """
        return self._expect(answer, timeout, is_stream=True)

    def close_stream(self, name: str) -> None:
        """Hear no more of it."""
        self._requests.pop(name, None)

    async def ask(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        headers: Headers | None = None,
        again_s: float | None = None,
    ) -> Reply:
        """Send a request and wait for its reply, which may be a lost one.

        It is sent again every ``again_s`` seconds, and the first reply to any of them counts.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()

        def answer(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        reply_to = self.expect(answer, timeout)
        while True:
            self.publish(subject, body, reply=reply_to, headers=headers)
            await asyncio.wait([future], timeout=again_s)
            if future.done():
                return future.result()

    def _expect(self, answer: Answer, timeout: float, *, is_stream: bool) -> tuple[str, str]:
        name = str(next(self._tokens))
        until = self._loop.time() + timeout
        self._requests[name] = _Request(answer, until, is_stream)
        if not self.is_connected:
            self._loop.call_soon(self._lose, name)
        return f"{self._inbox}.{name}", name

    def _lose(self, name: str) -> None:
        request = self._requests.pop(name, None)
        if request is not None:
            request.answer(_LOST)

    def _sweep_once(self) -> None:
        now = self._loop.time()
        for name in [name for name, one in self._requests.items() if one.until <= now]:
            self._lose(name)
        self._sweep = self._loop.call_later(_SWEEP_S, self._sweep_once)

    # --- deliveries -----------------------------------------------------------------------

    async def listen(self, heard: Heard) -> "Listening":
        """Hear what a consumer delivers, which comes under the subject that it was stored with."""
        inbox = f"_INBOX.{self.name}-{next(self._tokens)}"

        async def received(message: Msg) -> None:
            subject = message.subject
            request = subject[len(inbox) + 1 :] if subject.startswith(inbox) else ""
            heard(request, _reply_of(message))

        subscription = await self._client.subscribe(
            f"{inbox}.*", cb=received, pending_msgs_limit=0, pending_bytes_limit=0
        )
        return Listening(inbox, subscription)

    # --- what comes and goes --------------------------------------------------------------

    async def _write(self) -> None:
        # nats-py may swallow that this is cancelled, while it waits for the socket.
        while not self._is_closing:
            await self._has_output.wait()
            self._has_output.clear()
            while self._out and not self._is_closing:
                try:
                    await self._publish(*self._out.popleft())
                except (NatsError, OSError):
                    # It broke; who waits for an answer is told by what notices that.
                    continue

    async def _publish(
        self, subject: str, body: bytes, reply: str, headers: Headers | None
    ) -> None:
        if self._client.is_connected:
            await self._client.publish(subject, body, reply=reply, headers=headers)

    async def _received(self, message: Msg) -> None:
        name = message.subject.rpartition(".")[2]
        reply = _reply_of(message)
        request = self._requests.get(name)
        if request is None:
            return
        if not request.is_stream:
            del self._requests[name]
        request.answer(reply)

    async def _event(self, message: Msg) -> None:
        self.on_event(message.data, message.reply)

    async def _note_error(self, error: Exception) -> None:
        """Remember what is wrong; at first, do not try again what will be refused again."""
        self._last_error = error
        is_refusal = isinstance(error, ssl.SSLError) or "uthoriz" in str(error)
        if self._patience is not None and is_refusal:
            self._patience.reschedule(0)

    async def _disconnected(self) -> None:
        for name in list(self._requests):
            self._lose(name)
        self.on_disconnect()

    async def _reconnected(self) -> None:
        self.on_reconnect()

    async def _closed(self) -> None:
        if not self._is_closing:
            self.on_closed(str(self._client.last_error or "the connection was closed"))


def _reply_of(message: Msg) -> Reply:
    headers = message.headers
    status = int(headers["Status"]) if headers and "Status" in headers else 0
    return Reply(status, message.data, message.reply, headers)


def _tls_context(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.authority)
    if address.certificate is not None:
        context.load_cert_chain(address.certificate, address.key)
    return context


def _nothing() -> None:
    """Nobody is to be told."""


def _ignore(_body: bytes, _reply: str) -> None:
    """Nobody is to be told."""


def _ignore_text(_: str) -> None:
    """Nobody is to be told."""

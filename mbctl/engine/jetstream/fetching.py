"""How batches come from a consumer: one request at a time, and what arrived of it.

A request is a long poll: JetStream answers with what there is, up to what was asked for, and
then says that there is no more; with nothing, when the first message comes or the time is over.

Whether that is known to be all, is what a pull waits for before it is answered with less than
it asked for.
"""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from mbctl.engine.jetstream.api import Json
from mbctl.engine.jetstream.link import Listening, Reply
from mbctl.model import KIB, NS_PER_S

if TYPE_CHECKING:
    from mbctl.engine.jetstream.reader import Reader

# How long JetStream waits at most: when its leader dies, nobody says so.
_EXPIRES_S = 3.0
# What its last word may take after that.
_GRACE_S = 0.75
_NO_WAIT_S = 1.0
# So many batches are asked for at first, when it is not known how large they are.
_FIRST = 4
_BATCHES_MAX = 2_000
# Before asking again where nobody was there to ask.
_PAUSE_S = 0.1

_encode = msgspec.json.Encoder().encode


class Delivery(msgspec.Struct, frozen=True):
    """What JetStream says of a message it delivers, in where it wants it acknowledged."""

    delivered: int
    sequence: int
    consumer_sequence: int
    timestamp: int
    pending: int


def delivery_of(reply: str) -> Delivery:
    """Read ``$JS.ACK.[domain.account.]stream.consumer.delivered.sequence.…``."""
    parts = reply.split(".")
    first = 4 if len(parts) == 9 else 6
    return Delivery(*map(int, parts[first : first + 5]))


class Fetching:
    """The request under way for one reader, and what is known of what is left."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self._listening: Listening | None = None
        self._request = ""
        """The name of the request under way; empty if there is none."""
        self._count = 0
        self._waits = False
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0
        self._has_come = False
        self._came_meanwhile: list[Reply] = []
        self._room = _FIRST
        self._mean_count = 1.0
        self._mean_size = 0.0
        self.is_dry = False
        """Whether there was nothing more when it was asked last."""
        self.is_gone = False
        """Whether the consumer may be gone."""
        self.not_before = 0.0
        """When it may be asked again, after nobody was there."""

    @property
    def is_under_way(self) -> bool:
        """Whether something is expected."""
        return self._request != "" or self._reader.recalling.is_busy

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for something to come, and nothing has."""
        return self._waits and not (
            self._request == "" or self._has_come or self._reader.recalling.is_busy
        )

    async def begin(self, *, messages: int, size: int, wait_s: float) -> None:
        """Ask for about so many messages and bytes; wait so long for the first."""
        assert not self.is_under_way
        reader, link = self._reader, self._reader.parts.link
        self._left = self._batches_for(messages, size)
        self._has_come, self.is_dry = False, False
        self._waits = wait_s > 0
        self._count += 1
        name = self._request = str(self._count)
        request: Json = {"batch": self._left, "no_wait": True}
        request["max_bytes"] = max(size, link.max_payload + 64 * KIB)
        timeout_s = _NO_WAIT_S
        if wait_s > 0:
            expires_s = max(0.01, min(wait_s, _EXPIRES_S))
            request["expires"] = round(expires_s * NS_PER_S)
            timeout_s = expires_s + _GRACE_S
        if self._listening is None:
            self._listening = await link.listen(self._heard)
            if name != self._request:
                # The subscription was moved meanwhile.
                return
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._lose, name)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{reader.topic.stream}.{reader.consumer}"
        reply_to = f"{self._listening.inbox}.{name}"
        link.publish(subject, _encode(request), reply=reply_to)

    def _batches_for(self, messages: int, size: int) -> int:
        by_size = size / self._mean_size if self._mean_size else _BATCHES_MAX
        wanted = min(messages / self._mean_count, by_size, self._room, _BATCHES_MAX)
        return max(1, round(wanted))

    def stop(self) -> None:
        """Expect nothing more."""
        self._request = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """What was asked of a consumer that is another now."""
        self.stop()
        self._came_meanwhile.clear()
        self.is_dry = self.is_gone = False

    async def close(self) -> None:
        """Hear no more of the consumer."""
        self.stop()
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.close()

    def lose(self) -> None:
        """What was asked for will not come."""
        if self._request:
            self._lose(self._request)

    def _lose(self, name: str) -> None:
        if name == self._request:
            self._reader.mending.doubt()
            self._pause()
            self._end()

    def _pause(self) -> None:
        self.not_before = asyncio.get_running_loop().time() + _PAUSE_S

    # --- what comes -----------------------------------------------------------------------

    def _heard(self, request: str, reply: Reply) -> None:
        if reply.status == 0:
            self._deliver(reply)
            return
        if request != self._request or reply.status == 100:
            return
        if reply.is_lost:
            self._reader.mending.doubt()
            self.is_gone = reply.has_no_taker
            self._pause()
        elif reply.status == 409:
            text = (reply.headers or {}).get("Description", "")
            if text == "Batch Completed":
                # Said ahead of what it is about, which waits for the other nodes.
                return
            if "MaxBytes" not in text:
                # Its leader ends, or the consumer does.
                self._reader.mending.doubt()
            self.is_gone = "Deleted" in text
            self._pause()
        else:
            self.is_dry = True
        self._end()

    def _end(self) -> None:
        self.stop()
        self._reader.wake()

    def go_on(self) -> None:
        """Take what came since an ephemeral one was moved: it is numbered from 1 again."""
        came, self._came_meanwhile = self._came_meanwhile, []
        self.is_dry = False
        first = [at for at, one in enumerate(came) if delivery_of(one.reply).consumer_sequence == 1]
        for reply in came[first[-1] :] if first else ():
            self._deliver(reply)

    def _deliver(self, reply: Reply) -> None:
        reader = self._reader
        if not reader.is_of(reply.reply):
            # The subscription was moved, and has another consumer.
            return
        if reader.is_paused:
            self._came_meanwhile.append(reply)
            return
        delivery = delivery_of(reply.reply)
        self._has_come = True
        self._left -= 1
        self._room = min(2 * self._room, _BATCHES_MAX)
        is_next = reader.is_next(delivery)
        held = reader.take(reply, delivery)
        if held is not None:
            self._mean_count += (held.count - self._mean_count) / 8
            self._mean_size += (held.size - self._mean_size) / (8 if self._mean_size else 1)
            if is_next:
                reader.keep(held)
            else:
                reader.recalling.begin(held)
        if self._left <= 0 and self._request:
            self.is_dry = delivery.pending == 0
            self._end()

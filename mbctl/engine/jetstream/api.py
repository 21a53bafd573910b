"""The requests of JetStream's API that the engine makes, each tried until it is answered.

All of them may be made again: what was done already is found done.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from mbctl.engine.jetstream.attempts import Attempts
from mbctl.engine.jetstream.link import Headers, Link, Reply
from mbctl.errors import DiskFull, MbctlError, OutcomeUnknown, ServerError, Timeout

# How long all attempts may take together: an election takes up to 9 s.
_PATIENCE_S = 15.0
# How long a node may take to hear of a new stream, and a new leader to hear of all nodes.
_HEARD_S = 2.0
_OFFLINE_S = 5.0
# How long the first attempt of a change may take, the only one whose outcome is always clear.
_PUT_S = 0.5

# Error codes of JetStream. Source: server/errors.json of nats-server.
CONSUMER_NOT_FOUND = 10014
CONSUMER_EXISTS = (10013, 10148)
MESSAGE_NOT_FOUND = 10037
STREAM_EXISTS = 10058
STREAM_NOT_FOUND = 10059
WRONG_LAST_SEQUENCE = (10071, 10164)
TOPIC_FULL = 10077
RESET_BELOW_START = 10204
DUPLICATE_IN_BATCH = 10201
_NO_ROOM = {10002, 10023, 10028, 10047, 10120, 10121}
# What is over soon: no leader, a follower that catches up, one that is restarted; and a message
# whose first attempt is still being stored.
_DUPLICATE_IN_PROCESS = 10158
_TEMPORARY = {10008, 10009, 10012, 10065, 10118, _DUPLICATE_IN_PROCESS}

Json = dict[str, Any]


class ApiError(Exception):
    """What JetStream refuses a request with."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description

    def translated(self) -> MbctlError:
        """The same as an error of ours, where it means nothing more special."""
        return error_of(self.code, self.description)


def translated(error: MbctlError | ApiError) -> MbctlError:
    """What is refused by us or by JetStream as an error of ours."""
    return error.translated() if isinstance(error, ApiError) else error


def error_of(code: int, description: str) -> MbctlError:
    """An error of JetStream's as one of ours."""
    if code in _NO_ROOM:
        return DiskFull(size="the cluster", limit="what it may")
    return ServerError(reason=f"the cluster refused: {description} ({code})")


class Api:
    """JetStream's API over one link."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def call(self, verb: str, request: Json | None = None) -> Json:
        """Make a request.

        Raises:
            ApiError: it is refused.
            Timeout: the cluster did not answer.
        """
        body = b"" if request is None else msgspec.json.encode(request)
        reply = await self.ask(f"$JS.API.{verb}", body)
        answer: Json = msgspec.json.decode(reply.body)
        check(answer)
        return answer

    async def ask(
        self,
        subject: str,
        body: bytes,
        *,
        headers: Headers | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> Reply:
        """Send until there is a reply that is none of a cluster in an election.

        Raises:
            Timeout: there was none.
        """
        attempts = Attempts(self.link, patience_s)
        while True:
            reply = await attempts.ask(subject, body, headers=headers)
            if not reply.is_lost and not _is_temporary(reply.body):
                return reply
            if attempts.are_over:
                raise Timeout(what="the cluster's answer", seconds=f"{patience_s:g}")
            await attempts.pause()

    async def maybe(self, verb: str, request: Json | None, missing: int) -> Json | None:
        """Make a request; None if it is refused because what it is about is not there."""
        try:
            return await self.call(verb, request)
        except ApiError as error:
            if error.code == missing:
                return None
            raise

    async def certain(self, verb: str, request: Json | None, missing: int) -> Json | None:
        """The same about a stream that is there: a node may hear of a new one a moment late."""
        attempts = Attempts(self.link, _HEARD_S)
        while True:
            try:
                return await self.maybe(verb, request, missing)
            except ApiError as error:
                if error.code != STREAM_NOT_FOUND or attempts.are_over:
                    raise
            await attempts.pause()

    # --- streams and consumers ------------------------------------------------------------

    async def create_stream(self, config: Json) -> Json:
        """Make a stream, if it is not there as it is wanted; its state.

        A leader that is new, or whose cluster is, may take a node for offline at first.
        """
        attempts = Attempts(self.link, _OFFLINE_S)
        while True:
            try:
                return await self.call(f"STREAM.CREATE.{config['name']}", config)
            except ApiError as error:
                if "offline" not in error.description or attempts.are_over:
                    raise
            await attempts.pause()

    async def stream(self, stream: str) -> Json | None:
        """What a stream is; None if there is none."""
        return await self.maybe(f"STREAM.INFO.{stream}", None, STREAM_NOT_FOUND)

    async def consumer(self, stream: str, consumer: str) -> Json | None:
        """What a consumer is; None if there is none, or no such stream."""
        try:
            return await self.maybe(f"CONSUMER.INFO.{stream}.{consumer}", None, CONSUMER_NOT_FOUND)
        except ApiError as error:
            if error.code == STREAM_NOT_FOUND:
                return None
            raise

    async def pages(self, verb: str, key: str, request: Json) -> AsyncIterator[Json]:
        """The items of a list that comes in pages.

        Raises:
            Timeout: something is missing in it, as no leader of that answers.
        """
        offset, missing = 0, False
        while True:
            page = await self.call(verb, {**request, "offset": offset})
            items = page.get(key) or []
            missing = missing or bool(page.get("missing"))
            for item in items:
                yield item
            offset += len(items)
            if not items or offset >= page["total"]:
                break
        if missing:
            raise Timeout(what="the answer of all nodes", seconds=f"{_PATIENCE_S:g}")

    async def consumer_names(self, stream: str) -> list[str]:
        """The names of a stream's consumers."""
        names = self.pages(f"CONSUMER.NAMES.{stream}", "consumers", {})
        return [str(name) async for name in names]

    # --- key-value entries ----------------------------------------------------------------

    async def get(self, key: str, bucket: str) -> tuple[bytes, int]:
        """The value of an entry and its revision; nothing and 0 if there is none.

        It is asked of the leader, as others may not have heard of the last change.
        """
        request = {"last_by_subj": key}
        found = await self.certain(f"STREAM.MSG.GET.{bucket}", request, MESSAGE_NOT_FOUND)
        if found is None:
            return b"", 0
        message = found["message"]
        return msgspec.convert(message.get("data", ""), bytes, strict=False), message["seq"]

    async def put(self, key: str, value: bytes, revision: int) -> int | None:
        """Change an entry that still has ``revision``; its new one, or None if it has another.

        Raises:
            OutcomeUnknown: the cluster did not answer.
            DiskFull: it has no room.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        is_first = True
        try:
            reply = await self.link.ask(key, value, timeout=_PUT_S, headers=headers)
            if reply.is_lost or _is_temporary(reply.body):
                is_first = False
                reply = await self.ask(key, value, headers=headers)
        except Timeout as error:
            raise OutcomeUnknown(what="the change") from error
        answer: Json = msgspec.json.decode(reply.body)
        refusal = answer.get("error")
        if refusal is None:
            return int(answer["seq"])
        if refusal.get("err_code") not in WRONG_LAST_SEQUENCE:
            raise error_of(refusal.get("err_code", 0), refusal.get("description", "?"))
        if not is_first:
            # The attempt before may have been the one that changed it.
            found, now = await self.get(key, key_bucket(key))
            if found == value:
                return now
        return None

    async def remove(self, bucket: str, keys: str, revision: int | None = None) -> None:
        """Remove the entries of these keys; with ``revision`` none that was changed after it."""
        newest = {} if revision is None else {"seq": revision + 1}
        await self.call(f"STREAM.PURGE.{bucket}", {"filter": keys, **newest})


def key_bucket(key: str) -> str:
    """The stream that holds an entry."""
    return f"KV_{key.split('.')[1]}"


def check(answer: Json) -> None:
    """Raise the refusal that an answer is, if it is one."""
    error = answer.get("error")
    if error is not None:
        raise ApiError(error.get("err_code", 0), error.get("description", "?"))


def is_temporary(code: int) -> bool:
    """Whether a refusal is one that is over soon."""
    return code in _TEMPORARY


def _is_temporary(body: bytes) -> bool:
    # What is asked for directly comes as it was sent, and may have anything in it: no batch begins
    # as an object of JSON does.
    if body[:1] != b"{" or b'"error"' not in body[:400]:
        return False
    answer: Json = msgspec.json.decode(body)
    return is_temporary((answer.get("error") or {}).get("err_code", 0))

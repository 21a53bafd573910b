"""The asyncio Admin: looks at topics, subscriptions and the server, and removes things."""

import asyncio
import time
from collections.abc import Iterable
from typing import Unpack

from mbctl.client.aio.client import AioClient
from mbctl.client.packing import StartLike, TopicKeywords
from mbctl.client.pulled import Peeked
from mbctl.client.saving import BackupFile, BackupTarget
from mbctl.client.tending import AdminBase, Progress
from mbctl.model import ServerStatus, Sought, SubscriptionInfo, TopicHolds, TopicInfo, TopicSettings
from mbctl.wire import messages as wire


class Admin(AdminBase, AioClient):
    """Asks a server about itself. Registers nothing."""

    def __init__(self, server: str = "127.0.0.1:5555", *, timeout: float = 30.0) -> None:
        super().__init__(server, timeout)

    async def topics(self) -> list[TopicInfo]:
        """All topics, by name."""
        return await self._run(self._topics())

    async def topic(self, name: str) -> TopicInfo:
        """One topic.

        Raises:
            TopicNotFound: there is none.
        """
        return await self._run(self._topic(name))

    async def create_topic(
        self, name: str, *, exist_ok: bool = True, **settings: Unpack[TopicKeywords]
    ) -> bool:
        """Create a topic, as ``Publisher.create_topic`` does; whether it was created now."""
        return await self._run(self._create_topic(name, TopicSettings(**settings), exist_ok))

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with its messages and subscriptions.

        Raises:
            TopicNotFound: there is none.
        """
        await self._run(self._delete_topic(name))

    async def purge_topic(self, name: str) -> int:
        """Give up all messages of a topic, read or not; how many it had. Subscriptions stay.

        Raises:
            TopicNotFound: there is none.
        """
        return await self._run(self._purge_topic(name))

    async def peek(self, topic: str, offset: StartLike = "earliest", count: int = 100) -> Peeked:
        """Look at up to ``count`` messages from ``offset`` on, without a subscription.

        ``offset`` may be "earliest", "new" or a datetime too. Nothing is granted or counted.

        Raises:
            TopicNotFound: there is none.
            OffsetOutOfRange, InvalidArgument: there is no such place.
        """
        return await self._run(self._peek(topic, offset, count))

    async def why(self, name: str) -> TopicHolds:
        """Which subscriptions keep a topic's messages alive, the one furthest behind first.

        Raises:
            TopicNotFound: there is none.
        """
        return await self._run(self._why(name))

    async def subscriptions(self, topic: str | None = None) -> list[SubscriptionInfo]:
        """All subscriptions, or those of one topic.

        Raises:
            TopicNotFound: there is no such topic.
        """
        return await self._run(self._subscriptions(topic))

    async def subscription(self, topic: str, subscriber: str) -> SubscriptionInfo:
        """One subscription.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        return await self._run(self._subscription(topic, subscriber))

    async def seek(self, topic: str, subscriber: str, start: StartLike) -> Sought:
        """Move a subscription to ``start``, back or forward; where it stands then.

        ``start`` is an offset, "new", "earliest" or a datetime. What its subscriber has pulled
        before cannot be acknowledged any more.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
            OffsetOutOfRange, InvalidArgument: there is no such place.
        """
        return await self._run(self._seek(topic, subscriber, start))

    async def release(
        self, topic: str, subscriber: str, offsets: Iterable[int] | None = None
    ) -> int:
        """Let parked messages be delivered again, all or those at ``offsets``; how many.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        return await self._run(self._release(topic, subscriber, offsets))

    async def drop(self, topic: str, subscriber: str, offsets: Iterable[int] | None = None) -> int:
        """Give parked messages up for a subscription, all or those at ``offsets``; how many.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        return await self._run(self._drop(topic, subscriber, offsets))

    async def delete_subscription(self, topic: str, subscriber: str) -> None:
        """Delete a subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        await self._run(self._delete_subscription(topic, subscriber))

    async def status(self) -> ServerStatus:
        """How the server is."""
        return await self._run(self._status())

    async def backup(
        self,
        target: BackupTarget,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Write a backup of all that the server has on its disk; how many bytes it has.

        ``target`` is a path, or a file to write to, which is done in another thread. At a path
        it appears when it is whole and on the disk, and only its owner may read it.
        ``progress`` is told now and then how many bytes are done, and of how many.

        Raises:
            NotSupported: the server keeps nothing on a disk.
            InvalidArgument: there is something at the path, and not ``overwrite``.
            LimitExceeded: too many backups are read at the moment.
            ConnectionLost: the connection broke; a backup begins anew.
        """
        with self._one_backup(), BackupFile(target, overwrite=overwrite) as file:
            try:
                position, size = 0, 1
                while position < size:
                    part = await self._run(self._backup_part(position))
                    await asyncio.to_thread(file.write, part.content)
                    position, size = position + len(part.content), part.size
                    if progress is not None:
                        progress(position, size)
            except BaseException:
                if self._connection is not None and self._connection.is_open:
                    self._connection.tell(wire.GetBackup(next(self._ids), None))
                raise
            await asyncio.to_thread(file.finish)
        return position

    async def ping(self) -> float:
        """Seconds that a round trip to the server takes now."""
        begin = time.perf_counter()
        await self._run(self._ping())
        return time.perf_counter() - begin

"""The sync Admin: looks at topics, subscriptions and the server, and removes what is not wanted."""

import time
from collections.abc import Iterable
from typing import Unpack

from mbctl.client.packing import StartLike, TopicKeywords
from mbctl.client.pulled import Peeked
from mbctl.client.saving import BackupFile, BackupTarget
from mbctl.client.sync import SyncClient
from mbctl.client.tending import AdminBase, Progress
from mbctl.model import ServerStatus, Sought, SubscriptionInfo, TopicHolds, TopicInfo, TopicSettings


class Admin(AdminBase, SyncClient):
    """Asks a server about itself. Registers nothing."""

    def __init__(self, server: str = "127.0.0.1:5555", *, timeout: float = 30.0) -> None:
        super().__init__(server, timeout)

    def topics(self) -> list[TopicInfo]:
        """All topics, by name."""
        return self._run(self._topics())

    def topic(self, name: str) -> TopicInfo:
        """One topic.

        Raises:
            TopicNotFound: there is none.
        """
        return self._run(self._topic(name))

    def create_topic(
        self, name: str, *, exist_ok: bool = True, **settings: Unpack[TopicKeywords]
    ) -> bool:
        """Create a topic, as ``Publisher.create_topic`` does; whether it was created now."""
        return self._run(self._create_topic(name, TopicSettings(**settings), exist_ok))

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its messages and subscriptions.

        Raises:
            TopicNotFound: there is none.
        """
        self._run(self._delete_topic(name))

    def purge_topic(self, name: str) -> int:
        """Give up all messages of a topic, read or not; how many it had. Subscriptions stay.

        Raises:
            TopicNotFound: there is none.
        """
        return self._run(self._purge_topic(name))

    def peek(self, topic: str, offset: StartLike = "earliest", count: int = 100) -> Peeked:
        """Look at up to ``count`` messages from ``offset`` on, without a subscription.

        ``offset`` may be "earliest", "new" or a datetime too. Nothing is granted or counted.

        Raises:
            TopicNotFound: there is none.
            OffsetOutOfRange, InvalidArgument: there is no such place.
        """
        return self._run(self._peek(topic, offset, count))

    def why(self, name: str) -> TopicHolds:
        """Which subscriptions keep a topic's messages alive, the one furthest behind first.

        Raises:
            TopicNotFound: there is none.
        """
        return self._run(self._why(name))

    def subscriptions(self, topic: str | None = None) -> list[SubscriptionInfo]:
        """All subscriptions, or those of one topic.

        Raises:
            TopicNotFound: there is no such topic.
        """
        return self._run(self._subscriptions(topic))

    def subscription(self, topic: str, subscriber: str) -> SubscriptionInfo:
        """One subscription.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        return self._run(self._subscription(topic, subscriber))

    def seek(self, topic: str, subscriber: str, start: StartLike) -> Sought:
        """Move a subscription to ``start``, back or forward; where it stands then.

        ``start`` is an offset, "new", "earliest" or a datetime. What its subscriber has pulled
        before cannot be acknowledged any more.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
            OffsetOutOfRange, InvalidArgument: there is no such place.
        """
        return self._run(self._seek(topic, subscriber, start))

    def release(self, topic: str, subscriber: str, offsets: Iterable[int] | None = None) -> int:
        """Let parked messages be delivered again, all or those at ``offsets``; how many.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        return self._run(self._release(topic, subscriber, offsets))

    def drop(self, topic: str, subscriber: str, offsets: Iterable[int] | None = None) -> int:
        """Give parked messages up for a subscription, all or those at ``offsets``; how many.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        return self._run(self._drop(topic, subscriber, offsets))

    def delete_subscription(self, topic: str, subscriber: str) -> None:
        """Delete a subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        self._run(self._delete_subscription(topic, subscriber))

    def status(self) -> ServerStatus:
        """How the server is."""
        return self._run(self._status())

    def backup(
        self,
        target: BackupTarget,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Write a backup of all that the server has on its disk; how many bytes it has.

        ``target`` is a path, or a file to write to. At a path it appears when it is whole and
        on the disk, and only its owner may read it. ``progress`` is told now and then how many
        bytes are done, and of how many.

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
                    part = self._run(self._backup_part(position))
                    file.write(part.content)
                    position, size = position + len(part.content), part.size
                    if progress is not None:
                        progress(position, size)
            except BaseException:
                # The server lets go of it with the connection.
                self.close()
                raise
            file.finish()
        return position

    def ping(self) -> float:
        """Seconds that a round trip to the server takes now."""
        begin = time.perf_counter()
        self._run(self._ping())
        return time.perf_counter() - begin

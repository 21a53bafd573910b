"""The asyncio Admin: looks at topics, subscriptions and the server, and removes things."""

import time
from typing import Any

from mbctl.client.aio.client import AioClient
from mbctl.client.base import settings_of
from mbctl.model import ServerStatus, SubscriptionInfo, TopicHolds, TopicInfo


class Admin(AioClient):
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

    async def create_topic(self, name: str, *, exist_ok: bool = True, **settings: Any) -> bool:
        """Create a topic, as ``Publisher.create_topic`` does; whether it was created now."""
        return await self._run(self._create_topic(name, settings_of(**settings), exist_ok))

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with its messages and subscriptions.

        Raises:
            TopicNotFound: there is none.
        """
        await self._run(self._delete_topic(name))

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

    async def delete_subscription(self, topic: str, subscriber: str) -> None:
        """Delete a subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        await self._run(self._delete_subscription(topic, subscriber))

    async def status(self) -> ServerStatus:
        """How the server is."""
        return await self._run(self._status())

    async def ping(self) -> float:
        """Seconds that a round trip to the server takes now."""
        begin = time.perf_counter()
        await self._run(self._ping())
        return time.perf_counter() - begin

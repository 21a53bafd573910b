"""The asyncio face: the verbs of ``mbctl`` as coroutines.

``async with Publisher(...)``, ``await publisher.send(...)``, ``async for message in
subscriber.follow(...)``. Errors and values are those of ``mbctl``.
"""

from mbctl.client.aio.admin import Admin
from mbctl.client.aio.follow import Following, FollowingBatches
from mbctl.client.aio.messages import Batch, Message
from mbctl.client.aio.pipeline import Pipeline
from mbctl.client.aio.publisher import Publisher
from mbctl.client.aio.subscriber import Subscriber

__all__ = [
    "Admin",
    "Batch",
    "Following",
    "FollowingBatches",
    "Message",
    "Pipeline",
    "Publisher",
    "Subscriber",
]

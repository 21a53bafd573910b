"""What was delivered as often as it may be, on its way to a dead-letter topic."""

import msgspec

from mbctl.core.grant import Piece
from mbctl.core.subscription import Subscription
from mbctl.model import Range


class Exhausted(msgspec.Struct, frozen=True):
    """Messages of one batch that a subscription was delivered as often as it may be."""

    subscription: Subscription
    piece: Piece


class DeadLettered(msgspec.Struct, frozen=True):
    """Where a piece was put: a batch of the topic ``topic_id``, from offset ``first`` on.

    ``acknowledged`` is what that settles at its source, to be stored in one with the batch.
    """

    topic_id: int
    first: int
    timestamp: int
    acknowledged: list[Range]

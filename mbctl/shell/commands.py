"""What a line in a shell can mean: one frozen value for each verb.

The grammar makes them and the session carries them out; nothing else happens here.
"""

from typing import Literal

import msgspec

from mbctl.actions.formats import Format
from mbctl.model import Start, SubscribeOptions, WhenFull

Kind = Literal["publisher", "subscriber"]
KINDS: tuple[Kind, ...] = ("publisher", "subscriber")


ACK_WAIT_S = SubscribeOptions().ack_wait


class Register(msgspec.Struct, frozen=True):
    """registerPublisher or registerSubscriber: begin again under this name, or none."""

    name: str | None = None


class CreateTopic(msgspec.Struct, frozen=True):
    """createTopic."""

    topic: str
    max_messages: int | None = None
    max_bytes: int | None = None
    max_age: float | None = None
    retain_age: float | None = None
    retain_bytes: int | None = None
    when_full: WhenFull = "refuse"


class PurgeTopic(msgspec.Struct, frozen=True):
    """purgeTopic."""

    topic: str


class DeleteTopic(msgspec.Struct, frozen=True):
    """deleteTopic."""

    topic: str


class Send(msgspec.Struct, frozen=True):
    """send: ``message`` is None if the content of ``file`` is the message."""

    topic: str
    message: bytes | None = None
    key: bytes | None = None
    headers: dict[str, str] | None = None
    file: str | None = None


class Subscribe(msgspec.Struct, frozen=True):
    """subscribe; without a ``start``, the server knows where."""

    topic: str
    start: Start | None = None
    ack_wait: float = ACK_WAIT_S
    max_deliveries: int | None = None
    dead_letter: str | None = None


class Unsubscribe(msgspec.Struct, frozen=True):
    """unsubscribe."""

    topic: str


class Pull(msgspec.Struct, frozen=True):
    """pull; without a topic, from the only subscription there is."""

    topic: str | None = None
    max_messages: int | None = None
    wait: float | None = None
    no_ack: bool = False
    template: Format | None = None
    full: bool = False


class Ack(msgspec.Struct, frozen=True):
    """ack: acknowledge what the last pull brought."""


class Nack(msgspec.Struct, frozen=True):
    """nack: give back what the last pull brought."""

    delay: float = 0.0


class Extend(msgspec.Struct, frozen=True):
    """extend: keep what the last pull brought for longer."""


class Seek(msgspec.Struct, frozen=True):
    """seek: go on from elsewhere."""

    topic: str
    start: Start


class Release(msgspec.Struct, frozen=True):
    """release: let parked messages be delivered again, all without ``offsets``."""

    topic: str
    offsets: tuple[int, ...] = ()


class Drop(msgspec.Struct, frozen=True):
    """drop: give parked messages up, all without ``offsets``."""

    topic: str
    offsets: tuple[int, ...] = ()


class Peek(msgspec.Struct, frozen=True):
    """peek: look at messages, whoever reads them."""

    topic: str
    start: Start = "earliest"
    max_messages: int | None = None
    template: Format | None = None
    full: bool = False


class Follow(msgspec.Struct, frozen=True):
    """follow; without topics, every subscription there is.

    ``on`` and ``off`` in their place begin and end following beside the prompt.
    """

    topics: tuple[str, ...] = ()
    template: Format | None = None
    full: bool = False


class Use(msgspec.Struct, frozen=True):
    """use: let the dot stand for a topic; none without ``topic``."""

    topic: str | None = None


class Last(msgspec.Struct, frozen=True):
    """last: show messages again, in full."""

    count: int = 1


class Watch(msgspec.Struct, frozen=True):
    """watch: run the verb of ``line`` again and again, every ``interval`` seconds."""

    interval: float
    line: str


class Subscriptions(msgspec.Struct, frozen=True):
    """subscriptions: those of this subscriber."""


class Topics(msgspec.Struct, frozen=True):
    """topics."""


class Status(msgspec.Struct, frozen=True):
    """status: of the server."""


class Help(msgspec.Struct, frozen=True):
    """help; without a verb, the list of verbs."""

    verb: str | None = None


class History(msgspec.Struct, frozen=True):
    """history: the lines typed so far."""


class Clear(msgspec.Struct, frozen=True):
    """clear: the screen."""


class Exit(msgspec.Struct, frozen=True):
    """exit."""


Command = (
    Register
    | CreateTopic
    | PurgeTopic
    | DeleteTopic
    | Send
    | Subscribe
    | Unsubscribe
    | Pull
    | Ack
    | Nack
    | Extend
    | Seek
    | Release
    | Drop
    | Peek
    | Follow
    | Use
    | Last
    | Watch
    | Subscriptions
    | Topics
    | Status
    | Help
    | History
    | Clear
    | Exit
)

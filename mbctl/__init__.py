"""mbctl: a publish/subscribe message broker in one package.

The public names are resolved when they are first used, so that importing mbctl costs
next to nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mbctl.client.admin import Admin as Admin
    from mbctl.client.messages import Batch as Batch
    from mbctl.client.messages import Message as Message
    from mbctl.client.pipeline import Pipeline as Pipeline
    from mbctl.client.publisher import Publisher as Publisher
    from mbctl.client.subscriber import Subscriber as Subscriber
    from mbctl.errors import MbctlError as MbctlError
    from mbctl.model import Receipt as Receipt
    from mbctl.server.embedded import Server as Server

_HOMES = {
    "Admin": "mbctl.client.admin",
    "Batch": "mbctl.client.messages",
    "Message": "mbctl.client.messages",
    "Pipeline": "mbctl.client.pipeline",
    "Publisher": "mbctl.client.publisher",
    "Subscriber": "mbctl.client.subscriber",
    "Receipt": "mbctl.model",
    "Server": "mbctl.server.embedded",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = import_module(_HOMES.get(name, "mbctl.errors"))
    try:
        return getattr(home, name)
    except AttributeError:
        raise AttributeError(f"module 'mbctl' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    from mbctl import errors

    public_errors = [name for name, value in vars(errors).items() if isinstance(value, type)]
    return sorted([*globals(), *_HOMES, *public_errors])

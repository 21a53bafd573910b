"""mbctl: a publish/subscribe message broker in one package.

The public names are resolved when they are first used, so that importing mbctl costs
next to nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mbctl.client.admin import Admin
    from mbctl.client.messages import Batch, Message
    from mbctl.client.pipeline import Pipeline
    from mbctl.client.publisher import Publisher
    from mbctl.client.subscriber import Subscriber
    from mbctl.errors import (
        BackupDamaged,
        BatchTooLarge,
        ConnectionFatal,
        ConnectionLost,
        DataLoss,
        DiskFull,
        Forbidden,
        InvalidArgument,
        InvalidName,
        LimitExceeded,
        MbctlError,
        MessageTooLarge,
        NewerFormat,
        NotSubscribed,
        NotSupported,
        OffsetOutOfRange,
        OutcomeUnknown,
        ProtocolError,
        RequestRefused,
        SendFailed,
        ServerError,
        ServerStopping,
        StorageCorrupt,
        StorageError,
        StorageFailed,
        SubscriptionNotFound,
        Timeout,
        TopicExists,
        TopicFull,
        TopicNotFound,
        Unauthenticated,
        VersionMismatch,
    )
    from mbctl.model import Receipt
    from mbctl.server.embedded import Server

__all__ = [
    "Admin",
    "BackupDamaged",
    "Batch",
    "BatchTooLarge",
    "ConnectionFatal",
    "ConnectionLost",
    "DataLoss",
    "DiskFull",
    "Forbidden",
    "InvalidArgument",
    "InvalidName",
    "LimitExceeded",
    "MbctlError",
    "Message",
    "MessageTooLarge",
    "NewerFormat",
    "NotSubscribed",
    "NotSupported",
    "OffsetOutOfRange",
    "OutcomeUnknown",
    "Pipeline",
    "ProtocolError",
    "Publisher",
    "Receipt",
    "RequestRefused",
    "SendFailed",
    "Server",
    "ServerError",
    "ServerStopping",
    "StorageCorrupt",
    "StorageError",
    "StorageFailed",
    "Subscriber",
    "SubscriptionNotFound",
    "Timeout",
    "TopicExists",
    "TopicFull",
    "TopicNotFound",
    "Unauthenticated",
    "VersionMismatch",
]

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
    return sorted({*globals(), *__all__})

"""What the engine may be told, and what an acknowledgement means with that."""

import msgspec

from mbctl.engine.jetstream.address import Address
from mbctl.model import KIB, Limits

# What JetStream and we put beside a batch: ids, the number in a group, expectations.
_HEADERS_BYTES = 1 * KIB
# What a frame has beside its batch: a name, numbers, heads.
_FRAME_BYTES = 2 * KIB
TOPICS = 500
"""So many topics by default: 600 with three replicas took 76 s to create and 190 MiB a node."""


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cluster is, and how it is used."""

    address: Address
    replicas: int = 1
    sync: str | None = None
    """What the operator says of the servers' ``sync_interval``; None to ask them."""
    duplicate_s: float = 120.0
    """How long JetStream knows the ids of messages."""
    purge_delay_s: float = 120.0
    """How long read messages stay: a restarted server knows ids only of what is there."""
    retry_s: float = 60.0
    """How long after its first attempt a send may be retried."""
    server_lease_s: float = 10.0
    """After a server died, what it had in hand is delivered elsewhere after so long."""


def limits_within(limits: Limits, max_payload: int) -> Limits:
    """The limits that remain where a message of the cluster has at most ``max_payload``."""
    frame = min(limits.frame_bytes, max_payload - _HEADERS_BYTES)
    # A message alone in a batch, with the largest key and headers there may be.
    beside = limits.key_bytes + limits.headers_bytes * 2 + _FRAME_BYTES
    return msgspec.structs.replace(
        limits,
        frame_bytes=frame,
        message_bytes=min(limits.message_bytes, max(KIB, frame - beside)),
        pull_bytes=min(limits.pull_bytes, max(KIB, frame - _FRAME_BYTES)),
        topics=min(limits.topics, TOPICS),
        session_idle_s=60,
    )


def durability_of(sync: str, replicas: int) -> str:
    """In a few words: how the servers sync, and how many have each message."""
    copies = "1 replica" if replicas == 1 else f"{replicas} replicas"
    return f"sync {sync}, {copies}"


def note_on(sync: str, replicas: int) -> str:
    """In sentences: what an acknowledgement means there."""
    where = "on one server" if replicas == 1 else f"on most of {replicas} servers"
    if sync == "always":
        stored = f"an acknowledged message is on disk {where}"
    elif sync == "unknown":
        stored = (
            f"an acknowledged message is {where}; whether it is on disk is not known, as the "
            "servers do not tell their sync_interval: unless it is always, a power cut may lose it"
        )
    else:
        stored = (
            f"an acknowledged message is {where}, and forced to disk within {sync} only: a power "
            "cut of all of them may lose it"
        )
    kept = "an acknowledgement by a subscriber is kept as a message is"
    if replicas >= 3:
        return f"{stored}; {kept}, and outlives the end of a server"
    return f"{stored}; {kept}, and both may be forgotten with the disk of that server"

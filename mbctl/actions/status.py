"""What the server says of itself."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions.output import Column, Output, told
from mbctl.errors import MbctlError

if TYPE_CHECKING:
    from mbctl import Admin

COLUMNS = (
    Column("address", "Server"),
    Column("version", "Version"),
    Column("engine", "Engine"),
    Column("durability", "Durability"),
    Column("note", "That is"),
    Column("pid", "Process", "number"),
    Column("started", "Started", "time"),
    Column("uptime_s", "Uptime", "seconds"),
    Column("connections", "Connections", "count"),
    Column("topics", "Topics", "count"),
    Column("subscriptions", "Subscriptions", "count"),
    Column("publishers", "Publishers", "count"),
    Column("messages", "Messages kept", "count"),
    Column("batches", "Batches kept", "count"),
    Column("bytes", "Size kept", "size"),
    Column("max_bytes", "Size at most", "size"),
    Column("messages_in", "Messages in", "count"),
    Column("messages_out", "Messages out", "count"),
    Column("bytes_in", "Bytes in", "size"),
    Column("bytes_out", "Bytes out", "size"),
    Column("messages_in_per_s", "In per second", "count"),
    Column("messages_out_per_s", "Out per second", "count"),
    Column("syncs", "Syncs to disk", "count"),
    Column("retry_s", "Retries within", "seconds"),
)

_PAUSE_S = 0.05
"""Between two attempts to reach a server that is not there yet."""


def status(admin: "Admin", output: Output) -> None:
    """Show what the server is and how busy."""
    row = msgspec.structs.asdict(admin.status())
    for rate in ("messages_in_per_s", "messages_out_per_s"):
        row[rate] = round(row[rate], 1)
    if row["batches"] is None:
        del row["batches"]
    if not row["note"]:
        del row["note"]
    output.record(told(COLUMNS, [row], "messages", "batches", "max_bytes", "syncs", "note"), row)


def ping(connect: Callable[[float | None], "Admin"], output: Output, *, wait: float = 0.0) -> float:
    """Show how long the server takes to answer; return the seconds.

    ``connect`` makes a client, within the seconds it is given if any. It is tried until a
    server answers or ``wait`` is over.

    Raises:
        ConnectionLost: there is no server.
        Timeout: there is one, and it does not answer.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            left = max(_PAUSE_S, deadline - time.monotonic()) if wait else None
            with connect(left) as admin:
                seconds = admin.ping()
                output.done(
                    {"server": admin.server, "ms": round(seconds * 1000, 3)},
                    f"{admin.server} answered in {seconds * 1000:.2f} ms",
                )
                return seconds
        except MbctlError as error:
            if not error.retryable or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)

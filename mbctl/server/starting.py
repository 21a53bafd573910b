"""From a data directory to an engine that serves: recovery, and what is said of it."""

import asyncio
import logging
import time
from pathlib import Path

from mbctl.engine.interface import Engine, EngineStatus
from mbctl.engine.jetstream.address import parse_address
from mbctl.engine.local import LocalEngine
from mbctl.engine.opening import StorageOptions, open_storage
from mbctl.errors import NotSupported, ServerError
from mbctl.server import log
from mbctl.server.ending import Ending
from mbctl.server.options import ServerOptions
from mbctl.server.runtime import AsyncioRuntime
from mbctl.server.server import Server

# Recovery that takes less is not worth a line; one that takes longer has one so often.
_QUIET_S = 0.5
_PROGRESS_S = 2.0

# By kind of file system, what is not to be expected of it.
_DOUBTFUL = {
    "nfs": "a lock may not hold between machines, and a write may fail long after it was made",
    "nfs4": "a lock may not hold between machines, and a write may fail long after it was made",
    "cifs": "a lock may not hold between machines, and a write may fail long after it was made",
    "smb3": "a lock may not hold between machines, and a write may fail long after it was made",
    "overlay": "it is part of a container's image and ends with the container; use a volume",
    "tmpfs": "it is memory and ends when the machine does",
    "ramfs": "it is memory and ends when the machine does",
}


async def open_engine(options: ServerOptions, ending: Ending) -> Engine | None:
    """Open the engine that the options name; None if told to end meanwhile.

    Raises:
        ServerError: it cannot be used, and why.
        StorageCorrupt, NewerFormat: what is in the data directory cannot be served.
        NotSupported, InvalidArgument: the cluster cannot do what is asked of it.
    """
    if options.is_local:
        return await _open_local(options, ending)
    return await _open_cluster(options, ending)


async def _open_cluster(options: ServerOptions, ending: Ending) -> Engine | None:
    """Connect to the cluster; None if told to end meanwhile."""
    # Imported here because only who has a cluster has what it needs installed.
    try:
        from mbctl.engine.jetstream.engine import open_engine
    except ModuleNotFoundError as error:
        raise NotSupported(
            what=f"--engine {options.engine.partition(':')[0]} needs {error.name}, which "
            "pip install 'mbctl[cluster]' brings; it"
        ) from error
    from mbctl.engine.jetstream.options import EngineOptions

    loop = asyncio.get_running_loop()
    address = parse_address(options.engine)
    engine_options = EngineOptions(
        address=address,
        # As many as make an acknowledgement last, where there may be as many.
        replicas=options.replicas or (3 if len(address.servers) >= 3 else 1),
        sync={None: None, "always": "always", "never": "2m"}[options.sync],
    )
    opening = asyncio.ensure_future(
        open_engine(AsyncioRuntime(loop), engine_options, options.limits)
    )
    while not await ending.until(opening, _PROGRESS_S):
        log.event(logging.INFO, "connecting", cluster=engine_options.address)
    if not opening.done():
        opening.cancel()
        return None
    engine = opening.result()
    engine.on_failure = ending.fail
    level = logging.INFO if engine.durability == "sync always, 3 replicas" else logging.WARNING
    log.event(level, "connected", cluster=engine_options.address, note=engine.note)
    return engine


async def _open_local(options: ServerOptions, ending: Ending) -> LocalEngine | None:
    """Open what the options name, recovering what is there; None if told to end meanwhile.

    Raises:
        ServerError: the data directory cannot be used, and why.
        StorageCorrupt, NewerFormat: what is in it cannot be served.
    """
    loop = asyncio.get_running_loop()
    runtime = AsyncioRuntime(loop)
    directory = options.data_directory
    begin = time.monotonic()

    storage_options = StorageOptions(
        directory=directory,
        sync=options.sync or "always",
        max_bytes=options.bytes_limit,
        segment_bytes=options.segment_bytes,
        snapshot_bytes=options.snapshot_bytes,
        limits=options.limits,
    )
    # In a thread, so that a signal ends the process whatever the disk is doing.
    opening = loop.run_in_executor(None, open_storage, storage_options, runtime, _alarm)
    patience_s = _QUIET_S
    while not await ending.until(opening, patience_s):
        seconds = round(time.monotonic() - begin, 1)
        log.event(logging.INFO, "recovering", directory=directory, seconds=seconds)
        patience_s = _PROGRESS_S
    if not opening.done():
        return None
    try:
        engine = opening.result().engine(runtime, options.limits)
    except OSError as error:
        raise unusable(directory or Path(), error) from error
    engine.on_failure = ending.fail
    for clamped in engine.clamped:
        log.event(
            logging.ERROR,
            "messages are missing",
            topic=clamped.topic,
            subscriber=clamped.subscriber,
            note=f"it had read up to {clamped.claimed}, and its topic goes up to {clamped.cursor}",
        )
    if directory is not None:
        _tell(engine, directory, time.monotonic() - begin)
    return engine


async def listen(server: Server, options: ServerOptions) -> None:
    """Listen where the options say.

    Raises:
        ServerError: that address cannot be listened on, and why.
    """
    try:
        await server.start(options.host, options.port)
    except OSError as error:
        raise ServerError(
            reason=f"cannot listen on {options.host}:{options.port}: {error.strerror or error}; "
            "choose another --port, or stop what listens there"
        ) from error


def unusable(directory: Path, error: OSError) -> ServerError:
    """The error that says which file of the data directory the system refused, and why."""
    reason = (error.strerror or str(error)).lower()
    inside = f"{error.filename}: " if error.filename not in (None, str(directory)) else ""
    return ServerError(
        reason=f"the data directory {directory} cannot be used: {inside}{reason}; "
        "mend that, or choose another --data"
    )


def file_system_of(directory: Path, mounts: str) -> str:
    """The kind of file system that a directory is on, by the text of ``/proc/mounts``."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, mounted, found, *_ = line.split(" ")
        mounted = mounted.replace("\\040", " ")
        # The last mount at the same place is the one that is seen.
        if directory.is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind


def _alarm(what: str) -> None:
    log.event(logging.WARNING, "recovery", note=what)


def _tell(engine: LocalEngine, directory: Path, seconds: float) -> None:
    """Log what was found, and what its reader should know of how it is kept."""

    def tell(status: EngineStatus) -> None:
        log.event(
            logging.INFO,
            "recovered",
            directory=directory,
            durability=engine.durability,
            topics=status.topics,
            subscriptions=status.subscriptions,
            messages=status.messages,
            bytes=status.bytes,
            max_bytes=status.max_bytes,
            seconds=round(seconds, 3),
        )

    engine.status(tell)  # type: ignore[arg-type]
    if engine.durability == "never":
        log.event(
            logging.WARNING,
            "messages are not forced to disk",
            note="a power cut may lose acknowledged messages; --sync always keeps them",
        )
    try:
        kind = file_system_of(directory.resolve(), Path("/proc/mounts").read_text())
    except OSError:
        return
    if kind in _DOUBTFUL:
        log.event(
            logging.WARNING,
            "doubtful file system",
            directory=directory,
            kind=kind,
            note=_DOUBTFUL[kind],
        )

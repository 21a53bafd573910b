"""The server process: from options to exit code."""

import asyncio
import gc
import logging
import os
import resource
import sys
from typing import NoReturn

from mbctl import __version__
from mbctl.engine.interface import Engine
from mbctl.errors import ServerError
from mbctl.server import log
from mbctl.server.ending import Ending
from mbctl.server.memory import keep_freed_memory
from mbctl.server.options import ServerOptions
from mbctl.server.runtime import loop_factory
from mbctl.server.server import Server
from mbctl.server.starting import listen, open_engine

# How long a stop may take in all, and how long a server whose disk has failed lets the
# answers leave that it had given before.
_STOP_S = 10.0
_FAREWELL_S = 0.5
# How long the loop may go on when the journal's thread is back from the disk and wants to take the
# next group there. Python's own 5 ms are longer than most writes and syncs.
_SWITCH_S = 0.0005
# How many new objects, and then how many looks at those, make the collector look. What is kept of
# a message is no object that it looks at, and a request leaves no cycles behind. But a subscription
# on a cluster does: with 100,000 new objects at most, or a quarter of all, before it looks at all,
# that is 20 MiB of memory, where ten million would be more than a machine has to spare.
_COLLECTOR = (10_000, 5, 2)


def run(options: ServerOptions) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code.

    Prints one line to stdout when it is ready, ``mbctl server ready on HOST:PORT``. Ends the
    process itself, at once, if a signal comes while it recovers or if the disk fails.

    Raises:
        InvalidArgument, NotSupported: the options make no sense; nothing was opened.
        ServerError: the address cannot be listened on, or the data directory not be used.
        StorageCorrupt, NewerFormat: what is in the data directory cannot be served.
    """
    options.check()
    # Before any file is made: what is sent through a broker is its users' business alone.
    os.umask(0o077)
    log.configure(options.log_format)
    _raise_descriptor_limit()
    keep_freed_memory(is_in_memory=options.memory)
    sys.setswitchinterval(_SWITCH_S)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(options))


async def _serve(options: ServerOptions) -> int:
    loop = asyncio.get_running_loop()
    ending = Ending(loop)
    ending.heed_signals()
    engine = await open_engine(options, ending)
    if engine is None:
        log.event(logging.INFO, "server stopped", note="before it was ready")
        return _leave(0 if ending.failure is None else 1)
    server = Server(engine, engine.limits, loop)
    try:
        await listen(server, options)
    except ServerError:
        await ending.within(_STOP_S, server.close_engine())
        raise
    if ending.failure is None:
        _spare_collector()
        _announce(server, engine)
    await ending.wait()
    if ending.failure is None:
        log.event(logging.INFO, "server stopping", connections=len(server.connections))
        if await ending.within(_STOP_S, server.stop()):
            log.event(logging.INFO, "server stopped")
            return 0
        if ending.failure is None:
            log.event(logging.CRITICAL, "server stopped", note=f"not done after {_STOP_S:g} s")
            return _leave(1)
    await server.abandon(_FAREWELL_S)
    log.event(logging.CRITICAL, "server stopped", reason=ending.failure)
    return _leave(1)


def _spare_collector() -> None:
    """Have the collector of cyclic garbage look at what is new only, and less often.

    It stops everything while it looks: 30 ms for what a server has imported and recovered,
    which never becomes garbage, and that several times a second under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)


def _announce(server: Server, engine: Engine) -> None:
    log.event(
        logging.INFO,
        "server ready",
        address=server.address,
        version=__version__,
        engine=engine.name,
        durability=engine.durability,
        loop=type(server.loop).__module__.partition(".")[0],
        connections=server.connections_max,
    )
    print(f"mbctl server ready on {server.address}", flush=True)


def _leave(code: int) -> NoReturn:
    """End the process without waiting for threads: one may hang in a call to the disk."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us: one is needed for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            print(f"mbctl server: staying at {soft} file descriptors", file=sys.stderr)

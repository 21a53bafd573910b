"""The server process: from options to exit code."""

import asyncio
import logging
import resource
import signal
import sys
from typing import Any

from mbctl import __version__
from mbctl.engine.local import LocalEngine
from mbctl.errors import ServerError
from mbctl.journal.memory import MemoryJournal
from mbctl.server import log
from mbctl.server.options import ServerOptions
from mbctl.server.runtime import AsyncioRuntime
from mbctl.server.server import Server


def run(options: ServerOptions) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code.

    Prints one line to stdout when it is ready, ``mbctl server ready on HOST:PORT``.

    Raises:
        InvalidArgument, NotSupported: the options make no sense; nothing was opened.
        ServerError: the address cannot be listened on.
    """
    options.check()
    log.configure(options.log_format)
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(options))


async def _serve(options: ServerOptions) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    failures: list[BaseException] = []

    def on_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what no code was there to catch; a broken invariant ends the process."""
        error = context.get("exception")
        exc_info = (type(error), error, error.__traceback__) if error is not None else None
        log.logger.error("internal error", exc_info=exc_info, extra={"fields": context})
        # In a turn of the engine, not in what one client sent: the state may be half changed.
        is_turn = "handle" in context and not isinstance(error, OSError)
        if error is not None and (is_turn or isinstance(error, AssertionError)):
            failures.append(error)
            stopping.set()

    loop.set_exception_handler(on_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    engine = LocalEngine(
        MemoryJournal(), AsyncioRuntime(loop), options.limits, max_bytes=options.bytes_limit
    )
    server = Server(engine, options.limits, loop)
    try:
        await server.start(options.host, options.port)
    except OSError as error:
        raise ServerError(
            reason=f"cannot listen on {options.host}:{options.port}: {error.strerror or error}; "
            "choose another --port, or stop what listens there"
        ) from error
    if not options.memory:
        log.event(
            logging.WARNING,
            "messages are kept in memory only",
            note="this version has no journal on disk yet; --data and --sync have no effect",
        )
    log.event(
        logging.INFO,
        "server ready",
        address=server.address,
        version=__version__,
        engine=engine.name,
        durability=engine.durability,
        loop=type(loop).__module__.partition(".")[0],
        max_bytes=options.bytes_limit,
        connections=server.connections_max,
    )
    print(f"mbctl server ready on {server.address}", flush=True)
    await stopping.wait()
    log.event(logging.INFO, "server stopping", connections=len(server.connections))
    await server.stop()
    log.event(logging.INFO, "server stopped")
    return 1 if failures else 0


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed: it halves the cost of a turn."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us: one is needed for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            print(f"mbctl server: staying at {soft} file descriptors", file=sys.stderr)

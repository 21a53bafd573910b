"""The asyncio listener: connections, limits, a graceful stop. Knows wire and engine, no core."""

from mbctl.server.options import ServerOptions as ServerOptions
from mbctl.server.run import run as run

"""The systems by name. Each is a module of this package, imported when it is asked for."""

from importlib import import_module

from mbctl.bench.systems.interface import System

PEERS = ("redis", "nats", "rabbitmq", "kafka", "zeromq")
NAMES = ("mbctl", *PEERS)


def system(name: str) -> System:
    """A system that is not started yet. Its module has a class ``Bench`` without arguments."""
    assert name in NAMES
    made: System = import_module(f"mbctl.bench.systems.{name}_system").Bench()
    return made

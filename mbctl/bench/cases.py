"""A case: one thing to be measured, and on what."""

from collections.abc import Callable
from typing import Literal

import msgspec

from mbctl.bench.figures import Better, Measured
from mbctl.bench.payloads import Content
from mbctl.bench.stage import Stage
from mbctl.bench.systems.interface import Settings

Measure = Callable[["Trial"], Measured]

On = Literal["all", "stores", "ours", "machine"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured under one name."""

    name: str
    title: str
    unit: str
    better: Better = "more"
    measure: "Measure"
    settings: Settings = Settings()
    content: Content = Content()
    on: On = "all"
    """On all systems, on those with a server that stores, on ours, or on the machine below."""
    x: float | None = None
    """Its place on the axis of the curve that it is part of."""
    repeat_max: int = 100
    """For what takes long."""
    warms_up: bool = False
    """Whether it is done once for nothing before each time that counts."""


class Trial(msgspec.Struct, frozen=True):
    """One run of a case on one system."""

    stage: Stage
    system: str
    case: Case
    seconds: float
    """How long publishers send."""

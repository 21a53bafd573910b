"""``--fail-if``: conditions on figures, such as ``publish<5M`` and ``latency.ack.p99>5ms``.

    [SYSTEM:]NAME[.pNN] OPERATOR NUMBER[UNIT]

A condition that holds fails the run; so does one on what could not be measured.
"""

import operator
import re
from collections.abc import Callable, Collection

import msgspec

from mbctl.bench.figures import Results
from mbctl.errors import InvalidArgument

_FORM = re.compile(
    r"\s*(?:(?P<system>\w+):)?(?P<name>[\w.-]+?)(?:\.(?P<percentile>p\d+(?:\.\d+)?))?"
    r"\s*(?P<operator><=|>=|<|>)\s*(?P<number>\d+(?:[\d_]*\d)?(?:\.\d+)?)\s*(?P<unit>[a-zA-Zµ]*)\s*"
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Times are microseconds, as in the figures.
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}


class Condition(msgspec.Struct, frozen=True):
    """A condition, and how it was written."""

    text: str
    system: str
    name: str
    percentile: str
    operator: str
    number: float

    def fails(self, results: Results) -> str | None:
        """Why the run fails by this condition; None if it does not."""
        figure = results.of(self.name, self.system)
        if figure is None:
            return f"{self.text}: it was not measured"
        value = figure.percentiles.get(self.percentile) if self.percentile else figure.value
        if value is None:
            return f"{self.text}: it has no {self.percentile}"
        if _OPERATORS[self.operator](value, self.number):
            return f"{self.text}: it is {value:,.1f} {figure.unit}"
        return None


def parse_condition(text: str, names: Collection[str]) -> Condition:
    """Read a condition on one of the figures of these names.

    Raises:
        InvalidArgument: it is none, or on something that is not measured in this run.
    """
    found = _FORM.fullmatch(text)
    factor = _UNITS.get(found["unit"]) if found else None
    if found is None or factor is None:
        raise InvalidArgument(
            reason=f"{text!r} is no condition such as 'publish<5M' or 'latency.ack.p99>5ms'"
        )
    if found["name"] not in names:
        raise InvalidArgument(
            reason=f"{text!r}: {found['name']} is not measured here; there are {', '.join(names)}"
        )
    return Condition(
        text=text.strip(),
        system=found["system"] or "mbctl",
        name=found["name"],
        percentile=found["percentile"] or "",
        operator=found["operator"],
        number=float(found["number"]) * factor,
    )

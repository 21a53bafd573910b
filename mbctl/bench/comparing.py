"""``--compare``: the figures of this run beside those of an earlier one."""

import math

import msgspec

from mbctl.bench.figures import Figure, Results

# What two runs of the same differ by on a quiet machine, at the least; measured.
_NOISE_MIN = 0.03
# Deviations beyond which a change is hardly chance.
_DEVIATIONS = 2.0


class Change(msgspec.Struct, frozen=True):
    """One figure, then and now."""

    name: str
    system: str
    unit: str
    before: float
    now: float
    ratio: float
    """Above 1 is better, whatever the unit."""
    noise: float
    """What the repeats of both runs allow it to differ by without meaning anything."""

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where it is beyond the noise of both, else nothing."""
        if abs(math.log(self.ratio)) <= math.log1p(self.noise):
            return ""
        return "better" if self.ratio > 1 else "worse"


def compare(before: Results, now: Results) -> list[Change]:
    """All figures that both runs have, in the order of this one."""
    changes = []
    for figure in now.figures:
        old = before.of(figure.name, figure.system)
        if old is not None and figure.values and old.value > 0 and figure.value > 0:
            changes.append(_change(old, figure))
    return changes


def _change(old: Figure, new: Figure) -> Change:
    ratio = new.value / old.value if new.better == "more" else old.value / new.value
    spread = math.hypot(old.variation, new.variation)
    return Change(
        name=new.name,
        system=new.system,
        unit=new.unit,
        before=old.value,
        now=new.value,
        ratio=ratio,
        noise=max(_NOISE_MIN, _DEVIATIONS * spread),
    )

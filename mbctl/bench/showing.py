"""Figures as rows for programs and as cells for people."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbctl.bench.figures import Figure

FIELDS = (
    *("name", "system", "value", "unit", "variation", "p50", "p99", "p99.9", "ratio"),
    *("durability", "status", "messages", "compared", "faults", "version", "settings", "note"),
)
"""The columns of ``--csv`` and of tab-separated text."""


SHOWN = ("what", "system", "result", "spread", "p99", "ours", "durability", "note")
"""The columns of the table for people; those without anything in them are left out."""


def row(figure: Figure) -> dict[str, Any]:
    """One figure as plain values, all that is known of it."""
    return {
        "name": figure.name,
        "title": figure.title,
        "system": figure.system,
        "value": round(figure.value, 3) if figure.values else None,
        "unit": figure.unit,
        "variation": round(figure.variation, 4),
        "values": [round(value, 3) for value in figure.values],
        "ratio": round(figure.ratio, 3) if figure.ratios else None,
        "ratios": [round(ratio, 3) for ratio in figure.ratios],
        "percentiles": figure.percentiles,
        "durability": figure.durability,
        "status": figure.status,
        "messages": figure.messages,
        "compared": figure.compared,
        "faults": figure.faults,
        "version": figure.version,
        "settings": figure.settings,
        "details": figure.details,
        "note": figure.note,
    }


def flat(figure: Figure) -> dict[str, Any]:
    """One figure as one line: ``FIELDS``."""
    full = row(figure)
    full |= {name: figure.percentiles.get(name) for name in ("p50", "p99", "p99.9")}
    full["faults"] = len(figure.faults)
    return {name: full[name] for name in FIELDS}


def save_csv(figures: Sequence[Figure], path: Path) -> None:
    """Write a line for each figure."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(map(flat, figures))


def amount(value: float, unit: str) -> str:
    """A value with its unit, in as many digits as mean something."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f} {unit}"
    return f"{value:,.1f} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def cells(figure: Figure) -> dict[str, str]:
    """One figure for people."""
    shown = {
        "what": figure.title,
        "system": figure.system,
        "result": amount(figure.value, figure.unit) if figure.values else figure.status,
        "spread": f"± {figure.variation:.0%}" if len(figure.values) > 1 else "",
        "p99": "",
        "ours": f"{figure.ratio:.2f} x" if figure.ratios else "",
        "durability": "" if figure.system == "machine" else figure.durability,
        "note": figure.note,
    }
    if figure.percentiles:
        shown["p99"] = amount(figure.percentiles["p99"], figure.unit)
    if figure.faults:
        shown["note"] = f"{len(figure.faults)} FAULTS {shown['note']}".strip()
    return shown


def legend(figures: Sequence[Figure]) -> list[str]:
    """How each system was run and used, each way once whatever the size of its batches."""
    lines: dict[str, str] = {}
    for figure in figures:
        if figure.settings:
            line = f"{figure.system} ({figure.version}), {figure.durability}: {figure.settings}"
            lines.setdefault(re.sub(r"\bbatches of \d+", "", line), line)
    return list(lines.values())

"""Every numbered point of the semantics has tests, and every test says which point it is of."""

import re
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "semantics.md").read_text(encoding="utf-8")
POINTS = [int(number) for number in re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE)]


def modules() -> list[ModuleType]:
    names = sorted(path.stem for path in HERE.glob("test_semantics_*.py"))
    return [import_module(name) for name in names if name != Path(__file__).stem]


def point_of(module: ModuleType, test: FunctionType) -> int | None:
    """The point that a test is marked with, itself or by its module."""
    marks = [*getattr(test, "pytestmark", []), getattr(module, "pytestmark", None)]
    numbers = [mark.args[0] for mark in marks if mark is not None and mark.name == "point"]
    return numbers[0] if numbers else None


def all_tests() -> list[tuple[ModuleType, FunctionType]]:
    return [
        (module, value)
        for module in modules()
        for name, value in vars(module).items()
        if name.startswith("test_") and isinstance(value, FunctionType)
    ]


def test_page_has_the_thirteen_points() -> None:
    assert list(range(1, 14)) == POINTS


@pytest.mark.parametrize("point", POINTS)
def test_point_has_tests(point: int) -> None:
    of_point = [test.__name__ for module, test in all_tests() if point_of(module, test) == point]
    assert len(of_point) >= 4


def test_every_test_says_its_point() -> None:
    assert [test.__name__ for module, test in all_tests() if point_of(module, test) is None] == []


def test_no_two_tests_have_one_name() -> None:
    names = [test.__name__ for _, test in all_tests()]
    assert len(names) == len(set(names))

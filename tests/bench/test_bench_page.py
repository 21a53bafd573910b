"""The page of ``mbctl bench`` names every scenario."""

import re
from pathlib import Path

from mbctl.bench.catalogue import SCENARIOS

PAGE = Path(__file__).parents[2] / "docs" / "commands" / "bench.md"


def test_scenarios_of_the_page_are_those_there_are() -> None:
    table = PAGE.read_text().partition("| scenario |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == [*SCENARIOS, "suite"]

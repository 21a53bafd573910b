"""The pages of the documentation, taken apart into fenced blocks."""

import re
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (\S.*?) -->\n\Z")


class Block(msgspec.Struct, frozen=True):
    """A fenced block: its kind, the number of its first line, and its lines."""

    page: str
    kind: str
    number: int
    lines: list[str]
    not_run: str | None
    """Why it is not run, if the page says so in a comment above it."""

    @property
    def place(self) -> str:
        """Where to look for it."""
        return f"{self.page}:{self.number}"

    @property
    def text(self) -> str:
        """Its content."""
        return "".join(f"{line}\n" for line in self.lines)


def pages() -> list[Path]:
    """All pages, the README first."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    """The page as people name it: ``docs/commands.md``."""
    return page.relative_to(ROOT).as_posix()


@cache
def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return take_apart(name_of(page), page.read_text(encoding="utf-8"))


def take_apart(name: str, text: str) -> list[Block]:
    """The fenced blocks of ``text``; a fence that is not one of a pair is an error."""
    blocks = []
    for found in _FENCE.finditer(text):
        reason = _NOT_RUN.search(text, 0, found.start())
        blocks.append(
            Block(
                page=name,
                kind=found[1],
                number=text.count("\n", 0, found.start()) + 2,
                lines=found[2].splitlines(),
                not_run=reason[1] if reason else None,
            )
        )
    assert text.count("```") == 2 * len(blocks), f"{name}: a fence that is not closed, or indented"
    return blocks


@cache
def prose_of(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))

"""What is said of a data directory: what is in it, what is wrong, what is given up."""

from typing import Any

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: in which file, at which byte, and what."""

    file: str
    position: int
    what: str


class Loss(msgspec.Struct, frozen=True):
    """Messages of one topic that cannot be read: ``first <= offset < next``."""

    topic: str
    topic_id: int
    first: int
    next: int


class Totals(msgspec.Struct):
    """What was read and is whole."""

    segments: int = 0
    records: int = 0
    batches: int = 0
    messages: int = 0
    """Those included that everybody has read and that only wait to be deleted."""
    bytes: int = 0
    """Of the bodies of all records."""

    def add(self, other: "Totals") -> None:
        """Count all of ``other`` too."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Report(msgspec.Struct, kw_only=True):
    """All that is said of a directory."""

    directory: str
    journal: str = ""
    """The id of the journal, in hex."""
    topics: int = 0
    subscriptions: int = 0
    totals: Totals = msgspec.field(default_factory=Totals)
    findings: list[Finding] = []
    """What is wrong, in the order of the files."""
    lost: list[Loss] = []
    """What a repair gives up of the messages."""
    lost_records: list[Finding] = []
    """Records that a repair gives up without knowing what was in them: changes of topics and
    subscriptions, or the last messages of a topic."""
    may_be_missing: list[str] = []
    """What else may not be as it was, in sentences."""
    notes: list[str] = []
    """What is out of the ordinary and not wrong, in sentences."""
    put_away: list[str] = []
    """The files that a repair moves to ``kept_in``: what it replaces or cannot use."""
    kept_in: str = ""
    """Where they are once it is done, within the directory."""

    @property
    def is_whole(self) -> bool:
        """Whether a server can serve all of it."""
        return not self.findings

    def as_row(self) -> dict[str, Any]:
        """The same as plain values, the totals among the others."""
        row: dict[str, Any] = msgspec.to_builtins(self)
        totals = row.pop("totals")
        return {"whole": self.is_whole, **row, **totals}

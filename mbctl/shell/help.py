"""The help of the shells, made from the table of verbs."""

from mbctl.actions.output import Column, Row
from mbctl.shell.commands import Kind
from mbctl.shell.verb import Verb
from mbctl.shell.verbs import verbs_of

OVERVIEW_COLUMNS = (Column("verb", "VERB"), Column("about", "WHAT IT DOES"))


def overview(kind: Kind) -> list[Row]:
    """Each verb of a shell and what it does, for ``OVERVIEW_COLUMNS``."""
    return [{"verb": verb.name, "about": verb.summary} for verb in verbs_of(kind)]


def explain(verb: Verb) -> str:
    """All there is to say about one verb, on a few lines."""
    parts = [f"{verb.syntax}\n  {verb.summary}"]
    if verb.details:
        parts.append("\n".join(f"  {line}" for line in verb.details.splitlines()))
    if verb.options:
        width = max(len(option.written) for option in verb.options)
        parts.append("\n".join(f"  {o.written:{width}}  {o.help}" for o in verb.options))
    parts.append(f"  example: {verb.example}")
    return "\n\n".join(parts) + "\n"

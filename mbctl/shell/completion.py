"""What could be typed next: pure functions over the text before the cursor.

The live names come in as they were last seen; nothing here asks a server.
"""

from typing import TypeVar

import msgspec

from mbctl.shell.commands import Kind
from mbctl.shell.grammar import Piece, Token, pieces, verb_token
from mbctl.shell.verb import Names, Operand, Option, Verb, normalize
from mbctl.shell.verbs import find_verb, verbs_of

T = TypeVar("T")

# Arbitrary: more than any terminal shows, and quickly drawn where there are 10,000 topics.
CANDIDATES_MAX = 200


class LiveNames(msgspec.Struct, frozen=True):
    """The names that the server had when it was last asked, each with a word about it."""

    topics: dict[str, str] = {}
    subscribed: dict[str, str] = {}


class Candidate(msgspec.Struct, frozen=True):
    """One completion: ``text`` takes the place of the last ``replaces`` characters."""

    text: str
    replaces: int
    about: str = ""


class _Place(msgspec.Struct, frozen=True):
    """Where the cursor is: in the ``word`` that began, and what may stand there."""

    word: str
    length: int
    options: tuple[Option, ...] = ()
    names: Names = "nothing"


def complete(kind: Kind, before: str, live: LiveNames) -> list[Candidate]:
    """The completions for the line whose text before the cursor is ``before``."""
    verb_word = verb_token(before)
    if verb_word is None:
        return [] if before.strip() else _verb_candidates(kind, "")
    if verb_word.end == len(before):
        return _verb_candidates(kind, verb_word.text)
    verb = find_verb(verb_word.text)
    if verb is None or kind not in verb.kinds:
        return []
    inner = _inner_line(verb, before, verb_word.end) if verb.tail else None
    if inner is not None:
        return complete(kind, inner.text, live)
    place = _place(verb, before, verb_word.end)
    if place is None:
        return []
    flags = {option.flag: option.help for option in place.options}
    if place.word.startswith("-"):
        return _candidates(place, flags)
    return _candidates(place, _names(kind, place.names, live))


def syntax_for(kind: Kind, text: str, cursor: int | None = None, *, full: bool = False) -> str:
    """The syntax of the verb of the line ``text`` that the cursor is at; empty if it has none.

    Without a ``cursor`` it is at the end. ``full`` has all options, even where a narrow
    terminal has no room for them.
    """
    cursor = len(text) if cursor is None else cursor
    word = verb_token(text)
    verb = find_verb(word.text) if word else None
    if word is None or verb is None or kind not in verb.kinds:
        return ""
    inner = _inner_line(verb, text, word.end)
    within = ""
    if inner is not None and cursor >= inner.start:
        within = syntax_for(kind, inner.text, cursor - inner.start, full=full)
    return within or (verb.full_syntax if full else verb.syntax)


def _inner_line(verb: Verb, line: str, position: int) -> Token | None:
    """The line within the line of a verb that is about another verb, as that of watch."""
    operand = next((operand for operand in verb.operands if operand.names == "verbs"), None)
    if operand is None:
        return None
    role = "message" if operand.tail else "operand"
    found = [p.token for p in pieces(verb, line, position) if p.role == role]
    return found[0] if found else None


def _verb_candidates(kind: Kind, word: str) -> list[Candidate]:
    """Verbs that begin with ``word``, then those whose initials do: ct finds createTopic.

    If there are none, those that have its letters in this order.
    """
    typed = normalize(word)
    verbs = verbs_of(kind)
    first = [verb for verb in verbs if normalize(verb.name).startswith(typed)]
    initials = [verb for verb in verbs if verb not in first and _initials(verb).startswith(typed)]
    found = first + initials or _fuzzy(typed, {normalize(verb.name): verb for verb in verbs})
    return [Candidate(verb.name, len(word), verb.summary) for verb in found]


def _initials(verb: Verb) -> str:
    """The first letters of the words in a verb: ct of createTopic."""
    return (verb.name[0] + "".join(filter(str.isupper, verb.name))).lower()


def _place(verb: Verb, before: str, position: int) -> _Place | None:
    """Where the cursor is behind the verb; None inside a message or beyond the operands."""
    read = list(pieces(verb, before, position))
    last = read[-1] if read else None
    typed = read.pop() if last and last.token.end == len(before) else None
    if typed and (typed.role == "message" or typed.token.quoted):
        return None
    word = before[typed.token.start :] if typed else "--" if before.endswith(" --") else ""
    previous = read[-1] if read else None
    if previous and previous.option and previous.role == "option":
        return _Place(word, len(word), names=previous.option.names)
    operand = _operand(verb, read)
    if read and read[-1].role == "operand" and verb.tail is not None:
        return None
    names: Names = operand.names if operand else "nothing"
    return _Place(word, len(word), _options_left(verb, read), names)


def _operand(verb: Verb, read: list[Piece]) -> Operand | None:
    """The operand that comes next after the pieces ``read``."""
    count = sum(piece.role == "operand" for piece in read)
    if count < len(verb.operands):
        return verb.operands[count]
    last = verb.operands[-1] if verb.operands else None
    return last if last and last.repeatable else None


def _options_left(verb: Verb, read: list[Piece]) -> tuple[Option, ...]:
    given = {piece.option for piece in read if piece.option and not piece.option.repeatable}
    return tuple(option for option in verb.options if option not in given)


def _names(kind: Kind, names: Names, live: LiveNames) -> dict[str, str]:
    if names == "topics":
        return live.topics
    if names == "subscribed":
        return live.subscribed
    if names == "verbs":
        return {verb.name: verb.summary for verb in verbs_of(kind)}
    if names == "starts":
        return {"earliest": "the earliest message kept", "new": "only what comes from now on"}
    if names == "whenFull":
        return {"refuse": "the send is refused", "drop-oldest": "the oldest messages go"}
    return {}


def _fuzzy(typed: str, named: dict[str, T]) -> list[T]:
    """What has the letters of ``typed`` in its name in this order, the closest together first."""
    spans = [(_span(typed, name.lower()), name) for name in named]
    found = sorted((span, name) for span, name in spans if span is not None)
    return [named[name] for _, name in found]


def _span(typed: str, name: str) -> int | None:
    """Over how many letters of ``name`` those of ``typed`` are spread; None if not all are there.

    Only the first place of each letter is tried, which is what people mean, nearly always.
    """
    begin = position = name.find(typed[:1])
    for letter in typed:
        position = name.find(letter, position)
        if position < 0:
            return None
        position += 1
    return position - begin


def _candidates(place: _Place, words: dict[str, str]) -> list[Candidate]:
    """The words that begin with what was typed, then those that contain it; else fuzzy ones."""
    typed = place.word.lower()
    first: list[str] = []
    within: list[str] = []
    for word in words:
        at = word.lower().find(typed)
        if at >= 0:
            (within if at else first).append(word)
    found = first + within or _fuzzy(typed, {word: word for word in words})
    best = found[:CANDIDATES_MAX]
    return [Candidate(word, place.length, words[word]) for word in best]

"""The parts of a line as it is typed, each with what it is: pure, from the grammar alone."""

from mbctl.actions.payloads import json_tokens
from mbctl.shell.commands import Kind
from mbctl.shell.grammar import IN_USE, flaw, pieces, verb_token
from mbctl.shell.verbs import find_verb

# A longer line is not coloured: it was pasted, and each key would look through all of it.
LINE_LENGTH_MAX = 4_000

Part = tuple[str, str]
"""A word for the style, empty for none, and the text that has it."""


def highlight(kind: Kind, line: str, in_use: str | None = None) -> list[Part]:
    """``line`` in parts, joined again the line itself; ``wrong`` where it cannot be right."""
    word = verb_token(line)
    if word is None or len(line) > LINE_LENGTH_MAX:
        return [("comment" if line.lstrip().startswith("#") else "", line)]
    verb = find_verb(word.text)
    if verb is None or kind not in verb.kinds:
        # The word at the cursor is still being typed.
        return _marked(line, [(word.start, word.end, "" if word.end == len(line) else "wrong")])
    found = flaw(kind, line, in_use)
    marks = [(word.start, word.end, "verb")]
    for piece in pieces(verb, line, word.end):
        token = piece.token
        style: str = piece.role
        if piece.role == "unknown":
            style = "" if token.end == len(line) else "wrong"
        if piece.role == "operand" and token.text == IN_USE and not token.quoted:
            style = "value"
        if found is not None and token.start <= found.column - 1 < token.end:
            style = "wrong"
        marks.append((token.start, token.end, style))
    return _marked(line, marks)


def _marked(line: str, marks: list[tuple[int, int, str]]) -> list[Part]:
    parts: list[Part] = []
    position = 0
    for start, end, style in marks:
        if start > position:
            parts.append(_between(line[position:start]))
        if style == "message":
            parts += [
                (kind and f"json-{kind}", part) for kind, part in json_tokens(line[start:end])
            ]
        else:
            parts.append((style, line[start:end]))
        position = end
    if position < len(line):
        parts.append(_between(line[position:]))
    return [part for part in parts if part[1]]


def _between(text: str) -> Part:
    return ("comment" if text.lstrip().startswith("#") else "", text)

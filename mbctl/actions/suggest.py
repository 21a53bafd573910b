"""Better advice for an error, where what exists shows what was probably meant."""

from collections.abc import Iterable

from mbctl.errors import MbctlError, TopicNotFound


def hint_for(error: MbctlError, topics: Iterable[str]) -> str:
    """The hint of ``error``; for an unknown topic, with a name of ``topics`` close to it."""
    if not isinstance(error, TopicNotFound):
        return error.hint
    from difflib import get_close_matches

    close = get_close_matches(error.topic, list(topics), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? or {error.hint}" if close else error.hint

"""Better advice for an error, where what exists shows what was probably meant."""

from collections.abc import Iterable

from mbctl.errors import MbctlError, NotSubscribed, SubscriptionNotFound, TopicNotFound


def wrong_name(error: MbctlError) -> str | None:
    """The name in ``error`` of something that is not there, if that is what it is about."""
    if isinstance(error, TopicNotFound):
        return error.topic
    if isinstance(error, SubscriptionNotFound | NotSubscribed):
        return error.subscriber
    return None


def hint_for(error: MbctlError, names: Iterable[str]) -> str:
    """The hint of ``error``; for a name that is not there, with one of ``names`` close to it."""
    wrong = wrong_name(error)
    if wrong is None:
        return error.hint
    from difflib import get_close_matches

    close = get_close_matches(wrong, list(names), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? or {error.hint}" if close else error.hint

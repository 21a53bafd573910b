"""What a request may ask for that no engine of this version does yet: refused, not ignored."""

from mbctl.errors import InvalidArgument, NotSupported
from mbctl.model import SubscribeOptions, TopicSettings


def refuse_unbuilt_settings(settings: TopicSettings) -> None:
    """Refuse settings of a topic that could not be kept.

    Raises:
        InvalidArgument: a bound makes no sense.
        NotSupported: a setting is not built yet.
    """
    for bound in (settings.max_messages, settings.max_bytes):
        if bound is not None and bound < 1:
            raise InvalidArgument(reason=f"a bound of a topic is at least 1, not {bound}")
    for name in ("max_age", "retain_age", "retain_bytes"):
        if getattr(settings, name) is not None:
            raise NotSupported(what=f"the topic setting {name}")
    if settings.when_full != "refuse":
        raise NotSupported(what=f"when_full={settings.when_full!r}")


def refuse_unbuilt_options(options: SubscribeOptions) -> None:
    """Refuse options of a subscription that could not be kept.

    Raises:
        NotSupported: an option is not built yet.
    """
    for name in ("max_deliveries", "dead_letter"):
        if getattr(options, name) is not None:
            raise NotSupported(what=f"the subscription option {name}")

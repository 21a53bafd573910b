"""Topics as streams: made, found, and what is remembered of them meanwhile."""

import secrets
from datetime import datetime
from typing import Any

import msgspec

from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.api import STREAM_NOT_FOUND, Api, Json
from mbctl.engine.jetstream.options import EngineOptions
from mbctl.errors import LimitExceeded, NotSupported, TopicExists, TopicNotFound
from mbctl.model import NS_PER_S, Limits, TopicInfo, TopicSettings, check_name, check_settings

_SETTINGS = "mbctl.settings"
_ID = "mbctl.id"
_CREATED = "mbctl.created"
# A stream is named within seconds of being made, or never; arbitrary above that.
_BROKEN_OFF_NS = 120 * NS_PER_S


class Topic:
    """What this server knows of a topic."""

    __slots__ = ("created", "last_sequence", "name", "settings", "stream", "subject", "topic_id")

    def __init__(self, name: str, topic_id: int, settings: TopicSettings, created: int) -> None:
        self.name = name
        self.topic_id = topic_id
        self.settings = settings
        self.created = created
        self.stream = names.stream_of(name, topic_id)
        self.subject = names.subject_of(topic_id)
        self.last_sequence = 0
        """That of the newest batch that was seen here; there may be newer ones."""

    def saw(self, sequence: int) -> None:
        """Note that there is a batch of that sequence."""
        self.last_sequence = max(self.last_sequence, sequence)


class Topics:
    """The topics by name; one that is known is not asked about again before it is forgotten."""

    def __init__(self, api: Api, options: EngineOptions, limits: Limits) -> None:
        self._api = api
        self._options = options
        self._limits = limits
        self._known: dict[str, Topic] = {}

    def known(self, name: str) -> Topic | None:
        """The topic, if it is known here."""
        return self._known.get(name)

    def forget(self, name: str) -> None:
        """Ask again before that topic is used."""
        self._known.pop(name, None)

    def forget_all(self) -> None:
        """Ask again about each."""
        self._known.clear()

    async def get(self, name: str) -> Topic:
        """The topic of that name.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self._known.get(name)
        return topic if topic is not None else (await self.look(name))[0]

    async def look(self, name: str) -> tuple[Topic, Json]:
        """The topic and its stream as they are now.

        Raises:
            TopicNotFound: there is none.
        """
        check_name(name)
        found = await self._find(name)
        topic = None if found is None else self._learn(name, found)
        if topic is None:
            self.forget(name)
            raise TopicNotFound(topic=name)
        assert found is not None
        return topic, found

    async def _find(self, name: str) -> Json | None:
        """The stream of a topic; None if there is none."""
        known = self._known.get(name)
        found = None if known is None else await self._api.stream(known.stream)
        return found if found is not None else (await self._named(name))[0]

    async def _named(self, name: str) -> tuple[Json | None, int]:
        """The stream that a topic is said to have, if it is there, and the revision of that."""
        topic_id, revision = await self._api.get(names.name_key(name), names.BUCKET)
        if not topic_id:
            return None, revision
        return await self._api.stream(names.stream_of(name, int(topic_id))), revision

    def _learn(self, name: str, found: Json) -> Topic | None:
        metadata = found["config"].get("metadata") or {}
        if _ID not in metadata:
            return None
        topic_id = int(metadata[_ID])
        topic = self._known.get(name)
        if topic is None or topic.topic_id != topic_id:
            settings = msgspec.json.decode(metadata[_SETTINGS], type=TopicSettings)
            topic = Topic(name, topic_id, settings, int(metadata[_CREATED]))
            self._known[name] = topic
        topic.saw(found["state"]["last_seq"])
        return topic

    async def all(self) -> list[tuple[Topic, Json]]:
        """All topics and their streams, by name."""
        request = {"subject": names.SUBJECTS}
        found = []
        async for stream in self._api.pages("STREAM.LIST", "streams", request):
            name = names.topic_of(stream["config"]["name"])
            if await self._is_named(name, stream):
                topic = self._learn(name, stream)
                if topic is not None:
                    found.append((topic, stream))
        return sorted(found, key=lambda pair: pair[0].name)

    async def _is_named(self, name: str, stream: Json) -> bool:
        """Whether a stream is that of a topic, and not of one whose creation was broken off."""
        known, its_name = self._known.get(name), stream["config"]["name"]
        if known is not None and known.stream == its_name:
            return True
        topic_id, _ = await self._api.get(names.name_key(name), names.BUCKET)
        if topic_id and names.stream_of(name, int(topic_id)) == its_name:
            return True
        age_ns = time_ns(stream["ts"]) - time_ns(stream["created"])
        if age_ns > _BROKEN_OFF_NS and not stream["state"]["last_seq"]:
            await self._delete(its_name)
        return False

    async def _delete(self, stream: str) -> None:
        await self._api.maybe(f"STREAM.DELETE.{stream}", None, STREAM_NOT_FOUND)

    async def create(
        self, name: str, settings: TopicSettings, *, exist_ok: bool, wall_ns: int
    ) -> tuple[Topic, bool]:
        """The topic, and whether it was created now.

        Raises:
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            LimitExceeded: there are as many as may be.
            NotSupported: a setting cannot be kept here.
        """
        check_name(name)
        check_settings(settings)
        check_supported(settings)
        while True:
            found, revision = await self._named(name)
            if found is not None:
                topic = self._learn(name, found)
                if topic is None or not (exist_ok and topic.settings == settings):
                    raise TopicExists(topic=name)
                return topic, False
            await self._check_count()
            made = await self._make(name, settings, wall_ns, revision)
            if made is not None:
                return made, True

    async def _make(
        self, name: str, settings: TopicSettings, wall_ns: int, revision: int
    ) -> Topic | None:
        """Make the stream of a topic, then name it; None if somebody else was faster.

        Nobody knows of a stream that has no name yet, so of two that are made one can go again.
        """
        topic_id = ((wall_ns // 1000) << 10) | secrets.randbits(10)
        config = self._config(name, topic_id, settings, wall_ns)
        made = await self._api.create_stream(config)
        key = names.name_key(name)
        if await self._api.put(key, str(topic_id).encode(), revision) is None:
            await self._delete(config["name"])
            return None
        return self._learn(name, made)

    async def unname(self, topic: Topic) -> None:
        """Forget which id a topic had that is deleted, unless it has another one by now."""
        key = names.name_key(topic.name)
        topic_id, revision = await self._api.get(key, names.BUCKET)
        if topic_id == str(topic.topic_id).encode():
            await self._api.remove(names.BUCKET, key, revision)

    async def _check_count(self) -> None:
        page = await self._api.call("STREAM.NAMES", {"subject": names.SUBJECTS})
        if page["total"] >= self._limits.topics:
            raise LimitExceeded(what="topics", limit=self._limits.topics)

    def _config(self, name: str, topic_id: int, settings: TopicSettings, wall_ns: int) -> Json:
        config: dict[str, Any] = {
            "name": names.stream_of(name, topic_id),
            "subjects": [names.subject_of(topic_id)],
            "retention": "limits",
            "storage": "file",
            "num_replicas": self._options.replicas,
            "duplicate_window": round(self._options.duplicate_s * NS_PER_S),
            "discard": "old" if settings.when_full == "drop_oldest" else "new",
            "allow_direct": True,
            "allow_atomic": True,
            "metadata": {
                _ID: str(topic_id),
                _CREATED: str(wall_ns),
                _SETTINGS: msgspec.json.encode(settings).decode(),
            },
        }
        if settings.max_bytes is not None:
            config["max_bytes"] = settings.max_bytes
        if settings.max_age is not None:
            age_ns = round(settings.max_age * NS_PER_S)
            config["max_age"] = age_ns
            # It may not be longer than what is kept.
            config["duplicate_window"] = min(config["duplicate_window"], age_ns)
        return config

    def info(self, topic: Topic, stream: Json, *, durability: str, note: str) -> TopicInfo:
        """What there is to say of a topic."""
        state = stream["state"]
        return TopicInfo(
            topic=topic.name,
            messages=0 if state["messages"] == 0 else None,
            bytes=state["bytes"],
            first_offset=names.offset_of(first_sequence(state)),
            next_offset=names.offset_of(state["last_seq"] + 1),
            subscriptions=state["consumer_count"],
            topic_id=topic.topic_id,
            created=topic.created,
            settings=topic.settings,
            durability=durability,
            batches=state["messages"],
            note=note,
        )


def check_supported(settings: TopicSettings) -> None:
    """Refuse settings that JetStream has no way to keep.

    Raises:
        NotSupported: max_messages counts messages, and JetStream only knows batches; it cannot
            tell the bytes of a part of a stream either.
    """
    for name in ("max_messages", "retain_bytes"):
        if getattr(settings, name) is not None:
            raise NotSupported(what=f"{name} on a topic of the cluster")


def first_sequence(state: Json) -> int:
    """The sequence of the first batch kept, or of the next one if there is none."""
    return state["last_seq"] + 1 if state["messages"] == 0 else int(state["first_seq"])


def time_ns(text: str) -> int:
    """A time of JetStream's as nanoseconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * NS_PER_S + int(fraction.ljust(9, "0")[:9] or 0)

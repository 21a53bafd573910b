"""Point 2: durability."""

import pytest
from semantic_worlds import Broker, World, texts

pytestmark = pytest.mark.point(2)


def test_what_was_acknowledged_is_there_after_a_restart(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r")
    durable.publisher.send_many(topic, ["a", "b"])
    durable.publisher.send(topic, "c", key=b"k", headers={"h": "v"})
    durable.restart()
    batch = reader.pull(topic)
    assert texts(batch) == ["a", "b", "c"]
    *_, last = batch
    assert (last.key, dict(last.headers), last.offset) == (b"k", {"h": "v"}, 2)


def test_an_offset_never_changes_its_content(durable: World, topic: str) -> None:
    durable.create(topic)
    durable.send(topic, "a", "b", "c")
    before = [(m.offset, m.payload, m.timestamp) for m in durable.admin.peek(topic)]
    topic_id = durable.topic(topic).topic_id
    durable.restart()
    durable.send(topic, "d")
    after = [(m.offset, m.payload, m.timestamp) for m in durable.admin.peek(topic)]
    assert after[:3] == before
    assert [offset for offset, *_ in after] == [0, 1, 2, 3]
    assert durable.topic(topic).topic_id == topic_id


def test_the_mode_is_told_by_status_and_by_the_topic(world: World, topic: str) -> None:
    world.create(topic)
    mode = "memory" if world.broker.data is None else "always"
    assert world.admin.status().durability == mode
    assert world.topic(topic).durability == mode
    assert world.publisher.welcome is not None
    assert world.publisher.welcome.durability == mode


def test_what_is_acknowledged_is_visible(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    for number in range(20):
        world.send(topic, str(number))
        assert texts(reader.pull(topic, wait=0)) == [str(number)]


def test_always_forces_data_to_disk_before_each_answer(durable: World, topic: str) -> None:
    durable.create(topic)
    for number in range(5):
        before = durable.admin.status().syncs
        durable.send(topic, str(number))
        assert durable.admin.status().syncs > before


def test_never_forces_nothing_and_shows_what_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, topic: str
) -> None:
    broker = Broker(tmp_path_factory.mktemp("never"), sync="never")
    with World("sync", broker) as world:
        world.create(topic)
        before = world.admin.status().syncs
        world.send(topic, "a", "b")
        assert world.kept(topic) == ["a", "b"]
        assert world.topic(topic).durability == "never"
        assert world.admin.status().syncs == before
        # A server that ends by itself loses nothing.
        world.restart()
        assert world.kept(topic) == ["a", "b"]
    broker.stop()

"""Who watches the registry remembers who was there when."""

from __future__ import annotations

from time import monotonic

from discoclient.cli.demo_roster import Roster
from discoclient.cli.demo_service import SERVICE
from discoclient.testing import memory_registry
from tests.support.eventually import eventually


def test_it_remembers_who_came_drained_and_left() -> None:
    with memory_registry() as registry, Roster(registry.url) as roster:
        first = registry.add(SERVICE, 8001, metadata={"number": "105"}, hostname="web-1", version="1")
        eventually(lambda: roster.numbers == {105})
        between = monotonic()
        registry.add(SERVICE, 8002, metadata={"number": "755"}, hostname="web-1", version="2")
        eventually(lambda: roster.numbers == {105, 755})
        assert roster.drains_at(105) is roster.left_at(105) is None
        draining = registry.drain(first)
        eventually(lambda: roster.drains_at(105) is not None)
        registry.remove(draining)
        eventually(lambda: roster.numbers == {755})
        came, drains, left = roster.came_at(105), roster.drains_at(105), roster.left_at(105)
        assert came is not None
        assert drains is not None
        assert left is not None
        assert came < between < drains < left < monotonic()
        assert roster.left_at(755) is roster.drains_at(755) is None
        assert roster.came_at(999) is roster.left_at(999) is None
        assert roster.seen_since(between) == {105, 755}
        assert roster.seen_since(monotonic()) == {755}
        assert [roster.name(number) for number in (105, 755, 999)] == ["web-1 v1", "web-1 v2", ""]

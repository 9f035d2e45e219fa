"""docs/scale.md is true: it reckons with the times and bounds of the code, its sums are right, its links lead somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from discoclient import register
from discoclient.control import follower, presence
from discoclient.control.attendance import PERIOD, WRITES
from discoclient.control.hub import LINGER
from discoclient.control.resolver import OBSERVE_PERIOD
from discoclient.registry.etcd.member import STREAMS
from discoclient.registry.etcd.members import CALLS
from discoclient.registry.happenings import WatchSettings

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "scale.md").read_text()
FLAT = re.sub(r"\s+", " ", TEXT)
TTL = float(inspect.signature(register).parameters["ttl"].default)


@pytest.mark.parametrize(
    ("says", "is_true"),
    [
        ("of a registration: 15 s, unless", TTL == 15.0),
        ("Each caller has one lease of 10 s", presence.TTL == 10.0),
        ("P x 3/10 a second", presence.TTL == 10.0),
        ("a question every 10 s", WatchSettings().silence == 10.0),
        ("P x F) / 300 a second", WatchSettings().resync == 300.0),
        ("at most 2 a second for each process and service", WRITES / PERIOD == 2.0),
        ("half a presence write a second", OBSERVE_PERIOD == 2.0),
        ("four times as long as that view took", follower.REST == 4.0),
        ("views never take more than a fifth of a core", 1 / (1 + follower.REST) == 0.2),
        ("a thousand watches, a hundred on each connection", STREAMS == 100),
        ("Services that nobody has called for a minute", LINGER == 60.0),
        ("64 questions are under way at a time", CALLS == 64),
    ],
)
def test_what_it_says_is_what_the_code_has(says: str, is_true: bool) -> None:
    assert says in FLAT
    assert is_true


def test_its_examples_follow_from_its_formulas() -> None:
    silence, resync = WatchSettings().silence, WatchSettings().resync
    for column, (instances, processes, services) in ((2, (1_000, 100, 5)), (3, (10_000, 500, 20))):
        watches = 2 * instances + processes * services
        expected = {
            "keys": instances + processes * services,
            "leases": instances + processes,
            "watches": watches,
            "renewals of leases": instances * 3 / TTL + processes * 3 / presence.TTL,
            "checks that silence is true": watches / silence,
            "lists, to be sure": watches / resync,
        }
        for name, number in expected.items():
            (line,) = (line for line in TEXT.splitlines() if line.startswith(f"| {name} |"))
            said = float(line.strip("| ").split(" | ")[column].replace(",", "").removesuffix("/s"))
            assert said == pytest.approx(number, rel=0.05), line


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        page = (DOCS / path).resolve() if path else DOCS / "scale.md"
        assert page.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings
            }, target

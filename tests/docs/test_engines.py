"""docs/engines.md is true: its choices and limits are the code's, its strictness is what the wire's tests let through.

And its examples run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient import ConfigError, DiscoClient, RetryPolicy
from discoclient.testing import TestRegistry
from discoclient.transport import wire
from discoclient.transport.http1 import async_connection, reader, sync_connection
from tests.support.forwarding import Proxy, UnixServer, answering, serving
from tests.support.servers import Servers, answer
from tests.wire.stricter import STRICTER, How

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "engines.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as started:
        yield started


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Of the tables in *text*, without their heads."""
    lines = text.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if line.startswith("| ") and not lines[number + 1].startswith("|---")
    ]


def test_the_table_has_every_engine_and_the_error_names_them() -> None:
    table = TEXT.partition("\n## ")[0]
    assert re.findall(r'^\| `"(\w+)"`', table, re.MULTILINE) == list(wire.ENGINES)
    with pytest.raises(ConfigError) as raised:
        DiscoClient("experiment", engine="none")
    assert ", ".join(wire.ENGINES) in str(raised.value)
    assert '`"auto"` (default)' in table
    assert wire.WireOptions().engine == "auto"


def test_each_way_to_be_stricter_has_a_row_and_each_row_is_one() -> None:
    """The table that the differential tests go by: a reason that is new there, or gone, is so here."""
    words = {
        How.REFUSES: "refuses",
        How.CALLS_IT: "another error: ",
        How.GIVES_LESS: "the same error, ",
        How.FRAMES_ONCE: "sends it alone",
    }
    ours = {each.why: each.how for each in STRICTER.values() if not each.everywhere}
    told = {why: what for _, what, why in rows(section("Strictness"))}
    assert told.keys() == ours.keys()
    for why, what in told.items():
        assert what.startswith(words[ours[why]]), why


def test_the_limits_and_times_are_these() -> None:
    assert f"a head of {reader.MOST_BYTES // 1024} KiB, and {reader.MOST_INTERIM} interim responses" in TEXT
    assert f"waits up to {async_connection.CONTINUE:g} s for the `100`" in TEXT
    assert async_connection.CONTINUE == sync_connection.CONTINUE
    assert f"is closed {wire.KEEPALIVE_MARGIN:g} s before the instance closes it" in TEXT
    assert f"not say counts as {wire.KEEPALIVE_UNSAID:g} s" in " ".join(TEXT.split())
    assert f"RetryPolicy(connect_timeout={RetryPolicy().connect_timeout:.1f})" in TEXT


def test_the_tests_and_pages_it_names_are_there() -> None:
    for name in re.findall(r"`(tests/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((\w+\.md)\)", TEXT):
        assert (ROOT / "docs" / name).is_file(), name
    assert "(docs/engines.md)" in (ROOT / "README.md").read_text()


def test_there_are_two_examples() -> None:
    assert [name in example for example in EXAMPLES for name in ("uds=", "proxy=")] == [
        True,
        False,
        False,
        True,
    ]


def test_the_example_with_unix_sockets_runs(
    disco_registry: TestRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "experiment.sock")
    disco_registry.add("experiment", 1, metadata={"socket": path})
    with serving(UnixServer(path, answering("hello from a socket:"))):
        exec(EXAMPLES[0], {"__name__": "example"})
    assert capsys.readouterr().out == "hello from a socket: /users/1 experiment\n"


def test_the_example_with_a_proxy_runs(
    disco_registry: TestRegistry, servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy, example = Proxy(), EXAMPLES[1]
    assert example.count("http://127.0.0.1:3128") == 1
    with serving(proxy):
        for zone, is_behind in (("dmz", True), ("elsewhere", False)):
            server = servers.start(answer(zone.encode()))
            instance = disco_registry.add("experiment", server.port, zone=zone)
            exec(example.replace("http://127.0.0.1:3128", proxy.url), {"__name__": "example"})
            assert capsys.readouterr().out.splitlines() == [zone] * 4
            assert server.requests == 4
            assert proxy.passed == ([server.address] * 4 if is_behind else [])
            proxy.passed.clear()
            disco_registry.remove(instance)

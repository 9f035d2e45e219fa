"""``disco ls`` on a real registry."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from discoclient import State
from discoclient.cli import looking
from discoclient.control.hub import find_address
from discoclient.dev import EtcdCluster
from discoclient.registry.codec import encode, to_record
from tests.cli.conftest import Disco
from tests.cli.records import Records, instance
from tests.support.ports import free_port

LONG_AGO = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
FOOTER = r"read \d+(\.\d)? (ms|s) ago"


def test_the_services_are_listed_with_their_instances_by_state(disco: Disco, records: Records) -> None:
    records.put(
        instance("experiment", "aaaaaaaa"),
        instance("experiment", "bbbbbbbb"),
        instance("experiment", "cccccccc", state=State.DRAINING),
        instance("ledger", "dddddddd", state=State.UNREADY),
    )
    result = disco("--registry", records.url, "ls")
    assert (result.code, result.err) == (0, "")
    assert result.lines[:3] == [
        "SERVICE     READY  UNREADY  DRAINING",
        "experiment      2        0         1",
        "ledger          0        1         0",
    ]
    assert re.fullmatch(rf"2 services, 4 instances at revision \d+, {FOOTER}", result.lines[3])


def test_the_instances_of_a_service_are_listed_the_oldest_first(disco: Disco, records: Records) -> None:
    records.put(
        instance("experiment", "0123456789abcdef", port=1),
        instance(
            "experiment",
            "fedcba9876543210",
            registered_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            scheme="https",
            host="::1",
            version="2.4.1",
            zone="eu-west-1a",
            weight=2.5,
            hostname="web-3\x1b[31m",
            slot="7",
            pid=4242,
            state=State.UNREADY,
        ),
        instance("experiment", "0123456700000000", registered_at=LONG_AGO),
        instance("ledger", "aaaaaaaa"),
    )
    result = disco("--registry", records.url, "ls", "experiment")
    assert (result.code, result.err) == (0, "")
    age = result.lines[3].split()[-1]
    assert re.fullmatch(r"\d+s", age)
    born = {
        entry.key.rpartition("/")[2]: str(entry.create_revision) for entry in records.entries("experiment")
    }
    width = max(3, *map(len, born.values()))
    first, second, third, gen = (
        text.rjust(width)
        for text in (
            born["0123456789abcdef"],
            born["0123456700000000"],
            born["fedcba9876543210"],
            "GEN",
        )
    )
    assert result.lines[:4] == [
        f"ID         ADDRESS             STATE    VERSION  ZONE        WEIGHT  HOSTNAME    SLOT   PID  {gen}  AGE",
        f"012345678  10.0.0.5:1          ready    -        -              100  -           0        -  {first}    -",
        f"012345670  10.0.0.5:8000       ready    -        -              100  -           0        -  {second}   3d",
        f"fedcba987  https://[::1]:8000  unready  2.4.1    eu-west-1a     2.5  web-3\ufffd[31m  7     4242  {third}  {age:>3}",
    ]
    assert re.fullmatch(rf"3 instances at revision \d+, {FOOTER}", result.lines[4])


def test_a_host_s_name_is_an_address_where_the_registry_s_url_admits_them(
    disco: Disco, records: Records
) -> None:
    named = instance("experiment", "aaaaaaaa", host="web.example")
    key = find_address(records.url).keys.instance("experiment", "aaaaaaaa")
    records.put_raw(key, encode(named, hostnames=True))
    lenient = disco("--registry", f"{records.url}?hostnames=1", "ls", "experiment")
    assert (lenient.code, lenient.err) == (0, "")
    assert lenient.lines[1].split()[:3] == ["aaaaaaaa", "web.example:8000", "ready"]
    strict = disco("--registry", records.url, "ls", "experiment")
    assert (strict.code, strict.out) == (1, "")


def test_json_has_the_whole_record_and_the_age(disco: Disco, records: Records) -> None:
    old = instance(
        "experiment", "aaaaaaaa", registered_at=LONG_AGO, metadata={"team": "red"}, extra={"colour": [1]}
    )
    new = instance("experiment", "bbbbbbbb")
    records.put(old, new)
    result = disco("--registry", records.url, "ls", "experiment", "--json")
    assert (result.code, result.err) == (0, "")
    first, second = map(json.loads, result.lines)
    assert first == to_record(new) | {"age": None}
    age = second.pop("age")
    assert 3 * 86400 <= age < 3 * 86400 + 600
    assert second == to_record(old)
    assert second["colour"] == [1]


def test_json_of_the_services_has_the_counts_and_the_age_of_the_oldest(
    disco: Disco, records: Records
) -> None:
    records.put(
        instance("experiment", "aaaaaaaa", registered_at=LONG_AGO),
        instance("experiment", "bbbbbbbb", registered_at=datetime.now(UTC).isoformat()),
        instance("ledger", "cccccccc", state=State.DRAINING),
    )
    experiment, ledger = map(json.loads, disco("--registry", records.url, "ls", "--json").lines)
    assert 3 * 86400 <= experiment.pop("age") < 3 * 86400 + 600
    assert experiment == {"service": "experiment", "ready": 2, "unready": 0, "draining": 0}
    assert ledger == {"service": "ledger", "ready": 0, "unready": 0, "draining": 1, "age": None}


def test_an_unknown_service_is_an_error(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa"))
    for arguments in (["ls", "nosuch"], ["ls", "nosuch", "--json"], ["ls", "experimen"]):
        result = disco("--registry", records.url, *arguments)
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch(
            rf"disco: no instance of {arguments[1]} is registered at revision \d+, {FOOTER}; 'disco ls' shows what is\n",
            result.err,
        )


def test_no_services_at_all_are_an_empty_table(disco: Disco, records: Records) -> None:
    result = disco("--registry", records.url, "ls")
    assert (result.code, result.lines[0]) == (0, "SERVICE  READY  UNREADY  DRAINING")
    assert result.lines[1].startswith("0 services, 0 instances at revision ")
    assert disco("--registry", records.url, "ls", "--json").out == ""


def test_invalid_records_are_left_out_and_mentioned(
    disco: Disco, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = records.url.partition("://")[2].partition("/")[2]
    records.put(instance("experiment", "aaaaaaaa"))
    records.put_raw(f"/{prefix}/services/experiment/bbbbbbbb", b"not json")
    records.put_raw(f"/{prefix}/services/stray", b"{}")
    result = disco("--registry", records.url, "ls")
    assert result.code == 0
    assert result.lines[1].split() == ["experiment", "1", "0", "0"]
    assert result.err == "disco: 2 invalid records skipped; 'disco doctor' tells which and why\n"
    monkeypatch.setenv("DISCO_LOG", "WARNING")
    log = disco("--registry", records.url, "ls").err
    assert "WARNING discoclient.registry: " in log
    assert "bbbbbbbb' is skipped: not a JSON value" in log


def test_an_override_is_mentioned_and_does_not_hide_the_registry(
    disco: Disco, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.put(instance("my-service", "aaaaaaaa"))
    monkeypatch.setenv("DISCO_OVERRIDE_MY_SERVICE", "http://127.0.0.1:3000")
    result = disco("--registry", records.url, "ls", "my-service")
    assert result.lines[1].split()[1] == "10.0.0.5:8000"
    assert "$DISCO_OVERRIDE_MY_SERVICE is set" in result.err


def test_a_static_registry_is_listed_too(disco: Disco) -> None:
    url = "static://experiment=127.0.0.1:8000,localhost:8001;ledger=10.0.0.7:80"
    assert [line.split()[:2] for line in disco("--registry", url, "ls").lines[1:3]] == [
        ["experiment", "2"],
        ["ledger", "1"],
    ]
    addresses = [line.split()[1] for line in disco("--registry", url, "ls", "experiment").lines[1:3]]
    assert sorted(addresses) == ["127.0.0.1:8000", "localhost:8001"]


def test_an_unreachable_registry_is_exit_code_4(disco: Disco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOK_TIMEOUT", 0.5)
    port = free_port()
    result = disco("--registry", f"etcd://user:secret@127.0.0.1:{port}", "ls")
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith(f"disco: the registry etcd://127.0.0.1:{port} did not answer within 0.5 s: ")
    assert result.err.count("\n") == 1
    assert "secret" not in result.err


def test_without_a_quorum_one_members_word_is_shown_as_such(
    disco: Disco, cluster3: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(cluster3.registry_url)
    records.put(instance("experiment", "aaaaaaaa"))
    assert "quorum" not in disco("--registry", records.url, "ls").out
    # whoever is left has what was put: the leader, which has it by definition
    for member in cluster3.followers():
        member.kill()
    monkeypatch.setattr(looking, "LOOK_TIMEOUT", 6.0)
    result = disco("--registry", records.url, "ls")
    assert result.code == 0
    assert result.lines[1].split() == ["experiment", "1", "0", "0"]
    assert result.lines[2].endswith("says one member without a quorum: it may be old")


@contextmanager
def standard_output(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has this process's standard output go to *descriptor*, and closes it at the end."""
    with monkeypatch.context() as patch, open(descriptor, "w") as stream:
        patch.setattr(sys, "stdout", stream)
        yield


def test_colours_are_for_terminals_and_not_if_no_color_is_set(
    disco: Disco, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--registry", "static://experiment=127.0.0.1:8000", "ls", "experiment")
    monkeypatch.setenv("TERM", "xterm-256color")

    def on_a_terminal() -> str:
        master, slave = os.openpty()
        try:
            with standard_output(slave, monkeypatch):
                assert disco(*arguments).code == 0
                shown = b""
                while b" ago" not in shown:  # the end of the last line
                    shown += os.read(master, 65536)
                return shown.decode()
        finally:
            os.close(master)

    assert "\x1b[32mready" in on_a_terminal()
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in on_a_terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = on_a_terminal()
    assert "\x1b" not in plain
    assert "ready" in plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in disco(*arguments).out


def test_an_output_that_nobody_reads_is_no_error(disco: Disco, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with standard_output(writer, monkeypatch):
        result = disco("--registry", "static://a=127.0.0.1:1", "ls")
    assert (result.code, result.err) == (0, "")


def test_an_output_that_is_full_is_an_error(disco: Disco, monkeypatch: pytest.MonkeyPatch) -> None:
    with standard_output(os.open("/dev/full", os.O_WRONLY), monkeypatch):
        result = disco("--registry", "static://a=127.0.0.1:1", "ls")
    assert (result.code, result.err) == (
        1,
        "disco: can't write to standard output: No space left on device\n",
    )

"""``disco explain``: who would be called, and why."""

import json
from typing import Any

import httpx
import pytest

from discoclient import DiscoClient
from tests.cli.conftest import Disco
from tests.cli.records import Records, instance
from tests.cli.web import Web
from tests.support.ports import free_port


def test_every_instance_is_shown_with_its_standing(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa", version="1.4", zone="a"))
    records.put(instance("experiment", "bbbbbbbb", state="draining"))
    records.put(instance("experiment", "cccccccc", weight=0))
    result = disco("--registry", records.url, "explain", "experiment")
    assert (result.code, result.err) == (0, "")
    header, first, second, third, last = result.lines
    assert header.split()[:4] == ["ID", "ADDRESS", "STANDING", "WEIGHT"]
    assert first.split()[0] == "aaaaaaaa"
    assert "ready" in first
    assert "1.4" in first
    assert "cccccccc" in second
    assert "weight 0" in second
    assert "bbbbbbbb" in third
    assert "draining" in third
    assert last.startswith("3 instances at revision ")
    assert "PeakEwma" in last


def test_requests_are_sent_first_if_that_is_asked_for(disco: Disco, records: Records, web: Web) -> None:
    dead = free_port()
    records.put(instance("experiment", "aaaaaaaa", host="127.0.0.1", port=web.port))
    records.put(instance("experiment", "bbbbbbbb", host="127.0.0.1", port=dead))
    result = disco("--registry", records.url, "explain", "experiment", "--requests", "30", "--path", "/echo")
    assert result.code == 0
    well, alone = result.lines[1:3]
    assert "100% of" in well
    assert ", connect" in alone
    assert "requests 30" in result.out
    assert "ejections.connect 1" in result.out


def test_json_is_the_record_with_what_is_shown(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa", version="1.4"))
    result = disco("--registry", records.url, "explain", "experiment", "--json")
    (line,) = result.lines
    row = json.loads(line)
    assert row["id"] == "aaaaaaaa"
    assert row["version"] == "1.4"
    assert (row["standing"], row["share"], row["in_flight"]) == ("ready", 100, 0)
    assert row["ejected_for"] is None
    assert row["age"] >= 0


def test_a_service_that_has_nobody_is_a_failure_in_one_line(disco: Disco, records: Records) -> None:
    result = disco("--registry", records.url, "explain", "nobody")
    assert result.code == 1
    assert result.err == "disco: no instance of nobody is registered; 'disco ls' shows what is\n"


def test_a_wrong_balancer_is_named_with_the_choices(disco: Disco, records: Records) -> None:
    result = disco("--registry", records.url, "explain", "experiment", "--balancer", "fastest")
    assert result.code == 2
    assert "peak_ewma" in result.err
    assert result.err.count("\n") == 1


def test_the_balancer_is_the_one_that_was_named(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa"))
    for options, shown in (((), "PeakEwma"), (("--balancer", "round_robin"), "RoundRobin")):
        result = disco("--registry", records.url, "explain", "experiment", *options)
        assert result.code == 0
        assert result.lines[-1].endswith(f"by {shown}")


def test_timeout_is_how_long_the_service_is_looked_for(disco: Disco) -> None:
    url = f"etcd://127.0.0.1:{free_port()}"
    result = disco("--registry", url, "explain", "experiment", "--timeout", "0.3")
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("disco: nothing is known of service 'experiment' after 0.3 s")


def test_timeout_is_how_long_each_request_may_take_too(
    disco: Disco, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    class Recorder(DiscoClient):
        def __init__(self, service: str, **options: Any) -> None:
            super().__init__(service, **options)
            told.append(self.timeout)

    monkeypatch.setattr("discoclient.cli.explain.DiscoClient", Recorder)
    command = ("--registry", f"static://experiment=127.0.0.1:{web.port}", "explain", "experiment", "--json")
    hanging = ("--requests", "1", "--path", "/hang", "--timeout", "0.2")
    (line,) = disco(*command, *hanging).lines
    assert (json.loads(line)["requests"], json.loads(line)["failures"]) == (1, 1)
    assert disco(*command, "--timeout", "7").code == disco(*command).code == 0
    assert told == [httpx.Timeout(0.2), httpx.Timeout(7.0), httpx.Timeout(5.0)]

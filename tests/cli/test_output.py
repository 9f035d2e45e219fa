"""What is printed, to the letter."""

from datetime import UTC, datetime
from random import Random

import pytest

from discoclient import State
from discoclient.cli.ages import age_of, age_text, duration_text
from discoclient.cli.changes import Change
from discoclient.cli.ls import shorten
from discoclient.cli.output import align, clean, count, emit, emit_json, emit_table
from discoclient.cli.watch import _to_line
from tests.cli.records import instance

NOW = datetime(2026, 11, 23, 15, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0s"),
        (0.99, "0s"),
        (1.0, "1s"),
        (59.9, "59s"),
        (60.0, "1m"),
        (3599.0, "59m"),
        (3600.0, "1h"),
        (86399.0, "23h"),
        (86400.0, "1d"),
        (864000.0, "10d"),
    ],
)
def test_an_age_has_the_greatest_unit_that_fits(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 ms"),
        (0.00042, "0.4 ms"),
        (0.0099, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.3456, "346 ms"),
        (1.25, "1.2 s"),
    ],
)
def test_a_duration_has_two_or_three_digits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("registered_at", "age"),
    [
        ("2026-11-23T14:59:00Z", 60.0),
        ("2026-11-23T15:59:00+01:00", 60.0),
        ("2026-11-23T14:59:00", 60.0),
        ("2026-11-23T15:00:07Z", 0.0),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_the_age_of_an_instance_is_known_if_it_says_when_it_registered(
    registered_at: str | None, age: float | None
) -> None:
    assert age_of(instance("experiment", "aaaaaaaa", registered_at=registered_at), NOW) == age


def test_ids_are_shortened_as_far_as_they_stay_unique() -> None:
    assert shorten(["0123456789", "abcdefghij"]) == {"0123456789": "01234567", "abcdefghij": "abcdefgh"}
    assert shorten(["web-server-1", "web-server-2"]) == {
        "web-server-1": "web-server-1",
        "web-server-2": "web-server-2",
    }
    assert shorten(["web-server", "web-server-2"]) == {
        "web-server": "web-server",
        "web-server-2": "web-server-",
    }
    assert shorten([]) == {}


def test_no_two_shortened_ids_are_the_same() -> None:
    rng = Random(7)
    ids = {"".join(rng.choices("ab", k=rng.randint(8, 16))) for _ in range(500)}
    assert len(set(shorten(sorted(ids)).values())) == len(ids)


def test_a_table_is_aligned_and_has_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    emit_table(
        ("ID", "WEIGHT", "NOTE"),
        [["long-name", "5", "x"], ["b", "100", ("a longer note", "red")], ["c", "7", ""]],
        right=("WEIGHT",),
    )
    assert capsys.readouterr().out.split("\n") == [
        "ID         WEIGHT  NOTE",
        "long-name       5  x",
        "b             100  a longer note",
        "c               7  ",
        "",
    ]


def test_styles_survive_the_alignment() -> None:
    assert align([["a", ("bb", "red")], [("ccc", "green"), "d"]], right={1}) == [
        ["a  ", "  ", ("bb", "red")],
        [("ccc", "green"), "  ", " d"],
    ]


def test_styles_are_not_printed_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    emit("plain ", ("[red]brackets[/red]", "bold red"))
    assert capsys.readouterr().out == "plain [red]brackets[/red]\n"


def test_json_is_one_line_of_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"name": "caf\N{LATIN SMALL LETTER E WITH ACUTE}\n\x1b[31m", "age": None})
    assert capsys.readouterr().out == '{"name": "caf\\u00e9\\n\\u001b[31m", "age": null}\n'


def test_what_could_steer_a_terminal_is_replaced() -> None:
    assert clean("web\x1b[31m-3\r\n\u202e") == "web\ufffd[31m-3\ufffd\ufffd\ufffd"
    assert clean("caf\N{LATIN SMALL LETTER E WITH ACUTE} 3") == "caf\N{LATIN SMALL LETTER E WITH ACUTE} 3"


def test_one_is_singular() -> None:
    assert [count(number, "instance") for number in (0, 1, 2)] == ["0 instances", "1 instance", "2 instances"]


def line(change: Change) -> str:
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in _to_line(change, NOW))


def test_a_change_is_one_line() -> None:
    time = f"{NOW.astimezone():%H:%M:%S}"
    came = instance("experiment", "aaaaaaaa", host="::1")
    assert line(Change("+", came)) == f"{time} + experiment aaaaaaaa [::1]:8000 ready"
    left = instance("experiment", "aaaaaaaa", state=State.DRAINING)
    assert line(Change("-", left)) == f"{time} - experiment aaaaaaaa 10.0.0.5:8000 draining"
    fields = {"state": ("ready", "unready"), "version": (None, "2\x1b")}
    changed = Change("~", instance("experiment", "aaaaaaaa", state=State.UNREADY), fields)
    assert line(changed) == (
        f"{time} ~ experiment aaaaaaaa 10.0.0.5:8000 unready  state: ready -> unready, version: - -> 2\ufffd"
    )

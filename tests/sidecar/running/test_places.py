"""Where one may listen, and how it is written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disco_sidecar.places import Kind, Listener, Place, parse_listener, parse_place
from discoclient.model.errors import ConfigError

ports = st.integers(0, 65535)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda path: len(path.encode()) <= 100
)
places = st.one_of(st.builds(Place, addresses, ports), paths.map(lambda path: Place(path=path)))


@given(places)
def test_what_a_place_prints_means_that_place(place: Place) -> None:
    assert parse_place(str(place), "--bind") == place


@given(places, st.sampled_from([Kind.LISTEN, Kind.TCP]))
def test_what_a_listener_prints_means_that_listener(place: Place, kind: Kind) -> None:
    listener = Listener(kind, place, "experiment")
    said = str(listener).removeprefix(f"{kind} ")
    assert parse_listener(kind, said) == listener


@given(st.text())
def test_any_text_is_a_place_or_refused_in_one_line_that_shows_the_forms(text: str) -> None:
    try:
        place = parse_place(text, "--bind")
    except ConfigError as error:
        problem = str(error)
    else:
        assert place.path is not None or ipaddress.ip_address(place.host)
        assert 0 <= place.port <= 65535
        return
    assert problem.startswith("--bind")
    assert "unix:PATH" in problem or "Unix socket" in problem


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("80", "127.0.0.1"),
        ("localhost:80", "127.0.0.1"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[0:0:0:0:0:0:0:1]:80", "::1"),
        ("[FE80::1]:80", "fe80::1"),
        ("0.0.0.0:80", "0.0.0.0"),
    ],
)
def test_an_address_has_one_spelling(text: str, host: str) -> None:
    assert parse_place(text, "--bind") == Place(host, 80)


NO_PLACES = (
    *(
        ":",
        ":80",
        "[]:80",
        "::1:80",
        "[127.0.0.1]:80",
        "127.1:80",
        "example.com:80",
        "80x",
        "-1",
        "+80",
        "65536",
    ),
    *(
        "127.0.0.1",
        "127.0.0.1:",
        "unix:",
        "٨٠",
        "*:80",
        "fe80::1",
        "[::1]",
        "[::1:80",
        "::1]:80",
        "127.0.0.1:-1",
    ),
)


@pytest.mark.parametrize("text", [*NO_PLACES, "", "80 ", " 80", "unix:" + "x" * 101])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--bind"):
        parse_place(text, "--bind")


@pytest.mark.parametrize(
    "text", ["8081", "8081=", "8081=Experiment", "=experiment", "8081=a=b c", "x=experiment"]
)
def test_what_is_no_listener_is_refused_by_its_options_name(text: str) -> None:
    with pytest.raises(ConfigError, match="--tcp"):
        parse_listener(Kind.TCP, text)


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        ("80", "127.0.0.1:80", True),
        ("80", "[::1]:80", True),  # the loopback is both
        ("0.0.0.0:80", "80", True),
        ("0.0.0.0:80", "127.0.0.2:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "0.0.0.0:80", False),
        ("127.0.0.2:80", "80", False),
        ("80", "81", False),
        ("0", "0", False),  # each is another port
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "80", False),
    ],
)
def test_places_overlap_if_not_both_can_be_listened_on(one: str, other: str, overlaps: bool) -> None:
    first, second = parse_place(one, ""), parse_place(other, "")
    assert first.overlaps(second) is second.overlaps(first) is overlaps


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("80", True),
        ("127.9.9.9:80", True),
        ("[::1]:80", True),
        ("unix:/a", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
    ],
)
def test_only_the_loopback_and_a_unix_socket_are_this_machines_alone(text: str, is_local: bool) -> None:
    assert parse_place(text, "").is_local is is_local

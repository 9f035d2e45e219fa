"""Which service a request means, and who may ask."""

from __future__ import annotations

import pytest

from disco_sidecar.http.fields import read_fields
from disco_sidecar.http.reading import Message
from disco_sidecar.http.refusal import Refused
from disco_sidecar.routing import Aim, Way, admit, aim, aim_unusual

ANY = Way()
APP = Way(hosts=frozenset({b"app.example.com"}))
WEB = Way(service="web")


def meant(
    target: str, way: Way = ANY, host: str | None = "localhost", *lines: str, method: bytes = b"GET"
) -> Aim:
    """Raises `Refused`."""
    all_lines = ([f"Host: {host}"] if host is not None else []) + list(lines)
    fields = read_fields("".join(f"{line}\r\n" for line in all_lines).encode())
    message = Message(method, target.encode(), 1, fields)
    return aim(message, way, admit(fields, way)) if target.startswith("/") else aim_unusual(message, way)


@pytest.mark.parametrize(
    ("target", "service", "rest"),
    [
        ("/web", "web", b"/"),
        ("/web/", "web", b"/"),
        ("/web/users/1", "web", b"/users/1"),
        ("/web?a=b", "web", b"/?a=b"),
        ("/web/?a=/b", "web", b"/?a=/b"),
        ("/web//x", "web", b"//x"),
        ("/web/../other", "web", b"/../other"),
        ("/web/%2e%2e/%2F", "web", b"/%2e%2e/%2F"),
        ("/a", "a", b"/"),
        ("/0-9/", "0-9", b"/"),
        ("/" + "a" * 63, "a" * 63, b"/"),
    ],
)
def test_the_first_segment_names_the_service_and_the_rest_stays_as_it_is(
    target: str, service: str, rest: bytes
) -> None:
    assert meant(target) == Aim(service, rest, service.encode(), b"/" + service.encode())


@pytest.mark.parametrize(
    "target",
    ["/", "//", "//web/", "/?web", "/Web/", "/w%65b/", "/web%2f", "/web;a/", "/web.x/", "/-web/", "/web-/", "/we_b/",
     "/../web/", "/./web", "/" + "a" * 64, "/web\\x", "/web:80/"],
)  # fmt: skip
def test_another_segment_names_none(target: str) -> None:
    with pytest.raises(Refused) as caught:
        meant(target)
    assert (caught.value.status, caught.value.is_final) == (404, False)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:7500", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:7500", None]
)
def test_names_of_this_machine_are_known(host: str | None) -> None:
    assert meant("/web/x", ANY, host).service == "web"
    assert meant("/x", WEB, host).service == "web"


@pytest.mark.parametrize(
    "host",
    ["evil.com", "localhost.evil.com", "evil-localhost", "127.0.0.1.evil.com", "127.0.0.2", "0.0.0.0", "[::2]",
     "[::1].evil.com", "disco.localhost", ".disco.localhost", "a.b.disco.localhost", "-a.disco.localhost",
     "web.disco.localhost.evil.com",
     "webxdisco.localhost", "localhost.", "web.disco.localhost.", "app.example.com", "web", "2130706433"],
)  # fmt: skip
def test_other_names_are_not(host: str) -> None:
    with pytest.raises(Refused) as caught:
        meant("/web/x", ANY, host)
    assert caught.value.status in (400, 421)


@pytest.mark.parametrize(
    ("way", "host", "expected"),
    [
        (ANY, "web.disco.localhost", Aim("web", b"/x/y", b"web.disco.localhost")),
        (ANY, "WEB.Disco.Localhost:7500", Aim("web", b"/x/y", b"WEB.Disco.Localhost:7500")),
        (APP, "APP.example.com", Aim("x", b"/y", b"x", b"/x")),
        (WEB, "localhost:8081", Aim("web", b"/x/y", b"localhost:8081")),
        (WEB, "web", Aim("web", b"/x/y", b"web")),
        (WEB, "web.disco.localhost", Aim("web", b"/x/y", b"web.disco.localhost")),
        (WEB, None, Aim("web", b"/x/y", b"web")),
    ],
)
def test_a_name_or_a_port_means_its_service(way: Way, host: str | None, expected: Aim) -> None:
    assert meant("/x/y", way, host) == expected


def test_the_port_of_one_service_is_not_anothers() -> None:
    with pytest.raises(Refused):
        meant("/x", WEB, "other.disco.localhost")
    with pytest.raises(Refused):
        meant("/x", WEB, "other")


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://web/x?y", "web", Aim("web", b"/x?y", b"web", b"", True)),
        ("HTTP://WEB", "web", Aim("web", b"/", b"web", b"", True)),
        ("http://web?y", "web", Aim("web", b"/?y", b"web", b"", True)),
        ("http://web:80/x", "web:80", Aim("web", b"/x", b"web", b"", True)),
        (
            "http://web.disco.localhost:7500/x",
            "web.disco.localhost:7500",
            Aim("web", b"/x", b"web", b"", True),
        ),
        ("http://web/x", None, Aim("web", b"/x", b"web", b"", True)),
    ],
)
def test_a_proxys_client_means_a_service_by_its_name(target: str, host: str | None, expected: Aim) -> None:
    assert meant(target, ANY, host) == expected


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.com/", "evil.com", 403),
        ("http://127.0.0.1/", "127.0.0.1", 403),
        ("http://169.254.169.254/", "169.254.169.254", 403),
        ("http://[::1]/", "[::1]", 403),
        ("http://web:8080/", "web:8080", 403),
        ("http://a.b.disco.localhost/", "a.b.disco.localhost", 403),
        ("http://web/", "evil.com", 400),
        ("http://evil.com/", "web", 400),
        ("http://user@web/", "web", 400),
        ("http://user:pass@web/", "web", 400),
        ("http:///web/", "localhost", 400),
        ("https://web/", "web", 400),
        ("ftp://web/", "web", 400),
        ("web:80", "web:80", 400),
        ("*", "localhost", 400),
        ("web/x", "localhost", 400),
    ],
)
def test_it_is_no_open_proxy(target: str, host: str, status: int) -> None:
    with pytest.raises(Refused) as caught:
        meant(target, ANY, host)
    assert caught.value.status == status


def test_options_of_everything_mean_the_ports_service() -> None:
    assert meant("*", WEB, "localhost", method=b"OPTIONS") == Aim("web", b"*", b"localhost")
    for way, method in ((ANY, b"OPTIONS"), (WEB, b"GET")):
        with pytest.raises(Refused):
            meant("*", way, "localhost", method=method)
    with pytest.raises(Refused):
        meant("*", WEB, "evil.com", method=b"OPTIONS")


@pytest.mark.parametrize(
    "line",
    ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: Cross-Site", "Origin: http://evil.com", "Origin: null", "Origin:",
     "Origin: https://localhost.evil.com", "Origin: http://evil.com/localhost", "Origin: http://localhost@evil.com",
     "Origin: file://", "Origin: moz-extension://localhost", "Origin: http://a.localhost", "Origin: http://disco.localhost"],
)  # fmt: skip
def test_a_page_of_another_site_may_not_ask(line: str) -> None:
    for target, way, host in (
        ("/web/x", ANY, "localhost:7500"),
        ("/x", WEB, "localhost"),
        ("http://web/", ANY, "web"),
    ):
        with pytest.raises(Refused) as caught:
            meant(target, way, host, line)
        assert caught.value.status == 403


@pytest.mark.parametrize(
    "line",
    ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: none", "Origin: http://localhost:3000",
     "Origin: HTTP://LOCALHOST", "Origin: https://127.0.0.1", "Origin: http://[::1]:80", "Origin: http://web.disco.localhost",
     "Origin: http://app.example.com:8443"],
)  # fmt: skip
def test_a_page_of_this_machine_may(line: str) -> None:
    assert meant("/web/x", APP, "localhost:7500", line).service == "web"


def test_a_rebound_name_does_not_pass_for_our_own() -> None:
    with pytest.raises(Refused) as caught:
        meant("/web/x", ANY, "evil.com", "Origin: http://evil.com")
    assert caught.value.status == 421

"""Who may look: by the name it is called by, and by who asks."""

import pytest

from disco_sidecar.admin.guard import Guard, Head
from discoclient.model.errors import ConfigError

LOCAL = ("host", "localhost:7501")


def status(
    *headers: tuple[str, str], method: str = "GET", target: str = "/", version: str = "1.1", **how: object
) -> int:
    """What is answered to a head: 200 stands for not being refused."""
    guard = Guard(how.get("allow_hosts", ()))  # type: ignore[arg-type]
    refusal = guard.refusal(Head(method, target, headers, version), is_unix=bool(how.get("is_unix")))
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:7501", "127.0.0.1:7501", "[::1]:7501", "[::1]", "127.0.0.1:1"]
)
def test_the_names_of_loopback_are_answered_with_any_port(host: str) -> None:
    assert status(("host", host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7501", "localhost.evil.example", "localhost.", "127.0.0.1.evil.example", "127.0.0.2",
        "127.1", "2130706433", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "", "localhost:", "localhost:x", "localhost:123456",
        "user@localhost", "localhost/", "localhost localhost", "localhost,evil.example", "[::1", "\xe9",
    ],
)  # fmt: skip
def test_any_other_name_is_421_for_a_name_may_resolve_to_loopback_all_of_a_sudden(host: str) -> None:
    assert status(("host", host)) == 421


def test_names_can_be_allowed_and_only_those() -> None:
    allowed = ["Admin.Internal", "10.0.0.7"]
    assert status(("host", "admin.internal:7501"), allow_hosts=allowed) == 200
    assert status(("host", "10.0.0.7"), allow_hosts=allowed) == 200
    assert status(("host", "localhost"), allow_hosts=allowed) == 200
    assert status(("host", "other.internal"), allow_hosts=allowed) == 421


@pytest.mark.parametrize("name", ["admin:7501", "", "a b", "http://admin", "::1", "*"])
def test_what_is_no_name_can_t_be_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match="host name or an IP address"):
        Guard([name])


def test_a_unix_socket_is_called_what_you_like_for_nothing_on_the_web_leads_there() -> None:
    assert status(("host", "disco"), is_unix=True) == 200
    assert status(("host", "a b"), is_unix=True) == 421
    assert status(("host", "disco"), ("sec-fetch-site", "cross-site"), is_unix=True) == 403


def test_exactly_one_host_is_needed_but_by_http_1_0_that_probes_come_with() -> None:
    assert status() == 400
    assert status(LOCAL, LOCAL) == 400
    assert status(version="1.0") == 200
    assert status(("host", "evil.example"), version="1.0") == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_only_looking_is_possible(method: str) -> None:
    assert status(LOCAL, method=method) == 405


def test_another_http_is_505() -> None:
    assert status(LOCAL, version="2.0") == 505
    assert status(LOCAL, version="0.9") == 505


@pytest.mark.parametrize("target", ["http://localhost/", "*", "localhost:80", "/#x", "/\x80", "", "//\x7f"])
def test_only_a_path_is_a_target(target: str) -> None:
    assert status(LOCAL, target=target) == 400


def test_a_body_is_refused() -> None:
    assert status(LOCAL, ("content-length", "5")) == 413
    assert status(LOCAL, ("transfer-encoding", "chunked")) == 413
    assert status(LOCAL, ("content-length", "0")) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "", "same-origin, none"])
@pytest.mark.parametrize("target", ["/", "/api/services", "/metrics"])
def test_what_a_page_of_another_site_asks_for_is_403(site: str, target: str) -> None:
    assert status(LOCAL, ("sec-fetch-site", site), target=target) == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_our_own_page_and_the_address_bar_are_answered(site: str) -> None:
    assert status(LOCAL, ("sec-fetch-site", site), target="/api/events") == 200


def test_a_link_to_the_page_may_be_followed_but_not_one_to_the_data_and_not_into_a_frame() -> None:
    link = (LOCAL, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"))
    assert status(*link, ("sec-fetch-dest", "document")) == 200
    assert status(*link, ("sec-fetch-dest", "document"), target="/api/services") == 403
    assert status(*link, ("sec-fetch-dest", "iframe")) == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost",
        "https://localhost:7501",
        "http://127.0.0.1:7501",
        "",
    ],
)
def test_an_origin_that_is_not_ours_is_403(origin: str) -> None:
    assert status(LOCAL, ("origin", origin)) == 403


def test_our_own_origin_is_answered() -> None:
    assert status(LOCAL, ("origin", "http://localhost:7501")) == 200
    assert status(("origin", "http://localhost"), version="1.0") == 403

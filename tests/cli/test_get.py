"""``disco get``: the body on standard output, who answered on standard error."""

import json
import re
import signal
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import httpx
import pytest

from discoclient import DiscoClient, State
from tests.cli.conftest import Disco, StartDisco
from tests.cli.records import Records, instance
from tests.cli.web import Web
from tests.support.ports import free_port


@pytest.fixture
def url(web: Web) -> str:
    """A registry that knows `web` as experiment."""
    return f"static://experiment=127.0.0.1:{web.port}"


def test_a_request_goes_to_an_instance_of_the_registry(disco: Disco, records: Records, web: Web) -> None:
    records.put(instance("experiment", "aaaaaaaa", host="127.0.0.1", port=web.port))
    result = disco("--registry", records.url, "get", "experiment", "/echo?x=1")
    assert result.code == 0
    got = json.loads(result.out)
    assert (got["method"], got["path"], got["headers"]["host"]) == ("GET", "/echo?x=1", "experiment")
    assert re.fullmatch(
        rf"200 from aaaaaaaa at 127\.0\.0\.1:{web.port}, attempt 1, revision \d+, \d+(\.\d)? m?s\n",
        result.err,
    )


def test_the_next_instance_is_asked_if_one_can_not_be_reached(disco: Disco, web: Web) -> None:
    """The dead one is ejected after its first failure, so it may take some requests until it is chosen first."""
    dead = free_port()
    url = f"static://experiment=127.0.0.1:{dead},127.0.0.1:{web.port}"
    attempts = set()
    for _ in range(50):
        result = disco("--registry", url, "get", "experiment", "/echo")
        assert result.code == 0
        assert f"at 127.0.0.1:{web.port}, " in result.err
        attempts.add(result.err.partition(", attempt ")[2][0])
        if attempts == {"1", "2"}:
            return
    pytest.fail(f"the attempts were always {attempts}")


def test_method_headers_and_body_are_sent_as_given(disco: Disco, url: str, tmp_path: Path) -> None:
    def ask(*options: str) -> dict[str, object]:
        return json.loads(disco("--registry", url, "get", "experiment", "/a//b%20c?q=%C3%A9", *options).out)

    plain = ask()
    assert (plain["method"], plain["path"], plain["body"]) == ("GET", "/a//b%20c?q=%C3%A9", "")
    assert plain["headers"]["accept-encoding"] == "identity"
    posted = ask("-d", '{"a": 1}', "-H", "Content-Type: application/json", "-H", "X-Colon: a: b ")
    assert (posted["method"], posted["body"]) == ("POST", '{"a": 1}')
    assert posted["headers"]["content-type"] == "application/json"
    assert posted["headers"]["x-colon"] == "a: b"
    (tmp_path / "body").write_bytes(b"\x00\xff")
    put = ask("--method", "PUT", "--data", f"@{tmp_path / 'body'}")
    assert (put["method"], put["body"]) == ("PUT", "\x00\xff")


def test_the_body_may_come_from_standard_input(
    disco: Disco, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"\x00\xff from a pipe")))
    got = json.loads(disco("--registry", url, "get", "experiment", "/", "--data", "@-").out)
    assert (got["method"], got["body"]) == ("POST", "\x00\xff from a pipe")


def test_a_path_that_looks_like_another_host_stays_with_the_service(disco: Disco, url: str) -> None:
    result = disco("--registry", url, "get", "experiment", "//example.com/x")
    assert result.code == 0
    assert json.loads(result.out)["headers"]["host"] == "experiment"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (204, 0), (399, 0), (400, 1), (404, 1), (500, 1)])
def test_the_status_decides_the_exit_code(disco: Disco, url: str, status: int, code: int) -> None:
    result = disco("--registry", url, "get", "experiment", f"/status/{status}")
    assert result.code == code
    assert result.err.startswith(f"{status} from static-")
    assert result.out == ("" if status == 204 else "as you wish\n")


def test_a_redirect_is_shown_and_not_followed(disco: Disco, url: str) -> None:
    result = disco("--registry", url, "get", "experiment", "/elsewhere", "--include")
    assert result.code == 0
    head = result.out.split("\r\n")
    assert head[0] == "HTTP/1.1 307 Temporary Redirect"
    assert {"location: /echo", "x-test: yes"} <= {line.lower() for line in head}
    assert head[-2:] == ["", ""]


def test_without_include_there_is_the_body_alone(disco: Disco, url: str) -> None:
    assert disco("--registry", url, "get", "experiment", "/status/200").out == "as you wish\n"
    with_head = disco("--registry", url, "get", "experiment", "/status/200", "-i").out
    assert with_head.endswith("\r\n\r\nas you wish\n")


def test_a_slow_answer_is_given_up_after_the_timeout(disco: Disco, url: str) -> None:
    result = disco("--registry", url, "get", "experiment", "/hang", "--timeout", "0.2")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("disco: ReadTimeout: ")
    assert result.err.count("\n") == 1


def test_timeout_is_how_long_each_part_of_a_request_may_take(
    disco: Disco, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the second: an answer that never comes is given up after the default, too."""
    told: list[httpx.Timeout] = []

    class Recorder(DiscoClient):
        def __init__(self, service: str, **options: Any) -> None:
            super().__init__(service, **options)
            told.append(self.timeout)

    monkeypatch.setattr("discoclient.cli.get.DiscoClient", Recorder)
    for options in (("--timeout", "7"), ()):
        assert disco("--registry", url, "get", "experiment", "/status/200", *options).code == 0
    assert told == [httpx.Timeout(7.0), httpx.Timeout(5.0)]


def test_ctrl_c_ends_a_request_without_a_word(start_disco: StartDisco, url: str, web: Web) -> None:
    getting = start_disco("--registry", url, "get", "experiment", "/hang", "--timeout", "60")
    assert web.hanging.wait(30)
    getting.signal(signal.SIGINT)
    assert getting.wait(timeout=30) == 130
    assert (getting.output, getting.errors) == ("", "")


def test_an_instance_that_refuses_is_a_failed_request_in_one_line(disco: Disco) -> None:
    url = f"static://experiment=127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    result = disco("--registry", url, "get", "experiment", "/")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("disco: ConnectError: ")
    assert "attempt 1 at 127.0.0.1:" in result.err
    assert "attempt 2 at 127.0.0.1:" in result.err
    assert result.err.count("\n") == 1


def test_a_service_without_instances_is_exit_code_1(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa", state=State.DRAINING))
    for service, detail in (
        ("nosuch", "nothing is registered there"),
        ("experiment", "1 registered (draining)"),
    ):
        result = disco("--registry", records.url, "get", service, "/")
        assert (result.code, result.out) == (1, "")
        assert detail in result.err


def test_an_unreachable_registry_is_exit_code_4(disco: Disco) -> None:
    result = disco(
        "--registry", f"etcd://127.0.0.1:{free_port()}", "get", "experiment", "/", "--timeout", "0.5"
    )
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("disco: nothing is known of service 'experiment' after 0.5 s")
    assert result.err.count("\n") == 1


def test_an_override_is_obeyed(disco: Disco, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_OVERRIDE_EXPERIMENT", f"http://127.0.0.1:{web.port}")
    result = disco(
        "--registry", f"static://experiment=127.0.0.1:{free_port()}", "get", "experiment", "/status/200"
    )
    assert (result.code, result.out) == (0, "as you wish\n")

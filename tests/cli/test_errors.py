"""Every error ends as one line and one exit code."""

import httpx
import pytest

from discoclient import (
    ConfigError,
    DeadlineExceeded,
    DiscoveryTimeout,
    LeaseExpired,
    NoInstances,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
)
from discoclient.cli.errors import Failure, explain
from discoclient.dev import EtcdFailed, EtcdNotFound


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("not there"), 1),
        (Failure("not well", 3), 3),
        (ConfigError("x is one of a, b"), 2),
        (EtcdNotFound("no etcd"), 2),
        (EtcdFailed("it died\nlog line\nlog line"), 1),
        (RegistryError("x"), 4),
        (RegistryUnavailable("x"), 4),
        (RegistryDenied("x"), 4),
        (LeaseExpired("x"), 4),
        (DiscoveryTimeout("x"), 4),
        (NoInstances("x"), 1),
        (DeadlineExceeded("x"), 1),
        (httpx.ConnectError("refused"), 1),
        (httpx.ReadTimeout("slow"), 1),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_an_error_has_its_exit_code_and_one_line(error: Exception, code: int) -> None:
    line, found = explain(error)
    assert found == code
    assert "\n" not in line


def test_our_own_errors_speak_for_themselves() -> None:
    assert explain(ConfigError("x is one of\n a, b"))[0] == "x is one of a, b"
    assert explain(EtcdFailed("etcd-1 died\nits log"))[0] == "etcd-1 died"


def test_other_errors_are_named() -> None:
    assert explain(httpx.ReadTimeout("timed out"))[0] == "ReadTimeout: timed out"
    assert explain(httpx.ReadTimeout(""))[0] == "ReadTimeout"


def test_what_became_of_earlier_attempts_is_told() -> None:
    error = httpx.ConnectError("refused")
    error.add_note("attempt 1 at 10.0.0.5:80: refused")
    error.add_note("attempt 2 at 10.0.0.6:80: refused")
    assert explain(error)[0] == (
        "ConnectError: refused; attempt 1 at 10.0.0.5:80: refused; attempt 2 at 10.0.0.6:80: refused"
    )


def test_a_bug_is_called_one() -> None:
    assert explain(KeyError("x"))[0] == "internal error: KeyError: 'x' (DISCO_LOG=debug shows where)"

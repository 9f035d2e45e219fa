"""The words: instances, snapshots, outcomes, and the tree of errors."""

from __future__ import annotations

import httpx
import pytest

from discoclient.model import errors
from discoclient.model.errors import ConfigError
from discoclient.model.instance import Instance, State, check_service
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.model.snapshot import Snapshot


def make(id: str = "0f3c0f3c", **fields: object) -> Instance:
    return Instance(**{"service": "web", "id": id, "host": "10.0.0.1", "port": 80} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a", "web", "my-service", "a--b", "7", "0-0", "a" * 63])
def test_a_service_has_a_plain_name(name: str) -> None:
    assert check_service(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "-", "A", "a_b", "a.b", "a b", "a/b", "ä", "a" * 64, "a\n", "\na", None, 7, b"a"]
)
def test_any_other_name_is_an_error_that_says_what_a_name_is(name: object) -> None:
    with pytest.raises(ConfigError, match="1 to 63 of a-z, 0-9 and '-'") as caught:
        check_service(name)  # type: ignore[arg-type]
    assert repr(name) in str(caught.value)


def test_an_address_can_be_put_into_a_url() -> None:
    assert make().url == "http://10.0.0.1:80"
    assert make(host="fd00::1", scheme="https", port=8443).url == "https://[fd00::1]:8443"
    assert make(host="localhost").address == "localhost:80"


def test_a_state_is_its_name() -> None:
    assert [str(state) for state in State] == ["ready", "unready", "draining"]


def test_a_snapshot_is_ordered_by_id() -> None:
    instances = {id: make(id) for id in ("cccccccc", "aaaaaaaa", "bbbbbbbb")}
    snapshot = Snapshot("web", 7, instances)
    assert [instance.id for instance in snapshot] == ["aaaaaaaa", "bbbbbbbb", "cccccccc"]
    assert len(snapshot) == 3
    assert not snapshot.suspect


@pytest.mark.parametrize(
    ("outcome", "is_failure", "is_connect_failure"),
    [
        (Outcome(OutcomeKind.NOT_SENT, 0.1), True, True),
        (Outcome(OutcomeKind.NO_ANSWER, 0.1), True, False),
        (Outcome(OutcomeKind.LOCAL, 0.1), False, False),
        *((Outcome(OutcomeKind.RESPONSE, 0.1, status), True, False) for status in (502, 503, 504)),
        *(
            (Outcome(OutcomeKind.RESPONSE, 0.1, status), False, False)
            for status in (100, 200, 301, 404, 421, 429)
        ),
        *((Outcome(OutcomeKind.RESPONSE, 0.1, status), False, False) for status in (500, 501, 505)),
    ],
)
def test_an_instance_is_to_blame_when_it_did_not_answer_or_said_that_it_cannot(
    outcome: Outcome, is_failure: bool, is_connect_failure: bool
) -> None:
    assert outcome.is_failure is is_failure
    assert outcome.is_connect_failure is is_connect_failure


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (errors.ConfigError, [errors.DiscoError, ValueError]),
        (errors.RegistryError, [errors.DiscoError]),
        (errors.RegistryUnavailable, [errors.RegistryError]),
        (errors.RegistryDenied, [errors.RegistryError]),
        (errors.RevisionCompacted, [errors.RegistryError]),
        (errors.LeaseExpired, [errors.RegistryError]),
        (errors.RoutingError, [errors.DiscoError, httpx.TransportError]),
        (errors.NoInstances, [errors.RoutingError]),
        (errors.DiscoveryTimeout, [errors.RoutingError, httpx.TimeoutException]),
        (errors.DeadlineExceeded, [errors.RoutingError, httpx.ReadTimeout]),
    ],
)
def test_the_tree_of_errors_is_the_contracts(error: type, bases: list[type]) -> None:
    for base in [*bases, errors.DiscoError]:
        assert issubclass(error, base)
    assert error.__name__ in (errors.__doc__ or "")
    assert error.__name__ in errors.__all__


@pytest.mark.parametrize("error", [errors.NoInstances, errors.DiscoveryTimeout, errors.DeadlineExceeded])
def test_a_routing_error_is_made_of_its_message_and_takes_a_request_as_httpx_has_it(error: type) -> None:
    raised = error("nothing there")
    assert str(raised) == "nothing there"
    request = httpx.Request("GET", "http://web/")
    raised.request = request
    assert raised.request is request

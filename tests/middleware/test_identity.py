"""Is this request meant for us? Every header, every way to say who we are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient import ConfigError, Instance, aregister, register
from discoclient.serving.identity import Identities, Identity, Source, Verdict, judge
from discoclient.testing import memory_registry
from tests.support.properties import thorough

OURS = Identity("ledger", "ledger-0001")
OTHER = Identity("billing", "billing-0001")
PASSED_ON = Verdict("ledger-0001")
LEFT_ALONE = Verdict()


def test_a_request_for_us_is_passed_on_and_our_id_said() -> None:
    assert judge([OURS], "ledger/ledger-0001") == PASSED_ON


@pytest.mark.parametrize(
    "expected", ["experiment/experiment-0001", "ledger/ledger-0002", "billing/ledger-0001"]
)
def test_a_request_for_somebody_else_is_refused_with_our_id_and_the_names_of_both(expected: str) -> None:
    verdict = judge([OURS], expected)
    assert verdict.instance == OURS.id
    assert verdict.refusal == f"This request was meant for {expected}; this is ledger/ledger-0001.\n"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "/",
        "experiment",
        "experiment/",
        "/experiment-0001",
        "experiment/short",
        "experiment/" + "a" * 65,
        "a" * 64 + "/experiment-0001",
        "Experiment/experiment-0001",
        "experiment/Experiment-0001",
        "experiment-/experiment-0001",
        "experiment/experiment-0001/",
        "experiment/experiment-0001\n",
        "experiment/experiment-0001, ledger/ledger-0001",
        "experiment/experiment-0001,experiment/experiment-0001",
        "experiment/experiment\u0660\u0660\u0660\u0661",
        "\xe9xperiment/experiment-0001",
        "http://experiment/experiment-0001",
    ],
)
def test_what_is_no_name_expects_nobody(header: str | None) -> None:
    assert judge([OURS], header) == PASSED_ON


def test_blanks_around_a_name_do_not_matter() -> None:
    assert judge([OURS], " ledger/ledger-0001\t") == PASSED_ON
    assert judge([OURS], " ledger/ledger-0002\t").refusal


@pytest.mark.parametrize("header", [None, "nonsense", "ledger/ledger-0001", "experiment/experiment-0001"])
@pytest.mark.parametrize("identities", [[], [None], [None, None]])
def test_who_does_not_know_itself_refuses_nobody_and_says_nothing(
    identities: list[None], header: str | None
) -> None:
    assert judge(identities, header) == LEFT_ALONE


def test_of_several_the_one_that_is_meant_answers_and_the_first_if_none_is() -> None:
    assert judge([OURS, OTHER], "billing/billing-0001") == Verdict("billing-0001")
    assert judge([OURS, OTHER], "ledger/ledger-0001") == PASSED_ON
    assert judge([OURS, OTHER], None) == PASSED_ON
    assert judge([OTHER, OURS], None) == Verdict("billing-0001")


def test_of_several_the_refusal_names_all_and_is_signed_by_the_first() -> None:
    assert judge([OURS, OTHER], "ledger/billing-0001") == Verdict(
        "ledger-0001",
        "This request was meant for ledger/billing-0001; this is ledger/ledger-0001, billing/billing-0001.\n",
    )


def test_as_long_as_one_of_several_is_unknown_it_may_be_the_one_that_is_meant() -> None:
    assert judge([OURS, None], "billing/billing-0001") == LEFT_ALONE
    assert judge([OURS, None], "ledger/ledger-0001") == PASSED_ON
    assert judge([None, OURS], None) == PASSED_ON
    assert judge([OURS], "billing/billing-0001").refusal, "and without it, it is not"


_services = st.sampled_from(["ledger", "billing", "experiment", "-", ""])
_ids = st.sampled_from(["ledger-0001", "billing-0001", "0001", ""])
_identities = st.builds(
    Identity, st.sampled_from(["ledger", "billing"]), st.sampled_from(["ledger-0001", "other-id"])
)
_headers = st.none() | st.text() | st.builds("{}/{}".format, _services, _ids)


@thorough(500)
@given(st.lists(st.none() | _identities, max_size=3), _headers)
def test_only_a_valid_name_that_is_surely_not_ours_is_refused(
    identities: list[Identity | None], header: str | None
) -> None:
    verdict = judge(identities, header)
    known = {f"{each.service}/{each.id}": each.id for each in identities if each}
    valid = {
        f"{service}/{id}"
        for service in ("ledger", "billing", "experiment")
        for id in ("ledger-0001", "billing-0001")
    }
    is_refused = header in valid - set(known) and bool(identities) and None not in identities
    assert (verdict.refusal is not None) == is_refused
    assert verdict.instance in {None, *known.values()}
    if header in known:
        assert verdict.instance == known[header]
    elif known and header not in valid:
        assert verdict.instance == next(iter(known.values()))


# ---- who this is


def registration(of: Identity = OURS) -> Any:
    return SimpleNamespace(instance=of)


def who(environ: Mapping[str, str] | None = None, **options: Any) -> str | None:
    """The id that a response gets at a process with these options."""
    return Identities(environ=environ or {}, **options).judge(None).instance


class NotBegun:
    """As an `AsyncRegistration`: it has no instance before it began."""

    begun: Identity | None = None

    @property
    def instance(self) -> Identity:
        if self.begun is None:
            raise RuntimeError("not registered yet")
        return self.begun


NOT_BEGUN = NotBegun()


@pytest.mark.parametrize(
    "source",
    [
        registration(),
        registration,
        [registration()],
        (registration(), registration(OTHER)),
        [registration, registration(OTHER)],
        lambda: [registration(), registration(OTHER)],
        [lambda: None, registration()],
        lambda: [None, registration()],
        [NOT_BEGUN, registration()],
    ],
)
def test_a_registration_says_who_this_is_also_from_a_function_or_among_others(source: Source) -> None:
    assert who(registration=source) == "ledger-0001"


@pytest.mark.parametrize(
    "source",
    [lambda: None, lambda: [None], [], NOT_BEGUN, lambda: NOT_BEGUN, SimpleNamespace(instance=None)],
)
def test_a_registration_that_is_not_there_yet_leaves_everything_alone(source: Source) -> None:
    environ = {"DISCO_SERVICE": "billing", "DISCO_INSTANCE": "billing-0001"}
    assert Identities(registration=source, environ=environ).judge("experiment/experiment-0001") == LEFT_ALONE


def test_a_function_is_not_called_before_the_first_request() -> None:
    asked: list[str] = []

    def find() -> Any:
        asked.append("asked")
        return registration()

    identities = Identities(registration=[find], environ={})
    assert not asked
    assert identities.judge(None) == PASSED_ON
    assert asked == ["asked"]


def test_what_changes_is_seen_by_the_next_request() -> None:
    late, several = NotBegun(), [registration()]
    waiting, growing = Identities(registration=late, environ={}), Identities(registration=several, environ={})
    assert waiting.judge(None) == LEFT_ALONE
    assert growing.judge("billing/billing-0001").refusal
    late.begun = OURS
    several.append(registration(OTHER))
    assert waiting.judge(None) == PASSED_ON
    assert growing.judge("billing/billing-0001") == Verdict("billing-0001")


def test_what_a_function_raises_is_not_hidden() -> None:
    def find() -> Any:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        Identities(registration=find, environ={}).judge(None)


def test_the_pair_says_who_this_is() -> None:
    identities = Identities(service="ledger", instance="ledger-0001", environ={})
    assert identities.judge("ledger/ledger-0001") == PASSED_ON
    assert identities.judge("ledger/ledger-0002").refusal
    assert identities.judge("billing/ledger-0001").refusal


def test_the_environment_says_who_this_is_if_nothing_else_does() -> None:
    environ = {"DISCO_SERVICE": "ledger", "DISCO_INSTANCE": "ledger-0001"}
    identities = Identities(environ=environ)
    assert identities.judge("ledger/ledger-0001") == PASSED_ON
    assert identities.judge("ledger/ledger-0002").refusal
    assert who(environ, service="billing", instance="billing-0001") == "billing-0001"
    assert who(environ, registration=registration(OTHER)) == "billing-0001"


def test_the_environment_is_read_when_the_middleware_is_made() -> None:
    environ = {"DISCO_SERVICE": "ledger", "DISCO_INSTANCE": "ledger-0001"}
    early, without = Identities(environ=environ), Identities(environ={})
    environ.update(DISCO_INSTANCE="ledger-0002")
    assert early.judge(None) == PASSED_ON
    assert without.judge(None) == LEFT_ALONE


def test_an_empty_variable_is_none() -> None:
    assert who({"DISCO_SERVICE": "", "DISCO_INSTANCE": ""}) is None


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        ({"service": "ledger"}, {}, r"service= is given without instance=: set both"),
        ({"instance": "ledger-0001"}, {}, r"instance= is given without service=: set both"),
        ({}, {"DISCO_SERVICE": "ledger"}, r"\$DISCO_SERVICE is given without \$DISCO_INSTANCE: set both"),
        (
            {},
            {"DISCO_INSTANCE": "ledger-0001"},
            r"\$DISCO_INSTANCE is given without \$DISCO_SERVICE: set both",
        ),
        ({"service": "Ledger", "instance": "ledger-0001"}, {}, r"'Ledger' is not a service name"),
        ({"service": "ledger", "instance": "short"}, {}, r"instance= must be 8 to 64 .* got 'short'"),
        ({"service": "ledger", "instance": 12345678}, {}, r"instance= must be 8 to 64 .* got 12345678"),
        ({"service": "", "instance": ""}, {}, r"'' is not a service name"),
        ({}, {"DISCO_SERVICE": "ledger", "DISCO_INSTANCE": "a b c d e"}, r"\$DISCO_INSTANCE must be 8 to 64"),
        ({"registration": registration(), "service": "ledger"}, {}, r"leave out service= and instance="),
        (
            {"registration": registration(), "instance": "ledger-0001"},
            {},
            r"leave out service= and instance=",
        ),
        ({"registration": "ledger"}, {}, r"registration= takes what discoclient.register\(\) .* got str\."),
        (
            {"registration": Instance(service="a", id="b", host="c", port=1)},
            {},
            r"got Instance\. .* pass service=",
        ),
        ({"registration": [registration(), OURS]}, {}, r"got Identity"),
        ({"registration": [None]}, {}, r"got NoneType"),
    ],
)
def test_what_can_not_be_meant_is_an_error_that_says_what_to_do(
    options: dict[str, Any], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Identities(environ=environ, **options)


def test_a_function_that_returns_something_else_is_an_error_too() -> None:
    find: Callable[[], Any] = lambda: "ledger"  # noqa: E731
    with pytest.raises(ConfigError, match="got str"):
        Identities(registration=find, environ={}).judge(None)


def test_what_register_returns_says_who_this_is() -> None:
    with memory_registry(), register("ledger", 8000, quiet=0) as registered:
        identities = Identities(registration=registered, environ={})
        assert identities.judge(f"ledger/{registered.instance.id}") == Verdict(registered.instance.id)
        assert identities.judge("ledger/ledger-0002").refusal


async def test_what_aregister_returns_says_who_this_is_once_it_has_begun() -> None:
    with memory_registry():
        registering = aregister("ledger", 8000, quiet=0)
        identities = Identities(registration=registering, environ={})
        assert identities.judge("ledger/ledger-0002") == LEFT_ALONE
        async with registering as registered:
            assert identities.judge(f"ledger/{registered.instance.id}") == Verdict(registered.instance.id)
            assert identities.judge("ledger/ledger-0002").refusal

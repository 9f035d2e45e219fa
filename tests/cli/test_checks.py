"""The doctor's judgement, without a registry."""

from datetime import UTC, datetime, timedelta

import pytest

from discoclient import State
from discoclient.cli.checks import (
    check_clocks,
    check_members,
    check_records,
    check_services,
    check_version,
    explain_refusal,
    is_refusal,
)
from discoclient.registry.address import RegistryAddress
from discoclient.registry.protocol import MemberStatus
from tests.cli.records import instance

NOW = datetime(2026, 11, 23, 15, 0, 0, tzinfo=UTC)


def member(name: str, version: str = "3.5.16", *, has_leader: bool = True, error: str = "") -> MemberStatus:
    return MemberStatus(name, version="" if error else version, has_leader=has_leader, error=error)


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("3.5.0", "lose data"),
        ("3.5.1", "lose data"),
        ("3.5.2", "lose data"),
        ("3.5.3", "inconsistency"),
        ("3.5.5", "inconsistency"),
        ("3.4.0", "no fixes any more"),
        ("3.4.37", "no fixes any more"),
        ("3.3.27", "too old"),
        ("2.3.8", "too old"),
        ("", "tells nothing"),
        ("unknown", "tells nothing"),
    ],
)
def test_a_version_with_known_faults_is_warned_of(version: str, word: str) -> None:
    warning = check_version(version)
    assert warning is not None
    assert word in warning


@pytest.mark.parametrize("version", ["3.5.6", "3.5.21", "3.6.0", "3.6.0-rc.1", "3.10.1", "4.0.0"])
def test_a_version_without_known_faults_is_not(version: str) -> None:
    assert check_version(version) is None


def test_a_healthy_cluster_gets_no_warning() -> None:
    assert check_members([member("a:1"), member("b:1"), member("c:1")], is_readable=True) == []


def test_a_member_that_is_down_is_named() -> None:
    assert check_members([member("a:1"), member("b:1", error="connection refused")], is_readable=True) == [
        "member b:1 can't be reached: connection refused"
    ]


def test_a_lost_quorum_is_told_with_what_it_means() -> None:
    members = [member("a:1", has_leader=False), member("b:1", error="x"), member("c:1", error="x")]
    assert check_members(members, is_readable=False) == [
        (
            "no quorum: 1 of 3 members answer, and none answers a linearizable read. Callers go on with what they know, "
            "and nothing can be registered"
        ),
        "member b:1 can't be reached: x",
        "member c:1 can't be reached: x",
        "member a:1 knows of no leader",
    ]


def test_nothing_is_said_of_a_quorum_when_no_member_answers() -> None:
    assert check_members([member("a:1", error="x")], is_readable=False) == ["member a:1 can't be reached: x"]


NO_USER = "etcd a:1: etcdserver: user name is empty (INVALID_ARGUMENT)"
NO_LOGIN = "etcd a:1: etcdserver: authentication failed, invalid user ID or password (INVALID_ARGUMENT)"
NO_PERMISSION = "etcd a:1: etcdserver: permission denied (PERMISSION_DENIED)"
DOWN = "etcd a:1: [Errno 13] Permission denied"


def test_a_read_that_is_refused_tells_nothing_of_a_quorum() -> None:
    members = [member("a:1"), member("b:1", error=DOWN)]
    told = check_members(members, is_readable=False, is_refused=True)
    assert told == [f"member b:1 can't be reached: {DOWN}"]
    assert "no quorum" in check_members(members, is_readable=False)[0]


def test_a_member_that_refuses_us_is_not_called_unreachable() -> None:
    members = [member("a:1", error=NO_LOGIN), member("b:1")]
    assert check_members(members, is_readable=True) == [f"member a:1 refuses us: {NO_LOGIN}"]
    assert check_members(members[:1], is_readable=False, is_refused=True) == []


def test_a_refusal_is_told_from_a_member_that_is_down() -> None:
    assert [is_refusal(error) for error in (NO_USER, NO_LOGIN, NO_PERMISSION)] == [True] * 3
    assert not is_refusal(DOWN)
    assert not is_refusal("")


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        (
            "etcd://a:1",
            NO_USER,
            "the registry etcd://a:1 wants a user and a password, and its URL names none: etcd://USER:PASSWORD@HOST:PORT",
        ),
        (
            "etcd://x:secret@a:1",
            NO_LOGIN,
            "the registry etcd://a:1 refuses user 'x': wrong password, or no such user",
        ),
        (
            "etcd://x:secret@a:1/our/own",
            NO_PERMISSION,
            (
                "the registry etcd://a:1/our/own refuses user 'x': it may not read /our/own/services/; grant its role "
                "readwrite on that prefix (etcdctl role grant-permission ROLE readwrite --prefix=true /our/own/), or read "
                "if it only calls"
            ),
        ),
        (
            "etcds://a:1",
            NO_PERMISSION,
            "the registry etcds://a:1 refuses the user of our certificate: it may not",
        ),
        ("etcd://x:secret@a:1", "something new", "the registry etcd://a:1 refuses user 'x': something new"),
    ],
    ids=["no user", "wrong password", "no permission", "a certificate without permission", "something new"],
)
def test_a_refusal_is_explained_with_what_would_help(url: str, error: str, told: str) -> None:
    address = RegistryAddress.parse(url)
    explained = explain_refusal(error, address, address.keys.all_services)
    assert explained.startswith(told)
    assert "secret" not in explained


def test_different_versions_are_told() -> None:
    assert check_members([member("a:1", "3.5.16"), member("b:1", "3.6.1")], is_readable=True) == [
        "the members run different versions: 3.5.16, 3.6.1. That is meant for upgrades only"
    ]


def test_a_version_is_judged_once_however_many_members_run_it() -> None:
    assert len(check_members([member("a:1", "3.5.1"), member("b:1", "3.5.1")], is_readable=True)) == 1


def test_skipped_records_are_named_up_to_five() -> None:
    few = {f"/disco/v1/services/x/{number}": "not a JSON object" for number in range(2)}
    assert check_records(few) == [
        "the record at '/disco/v1/services/x/0' is skipped: not a JSON object",
        "the record at '/disco/v1/services/x/1' is skipped: not a JSON object",
    ]
    many = {f"/disco/v1/services/x/{number}": "not a JSON object" for number in range(9)}
    assert len(check_records(many)) == 6
    assert check_records(many)[-1] == "4 more records are skipped"


def test_a_key_that_is_no_text_is_shown_in_ascii() -> None:
    assert check_records({"/x/\udcff\x1b": "why"}) == ["the record at '/x/\\udcff\\x1b' is skipped: why"]


def test_a_skipped_record_with_a_long_key_is_named_by_its_beginning() -> None:
    (warning,) = check_records({"/x/" + "y" * 100_000: "why"})
    assert warning == f"the record at '/x/{'y' * 97}'... (100003 characters) is skipped: why"


def test_a_service_without_a_ready_instance_is_named_with_its_states() -> None:
    draining = instance("ledger", "aaaaaaaa", state=State.DRAINING)
    unready = [instance("ledger", f"{number}" * 8, state=State.UNREADY) for number in (1, 2)]
    services = {"experiment": [instance("experiment", "aaaaaaaa"), draining], "ledger": [draining, *unready]}
    assert check_services(services) == ["service ledger has no ready instance: 2 unready, 1 draining"]


def test_a_registration_from_the_future_is_told_beyond_a_minute() -> None:
    def at(seconds: float) -> str:
        return (NOW + timedelta(seconds=seconds)).isoformat()

    times = [at(-3600), at(59), at(61), "2026-11-23T16:00:00", "soon", None]
    found = [instance("experiment", f"{n}" * 8, registered_at=time) for n, time in enumerate(times)]
    assert check_clocks(found, NOW) == [
        "experiment 22222222 says that it was registered 61 s from now: its host's clock, or this one's, is wrong"
    ]

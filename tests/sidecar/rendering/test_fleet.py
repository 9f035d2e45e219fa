"""What a template sees of the instances, and what becomes of a service that has none."""

from __future__ import annotations

from disco_sidecar.rendering.fleet import Fleet, Target, select, word
from discoclient import Instance, State
from discoclient.model.snapshot import Snapshot
from tests.cli.records import instance

READY, UNREADY, DRAINING = State.READY, State.UNREADY, State.DRAINING


def member(port: int, **fields: object) -> Instance:
    return instance("experiment", f"aaaaaa{port:04}", host="10.0.0.1", port=port, **fields)


def ports(targets: tuple[Target, ...]) -> list[int]:
    return [each.port for each in targets]


def snapshot(*instances: Instance, service: str = "experiment") -> Snapshot:
    return Snapshot(service, 1, {each.id: each for each in instances})


def test_the_ready_are_called_the_weightless_and_the_unready_stand_by_the_draining_never() -> None:
    service = select(
        "experiment",
        [member(4, state=DRAINING), member(3, state=UNREADY), member(2, weight=0), member(1)],
    )
    assert (ports(service.instances), ports(service.standbys), ports(service.draining)) == ([1], [2, 3], [4])


def test_what_would_stand_by_is_called_where_nothing_is_better() -> None:
    weightless = select("experiment", [member(2, weight=0), member(3, state=UNREADY)])
    assert (ports(weightless.instances), ports(weightless.standbys)) == ([2], [3])
    unwell = select("experiment", [member(3, state=UNREADY), member(4, state=DRAINING)])
    assert (ports(unwell.instances), ports(unwell.standbys)) == ([3], [])
    assert unwell.instances[0].share == 100


def test_the_order_is_that_of_the_addresses_as_numbers_whatever_the_ids() -> None:
    hosts = ["10.0.0.10", "10.0.0.9", "::1", "web.example", "10.0.0.9"]
    members = [
        instance("experiment", f"zzzzzzz{9 - n}", host=host, port=8000 - n) for n, host in enumerate(hosts)
    ]
    wanted = ["10.0.0.9:7996", "10.0.0.9:7999", "10.0.0.10:8000", "[::1]:7998", "web.example:7997"]
    assert [each.address for each in select("experiment", members).instances] == wanted
    assert select("experiment", members[::-1]) == select("experiment", members)


def test_an_address_stands_there_once_though_a_dead_instance_still_has_it_too() -> None:
    dead = instance("experiment", "aaaaaaaa", state=UNREADY)
    alive = instance("experiment", "bbbbbbbb")
    service = select("experiment", [dead, alive])
    assert [each.id for each in service.instances] == ["bbbbbbbb"]
    assert service.standbys == ()


def test_shares_are_the_weights_where_these_are_small_whole_numbers_else_in_proportion() -> None:
    def shares(*weights: float) -> list[int]:
        found = select("experiment", [member(n + 1, weight=weight) for n, weight in enumerate(weights)])
        return [each.share for each in found.instances]

    assert shares(100, 5) == [100, 5]
    assert shares(10_000, 5_000, 1) == [256, 128, 1]
    assert shares(0.5, 0.25) == [256, 128]
    assert shares(0, 0) == [1, 1]
    assert shares() == []


def test_free_texts_can_t_end_a_word_of_a_configuration_and_the_record_has_them_as_they_are() -> None:
    version = "1;\n} server { listen 1; #"
    (target,) = select("experiment", [member(1, version=version, metadata={"a b": ["x;", 3]})]).instances
    assert target.version == "1____server___listen_1___"
    assert target.metadata == {"a_b": ["x_", 3]}
    assert target.record["version"] == version
    assert (target.zone, target.hostname, target.slot) == (None, None, "0")
    assert word("eu-west-1a/b+c=d@e:f,g.h_i") == "eu-west-1a/b+c=d@e:f,g.h_i"


def test_the_idle_time_is_a_second_less_than_the_shortest_that_is_promised() -> None:
    assert select("experiment", [member(1, http_keepalive=30), member(2, http_keepalive=5)]).keepalive == 4
    assert select("experiment", [member(1, http_keepalive=30), member(2)]).keepalive == 1
    assert select("experiment", [member(1, http_keepalive=0.5)]).keepalive == 0
    assert select("experiment", []).keepalive == 1


def test_a_service_that_lost_its_last_instance_keeps_it_and_is_told_of() -> None:
    fleet = Fleet(["experiment", "ledger"], allow_empty=False)
    assert fleet.missing == ["experiment", "ledger"]
    fleet.learn(snapshot(member(1), member(2)))
    fleet.learn(snapshot(service="ledger"))
    assert (fleet.missing, fleet.held) == (["ledger"], [])
    fleet.learn(snapshot(member(2, state=DRAINING)))
    assert ports(fleet.services["experiment"].instances) == [1, 2]
    assert ports(fleet.services["experiment"].draining) == [2]
    assert fleet.held == ["experiment"]
    fleet.learn(snapshot())
    assert ports(fleet.services["experiment"].instances) == [1, 2]
    fleet.learn(snapshot(member(3)))
    assert ports(fleet.services["experiment"].instances) == [3]
    assert fleet.held == []


def test_with_allow_empty_it_is_empty() -> None:
    fleet = Fleet(["experiment"], allow_empty=True)
    assert fleet.missing == ["experiment"]  # not known yet, which is not empty
    fleet.learn(snapshot(member(1)))
    fleet.learn(snapshot())
    assert (fleet.missing, fleet.held, fleet.services["experiment"].instances) == ([], [], ())

"""What is answered to which question: the whole table, without a socket."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from disco_sidecar.dns.answers import reply
from disco_sidecar.dns.limits import Limits
from discoclient.model.errors import ConfigError
from discoclient.model.instance import Instance, State
from tests.sidecar.dns.asking import find, instance, records, status

ONE = {"web": [instance(1)]}
TWO_FAMILIES = {"web": [instance(1), instance(2, host="2001:db8::2")]}
NAMED = {"web": [instance(1, host="Web.Example.org", port=81)]}
UNKNOWN = {"web": None}


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("web.disco.", "A", ["A 10.0.0.1"]),
        ("web.disco.", "AAAA", ["AAAA 2001:db8::2"]),
        ("web-000001.web.disco.", "A", ["A 10.0.0.1"]),
        ("web-000002.web.disco.", "AAAA", ["AAAA 2001:db8::2"]),
        ("web.disco.", "ANY", ['HINFO "RFC8482" ""']),
        ("disco.", "SOA", ["SOA disco. hostmaster.disco. 1 3600 600 86400 1"]),
        *[
            (
                name,
                "SRV",
                ["SRV 0 100 8000 web-000001.web.disco.", "SRV 0 100 8000 web-000002.web.disco."],
            )
            for name in ("web.disco.", "_web._tcp.disco.", "_http._tcp.web.disco.")
        ],
    ],
)
def test_a_name_has_its_records_for_one_second(name: str, rdtype: str, expected: list[str]) -> None:
    answer = find(name, rdtype, TWO_FAMILIES)
    assert sorted(records(answer)) == expected
    assert {each.ttl for each in answer.answer} == {1}
    assert answer.flags & dns.flags.AA
    assert not answer.flags & (dns.flags.RA | dns.flags.TC)


@pytest.mark.parametrize(
    ("name", "rdtype", "known", "expected"),
    [
        ("web.disco.", "AAAA", ONE, "NODATA"),
        ("web.disco.", "TXT", ONE, "NODATA"),
        ("web.disco.", "TYPE65", ONE, "NODATA"),
        ("web.disco.", "A", NAMED, "NODATA"),
        ("_web._tcp.disco.", "A", ONE, "NODATA"),
        ("web-000001.web.disco.", "SRV", ONE, "NODATA"),
        ("web-000001.web.disco.", "AAAA", ONE, "NODATA"),
        ("_tcp.web.disco.", "A", ONE, "NODATA"),
        ("_tcp.disco.", "SRV", ONE, "NODATA"),
        ("disco.", "A", ONE, "NODATA"),
        ("disco.", "NS", ONE, "NODATA"),
        ("other.disco.", "A", ONE, "NXDOMAIN"),
        ("_other._tcp.disco.", "SRV", ONE, "NXDOMAIN"),
        ("_web._udp.disco.", "SRV", ONE, "NXDOMAIN"),
        ("_https._tcp.web.disco.", "SRV", ONE, "NXDOMAIN"),
        ("_ftp._tcp.web.disco.", "SRV", ONE, "NXDOMAIN"),
        ("web-000009.web.disco.", "A", ONE, "NXDOMAIN"),
        ("a.web-000001.web.disco.", "A", ONE, "NXDOMAIN"),
        ("-web.disco.", "A", ONE, "NXDOMAIN"),
        ("we\\.b.disco.", "A", ONE, "NXDOMAIN"),
        ("we_b.disco.", "A", ONE, "NXDOMAIN"),
        ("\\000.disco.", "A", ONE, "NXDOMAIN"),
    ],
)
def test_a_no_says_whether_the_name_or_the_record_is_missing_and_how_long_that_holds(
    name: str, rdtype: str, known: dict[str, list[Instance]], expected: str
) -> None:
    answer = find(name, rdtype, known)
    assert status(answer) == expected
    assert records(answer) == []
    assert records(answer, "authority") == ["SOA disco. hostmaster.disco. 1 3600 600 86400 1"]
    assert answer.authority[0].ttl == 1


@pytest.mark.parametrize(
    "name", ["web.disco.", "_web._tcp.disco.", "web-000001.web.disco.", "_tcp.web.disco."]
)
@pytest.mark.parametrize("rdtype", ["A", "SRV", "TXT", "ANY"])
def test_not_knowing_is_a_failure_and_not_a_no(name: str, rdtype: str) -> None:
    answer = find(name, rdtype, UNKNOWN, use_edns=0)
    assert status(answer) == "SERVFAIL"
    assert records(answer, "authority") == []
    (why,) = answer.options
    assert isinstance(why, dns.edns.EDEOption)
    assert (why.code, why.text) == (14, "nothing is known of this service yet")


@pytest.mark.parametrize(
    ("name", "rdtype", "rdclass"),
    [
        ("example.org.", "A", "IN"),
        ("web.disco.org.", "A", "IN"),
        ("notdisco.", "A", "IN"),
        (".", "NS", "IN"),
        ("web.disco.", "A", "CH"),
        ("web.disco.", "A", "ANY"),
        ("version.bind.", "TXT", "CH"),
        ("disco.", "AXFR", "IN"),
        ("web.disco.", "OPT", "IN"),
        ("web.disco.", "TKEY", "IN"),
    ],
)
def test_what_is_not_ours_is_refused_and_nothing_is_looked_up_for_it(
    name: str, rdtype: str, rdclass: str
) -> None:
    query = dns.message.make_query(name, rdtype, rdclass)
    sent = reply(query.to_wire(), lambda service: pytest.fail(f"looked up {service}"), rng=Random(1))
    assert sent is not None
    answer = dns.message.from_wire(sent)
    assert status(answer) == "REFUSED"
    assert answer.question == query.question
    assert not answer.flags & dns.flags.AA


def test_a_name_comes_back_in_the_case_in_which_it_was_asked_for() -> None:
    for name in ("wEb.DisCo.", "_WeB._tCp.dIscO.", "_HTTP._tcp.WEB.disco."):
        answer = find(name, "SRV", ONE)
        assert answer.question[0].name.to_text() == name
        assert [each.name.to_text() for each in answer.answer] == [name]
    (target,) = find("_WeB._tCp.dIscO.", "SRV", ONE).answer[0]
    assert target.target.to_text() == "web-000001.WeB.dIscO."
    assert find("MISSING.Disco.", "A", ONE).question[0].name.to_text() == "MISSING.Disco."


def test_the_targets_of_srv_records_come_along_and_resolve_by_themselves() -> None:
    odd = ["-web-0001", "w" * 64, "0" * 63]
    known = {"web": [instance(number, id=id) for number, id in enumerate(odd, 1)]}
    answer = find("web.disco.", "SRV", known)
    targets = {data.target.to_text() for each in answer.answer for data in each}
    assert len(targets) == 3
    assert {each.name.to_text() for each in answer.additional} == targets
    for each in answer.additional:
        assert records(find(each.name.to_text().upper(), "A", known)) == [f"A {each[0].address}"]


def test_an_instance_on_a_host_name_is_the_target_by_that_name() -> None:
    answer = find("web.disco.", "SRV", NAMED)
    assert records(answer) == ["SRV 0 100 81 web.example.org."]
    assert records(answer, "additional") == []


@pytest.mark.parametrize("host", ["", ".", "a..b", "x" * 64, "h\u00e4", "a b", "fe80::1%lo", "a." * 150])
def test_a_host_that_dns_cannot_carry_is_left_out(host: str) -> None:
    known = {"web": [instance(1), instance(2, host=host)]}
    assert records(find("web.disco.", "SRV", known)) == ["SRV 0 100 8000 web-000001.web.disco."]
    assert records(find("web.disco.", "A", known)) == ["A 10.0.0.1"]


def test_an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() -> None:
    known = {"web": [instance(1, host="::ffff:10.1.1.1")]}
    assert records(find("web.disco.", "A", known)) == ["A 10.1.1.1"]
    assert status(find("web.disco.", "AAAA", known)) == "NODATA"


def test_the_schemes_names_have_the_instances_of_that_scheme() -> None:
    known = {"web": [instance(1), instance(2, scheme="https")]}
    assert records(find("_http._tcp.web.disco.", "SRV", known)) == ["SRV 0 100 8000 web-000001.web.disco."]
    assert records(find("_https._tcp.web.disco.", "SRV", known)) == ["SRV 0 100 8000 web-000002.web.disco."]


# --- who is in an answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rdtype"), [("web.disco.", "A"), ("web.disco.", "SRV"), ("web-000001.web.disco.", "A")]
)
def test_an_instance_that_drains_is_in_no_answer_but_its_name_is_still_there(name: str, rdtype: str) -> None:
    leaving = instance(1, state=State.DRAINING)
    answer = find(name, rdtype, {"web": [leaving]})
    assert status(answer) == "NODATA"
    assert records(answer, "additional") == []
    assert "000001" not in "".join(records(find("web.disco.", "SRV", {"web": [leaving, instance(2)]})))
    assert records(find("web.disco.", "A", {"web": [leaving, instance(2)]})) == ["A 10.0.0.2"]


@pytest.mark.parametrize("fields", [{"weight": 0}, {"state": State.UNREADY}], ids=["weight 0", "unready"])
def test_who_is_called_only_if_nothing_else_is_left_has_priority_1_and_no_place_among_addresses(
    fields: dict[str, Any],
) -> None:
    standby = instance(1, **fields)
    known = {"web": [standby, instance(2)]}
    weight = int(standby.weight)
    assert sorted(records(find("web.disco.", "SRV", known))) == [
        "SRV 0 100 8000 web-000002.web.disco.",
        f"SRV 1 {weight} 8000 web-000001.web.disco.",
    ]
    assert records(find("web.disco.", "A", known)) == ["A 10.0.0.2"]
    assert records(find("web.disco.", "A", {"web": [standby]})) == ["A 10.0.0.1"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 100, 10_000), (1, 100, 10_000)),
        ((0.5, 1), (32768, 65535)),
        ((0.001, 10_000.5), (1, 65535)),
        ((1, 1_000_000), (1, 65535)),
    ],
)
def test_srv_weights_keep_the_instances_shares_in_16_bits(
    weights: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    known = {
        "web": [instance(number, weight=weight, port=number + 1) for number, weight in enumerate(weights)]
    }
    answer = find("web.disco.", "SRV", known)
    assert [data.weight for data in sorted(answer.answer[0], key=lambda data: data.port)] == list(expected)


def test_addresses_are_shuffled_by_weight_and_each_stands_once() -> None:
    heavy = [instance(number, host="10.9.9.9", port=number, weight=100) for number in (1, 2, 3)]
    known = {"web": [*heavy, instance(4, weight=100)]}
    firsts = Counter(records(find("web.disco.", "A", known, seed=seed))[0] for seed in range(400))
    assert sorted(firsts) == ["A 10.0.0.4", "A 10.9.9.9"]
    assert 270 < firsts["A 10.9.9.9"] < 330
    assert len(records(find("web.disco.", "A", known))) == 2


# --- sizes -----------------------------------------------------------------------------------------------------------


MANY = {
    "web": [instance(number) for number in range(1, 300)],
    "six": [instance(n, host=f"2001:db8::{n:x}") for n in range(1, 300)],
}


def test_at_most_so_many_addresses_are_given_and_not_always_the_same() -> None:
    answers = [records(find("web.disco.", "A", MANY, seed=seed)) for seed in range(20)]
    assert {len(each) for each in answers} == {24}
    assert len({address for each in answers for address in each}) > 150


@pytest.mark.parametrize(
    ("payload", "fits"), [(None, 512), (100, 512), (700, 700), (1232, 1232), (65535, 1232)]
)
@pytest.mark.parametrize(
    ("name", "rdtype"), [("six.disco.", "AAAA"), ("web.disco.", "SRV"), ("_web._tcp.disco.", "SRV")]
)
def test_a_datagram_that_lacks_records_says_so_and_tcp_has_them(
    name: str, rdtype: str, payload: int | None, fits: int
) -> None:
    limits = Limits(addresses=100)
    options = {} if payload is None else {"use_edns": 0, "payload": payload}
    query = dns.message.make_query(name, rdtype, **options)
    sent = reply(query.to_wire(), MANY.get, rng=Random(1), limits=limits)
    assert sent is not None
    assert fits - 90 < len(sent) <= fits
    assert dns.message.from_wire(sent).flags & dns.flags.TC
    whole = find(name, rdtype, MANY, limits=limits, stream=True, **options)
    assert not whole.flags & dns.flags.TC
    assert len(records(whole)) == (100 if rdtype == "AAAA" else 256)


def test_what_is_cut_is_standbys_and_glue_first() -> None:
    known = {"web": [*(instance(n, weight=0) for n in range(1, 20)), *(instance(n) for n in range(20, 26))]}
    cut = find("web.disco.", "SRV", known)
    assert [text.split()[1] for text in records(cut)].count("0") == 6
    assert records(cut, "additional") == []
    few = {"web": [instance(n) for n in range(1, 9)]}
    answer = find("web.disco.", "SRV", few)
    assert not answer.flags & dns.flags.TC
    assert len(records(answer)) == 8
    assert len(records(answer, "additional")) < 8


def test_the_longest_names_fit() -> None:
    service = "s" * 63
    known = {service: [instance(number, service=service, id=f"{number:063}") for number in range(300)]}
    answer = find(f"{service}.disco.", "SRV", known)
    assert answer.flags & dns.flags.TC
    assert len(records(find(f"{service}.disco.", "SRV", known, stream=True))) == 256


# --- headers and EDNS ------------------------------------------------------------------------------------------------


def test_flags_are_copied_as_the_standards_say() -> None:
    answer = find("web.disco.", "A", ONE, flags=dns.flags.RD | dns.flags.CD | dns.flags.AD)
    assert answer.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.CD
    assert find("web.disco.", "A", ONE, flags=0).flags == dns.flags.QR | dns.flags.AA


def test_edns_is_answered_with_our_own_size_and_only_to_who_speaks_it() -> None:
    assert find("web.disco.", "A", ONE).edns == -1
    answer = find("web.disco.", "A", ONE, use_edns=0, payload=4000, want_dnssec=True)
    assert (answer.edns, answer.payload, answer.ednsflags) == (0, 1232, dns.flags.DO)
    assert find("web.disco.", "A", ONE, use_edns=0).ednsflags == 0


def test_an_edns_version_that_does_not_exist_is_badvers() -> None:
    answer = find("web.disco.", "A", ONE, use_edns=1)
    assert answer.rcode() == dns.rcode.BADVERS
    assert (answer.edns, records(answer)) == (0, [])


@pytest.mark.parametrize(
    ("field", "value"),
    [("ttl", -1), ("addresses", 0), ("instances", 2000), ("datagram", 511), ("datagram", 9000)],
)
def test_limits_that_make_no_sense_are_named(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is {value}: it can be \d+ to \d+"):
        Limits(**{field: value})


def test_the_ttl_holds_for_a_no_as_well() -> None:
    limits = Limits(ttl=7)
    assert find("web.disco.", "A", ONE, limits=limits).answer[0].ttl == 7
    negative = find("no.disco.", "A", ONE, limits=limits).authority[0]
    assert (negative.ttl, negative[0].minimum) == (7, 7)

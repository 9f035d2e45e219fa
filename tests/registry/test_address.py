"""The registry's address: every form of the URL, and passwords that nobody gets to see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.model.errors import ConfigError
from discoclient.registry.address import DEFAULT_REGISTRY, RegistryAddress, parse_override
from tests.support.properties import thorough

CANARY = "CANARY"

parse = RegistryAddress.parse


# ---- etcd


@pytest.mark.parametrize(
    ("url", "members"),
    [
        ("etcd://127.0.0.1:2379", (("127.0.0.1", 2379),)),
        ("etcd://etcd-1", (("etcd-1", 2379),)),
        ("etcd://a:1,b:2,c:3", (("a", 1), ("b", 2), ("c", 3))),
        ("etcd://a,b:2", (("a", 2379), ("b", 2))),
        ("etcd://[::1]:2379", (("::1", 2379),)),
        ("etcd://[fd00::1],[fd00::2]:2", (("fd00::1", 2379), ("fd00::2", 2))),
        ("etcd://a:1,[fd00::2]:2,10.0.0.1:3", (("a", 1), ("fd00::2", 2), ("10.0.0.1", 3))),
        ("etcd://u:p@[fd00::2]:2,a:1", (("fd00::2", 2), ("a", 1))),
        ("  etcd://a:1\n", (("a", 1),)),
        ("etcds://a:65535", (("a", 65535),)),
    ],
)
def test_members_are_hosts_and_ports(url: str, members: tuple[tuple[str, int], ...]) -> None:
    assert parse(url).members == members


def test_the_default_is_a_registry_url() -> None:
    address = parse(DEFAULT_REGISTRY)
    assert (address.scheme, address.members) == ("etcd", (("127.0.0.1", 2379),))
    assert address.prefix == "/disco/v1"
    assert (address.user, address.password, address.hostnames) == (None, None, False)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("etcd://a", "/disco/v1"),
        ("etcd://a/", "/disco/v1"),
        ("etcd://a/team", "/team"),
        ("etcd://a/team/", "/team"),
        ("etcd://a/team/x-1/y_2.z~", "/team/x-1/y_2.z~"),
        ("etcd://a/team?hostnames=1", "/team"),
        ("memory://x/team", "/team"),
    ],
)
def test_the_prefix_is_the_path(url: str, prefix: str) -> None:
    assert parse(url).prefix == prefix
    assert parse(url).keys.service("web") == f"{prefix}/services/web/"


@pytest.mark.parametrize(
    ("written", "user", "password"),
    [
        ("user:pw", "user", "pw"),
        ("user:p%40ss", "user", "p@ss"),
        ("user:p%2Fs%3Fs%23s%25", "user", "p/s?s#s%"),
        ("us%3Aer:pw", "us:er", "pw"),
        ("user:p:w", "user", "p:w"),
        ("user:p@w", "user", "p@w"),
        ("user:[pw]", "user", "[pw]"),
        ("user:pw℀", "user", "pw℀"),
        ("user:p%C3%BC", "user", "pü"),
        ("user:p+w", "user", "p+w"),
        ("user:p,w", "user", "p,w"),
        ("user:", "user", ""),
    ],
)
def test_user_and_password_are_percent_encoded(written: str, user: str, password: str) -> None:
    address = parse(f"etcd://{written}@a:1,b:2/team")
    assert (address.user, address.password) == (user, password)
    assert address.members == (("a", 1), ("b", 2))
    assert address.prefix == "/team"


def test_tls_has_its_options() -> None:
    address = parse("etcds://a:1?ca=/etc/ca.pem&cert=/c%20c.pem&key=k.pem&server_name=etcd.local&hostnames=1")
    assert (address.ca, address.cert, address.key) == ("/etc/ca.pem", "/c c.pem", "k.pem")
    assert (address.server_name, address.hostnames) == ("etcd.local", True)


@pytest.mark.parametrize(
    ("url", "admitted"), [("etcd://a?hostnames=1", True), ("etcd://a?hostnames=0", False)]
)
def test_host_names_are_admitted_on_request(url: str, admitted: bool) -> None:
    assert parse(url).hostnames is admitted


@pytest.mark.parametrize(("options", "shared"), [("?share=1", True), ("?share=0", False), ("", False)])
def test_watches_are_shared_on_request(options: str, shared: bool) -> None:
    assert parse(f"etcd://a{options}").share is shared
    assert parse(f"etcds://a{options}").share is shared


@pytest.mark.parametrize("url", ["memory://a?share=1", "etcd://a?share=2", "etcd://a?shared=1"])
def test_only_what_is_outside_can_be_shared_and_an_unknown_option_names_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"hostnames, presence|must be 0 or 1") as caught:
        parse(url)
    assert (
        "share" in str(caught.value).partition(";")[2] or "must be" in str(caught.value)
    ) is url.startswith("etcd")


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "etcd",
        "etcd:",
        "etcd:/a",
        "127.0.0.1:2379",
        "http://127.0.0.1:2379",
        "ETCD://a",
        "consul://a",
        "://a",
        None,
        7,
    ],
)
def test_what_is_no_registry_url_is_an_error_that_names_the_forms(url: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(url)  # type: ignore[arg-type]
    for form in ("etcd://host:port", "etcds://", "memory://name", "static://service=host:port", "/prefix"):
        assert form in str(caught.value)


@pytest.mark.parametrize(
    "hosts",
    [
        "",
        ",",
        "a,",
        ",a",
        "a,,b",
        "a:0",
        "a:65536",
        "a:99999",
        "a:123456",
        "a:",
        "a:b",
        "a:-1",
        "a:1:2",
        "[::1",
        "::1",
        "[::1]1",
        "[zz]:1",
        "[:::]:1",
        "[1.2.3.4]:1",
        "[]:1",
        "a b:1",
        "[fe80::1%25eth0]:1",
    ],
)
def test_a_member_that_is_no_host_and_port_is_an_error(hosts: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        parse(f"etcd://{hosts}")


@pytest.mark.parametrize("path", ["//", "/a//b", "/a b", "/%2F", "/ü", "/a:b", "/a/b//"])
def test_a_prefix_is_made_of_plain_names(path: str) -> None:
    if path in ("//", "/a/b//"):
        assert parse(f"etcd://a{path}").prefix in ("/disco/v1", "/a/b")
        return
    with pytest.raises(ConfigError, match="prefix"):
        parse(f"etcd://a{path}")


@pytest.mark.parametrize(
    ("url", "valid"),
    [
        ("etcd://a?timeout=5", ["hostnames"]),
        ("etcd://a?ca=x", ["hostnames"]),
        ("etcds://a?cafile=x", ["ca", "cert", "key", "server_name", "hostnames"]),
        ("memory://a?x=1", ["hostnames"]),
        ("etcd://a?HOSTNAMES=1", ["hostnames"]),
    ],
)
def test_an_unknown_option_is_an_error_that_names_the_valid_ones(url: str, valid: list[str]) -> None:
    with pytest.raises(ConfigError, match="unknown option") as caught:
        parse(url)
    for name in valid:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("etcd://a?hostnames=yes", "0 or 1"),
        ("etcd://a?hostnames=", "0 or 1"),
        ("etcds://a?ca=", "ca"),
        ("etcds://a?cert=c.pem", "belong together"),
        ("etcds://a?key=k.pem", "belong together"),
        ("etcd://user@a", "password"),
        ("etcd://:pw@a", "password"),
        ("etcd://@a", "password"),
        ("etcd://a#x", "%23"),
        ("etcd://a/team#x", "%23"),
    ],
)
def test_an_option_or_part_that_makes_no_sense_is_an_error_that_says_why(url: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse(url)


# ---- nobody sees the password

RAW = [CANARY, f"[{CANARY}]", f"pa/{CANARY}", f"pa?{CANARY}", f"pa#{CANARY}", f"pa@{CANARY}", f"pa:{CANARY}"]
RAW += [
    f"pa&{CANARY}=1",
    f"{CANARY}℀",
    f"%zz{CANARY}",
    f"{CANARY}]",
    f"[{CANARY}",
    f"pa/{CANARY}/x?y={CANARY}",
]
RAW += [f"pa?a={CANARY}", f"pa?{CANARY}=a", f"pa?hostnames={CANARY}"]
SCHEMES = ["etcd", "etcds", "memory", "http", "Etcd"]
TAILS = [
    "a:1",
    "a:1/team",
    "a:1?x=1",
    "a:b",
    "",
    "[::1",
    "[zz]:1",
    "a:1/not a prefix",
    "a:1#x",
    "a:1?hostnames=7",
]


@pytest.mark.parametrize("password", RAW)
def test_whatever_is_wrong_with_the_url_no_error_shows_the_password(password: str) -> None:
    for url in (f"{scheme}://user:{password}@{tail}" for scheme in SCHEMES for tail in TAILS):
        try:
            address = parse(url)
        except ConfigError as error:
            for shown in (error, error.__cause__, error.__context__):
                assert CANARY not in str(shown), url
        else:
            assert CANARY not in f"{address!r} {address}"
            assert CANARY in (address.password or "")


def test_an_address_is_shown_without_user_and_password() -> None:
    address = parse(f"etcd://user:{CANARY}@a:1,[::1]:2/team")
    assert str(address) == "etcd://a:1,[::1]:2/team"
    assert CANARY not in f"{address!r} {address} {address.keys}"


@thorough(300)
@given(st.text(max_size=40), st.sampled_from(["etcd", "etcds", "memory", "static"]))
def test_no_text_makes_anything_but_an_address_or_a_config_error(text: str, scheme: str) -> None:
    try:
        address = parse(f"{scheme}://{text}")
    except ConfigError:
        return
    str(address)
    assert hash(address) == hash(parse(f"{scheme}://{text}"))


# ---- memory and static


def test_a_memory_registry_has_a_name() -> None:
    address = parse("memory://docs")
    assert (address.scheme, address.name, address.prefix) == ("memory", "docs", "/disco/v1")
    assert str(address) == "memory://docs"


@pytest.mark.parametrize("name", ["a b", "a:1", "u:p@a", "ü"])
def test_a_memory_registrys_name_is_plain(name: str) -> None:
    with pytest.raises(ConfigError, match="memory://name"):
        parse(f"memory://{name}")


def test_a_static_registry_lists_its_addresses() -> None:
    address = parse("static://experiment=127.0.0.1:8000,127.0.0.1:8001;ledger=10.0.0.7:80")
    table = address.services
    assert {service: [i.address for i in found] for service, found in table.items()} == {
        "experiment": ["127.0.0.1:8000", "127.0.0.1:8001"],
        "ledger": ["10.0.0.7:80"],
    }
    assert str(address) == "static://experiment=127.0.0.1:8000,127.0.0.1:8001;ledger=10.0.0.7:80"


def test_a_static_instance_has_the_same_id_everywhere() -> None:
    first, second = (parse("static://web=10.0.0.7:80").services["web"][0] for _ in range(2))
    other = parse("static://web=10.0.0.7:81").services["web"][0]
    assert first == second
    assert first.id != other.id


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("static://web=localhost:8000", "localhost:8000"),
        ("static://web=[::1]:8000", "[::1]:8000"),
        ("static://web=10.0.0.7", "10.0.0.7:80"),
        ("static://web=10.0.0.7:1/", "10.0.0.7:1"),
        ("static://web=10.0.0.7:1;", "10.0.0.7:1"),
    ],
)
def test_a_static_address_may_be_a_name_or_ipv6(url: str, address: str) -> None:
    assert [instance.address for instance in parse(url).services["web"]] == [address]


@pytest.mark.parametrize(
    "rest",
    [
        "",
        ";",
        "web",
        "web=",
        "=a:1",
        "Web=a:1",
        "web=a:0",
        "web=a:1,",
        "web=0.0.0.0:1",
        "web=169.254.169.254:80",
        "web=a:1?x=1",
        "web=u:p@a:1",
        "web=a_b:1",
    ],
)
def test_a_static_registry_that_makes_no_sense_is_an_error(rest: str) -> None:
    with pytest.raises(ConfigError):
        parse(f"static://{rest}")


# ---- the override of one service


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("http://localhost:3000", "http", "localhost", 3000),
        ("http://localhost", "http", "localhost", 80),
        ("https://example.com", "https", "example.com", 443),
        ("https://10.0.0.5:8443/", "https", "10.0.0.5", 8443),
        ("http://[::1]:3000", "http", "::1", 3000),
        (" http://localhost:3000 ", "http", "localhost", 3000),
    ],
)
def test_an_override_is_one_fixed_address(url: str, scheme: str, host: str, port: int) -> None:
    instance = parse_override("experiment", url)
    assert (instance.service, instance.scheme, instance.host, instance.port) == (
        "experiment",
        scheme,
        host,
        port,
    )


@pytest.mark.parametrize(
    "url",
    [
        "localhost:3000",
        "ftp://a",
        "http://",
        "http://a/path",
        "http://a?x=1",
        "http://a#x",
        "http://u:p@a",
        "http://a:0",
        "http://a:b",
        "http://[::1",
        "http://[zz]:1",
        "http://a℀:1",
        "http://0.0.0.0:1",
        "http://169.254.169.254",
        "http://a,b",
        "HTTP//a",
    ],
)
def test_an_override_that_makes_no_sense_is_an_error_that_names_the_variable(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override("my-service", url)
    if "can't be called" not in str(caught.value):
        assert "DISCO_OVERRIDE_MY_SERVICE" in str(caught.value)

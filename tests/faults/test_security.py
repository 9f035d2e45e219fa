"""Users, passwords, certificates: what is refused is said at once, what expires is renewed unseen, and nothing is told."""

from __future__ import annotations

import base64
import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from discoclient import (
    ConfigError,
    DiscoClient,
    DiscoveryTimeout,
    Instance,
    RegistryDenied,
    RegistryUnavailable,
    register,
)
from discoclient.control.hub import fresh_hub
from discoclient.dev import EtcdCluster, TLSFiles
from discoclient.registry.codec import encode
from discoclient.registry.etcd import channel, login
from discoclient.registry.keys import Keys
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.harness import FAST, PROGRAMS, Look, Unshuffled, look
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.proxy import FaultProxy
from tests.support.servers import Exchange, Servers
from tests.support.tls import Authority, cluster_tls

ROOT = "root:of all"
PASSWORD = "open sesame"


class Guarded:
    """A cluster that wants to know a user: ``writer``, ``reader`` or ``stranger``, all with the same password."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self.cluster = cluster
        self.prefix = "/disco/v1"
        self._is_on = False
        self._own_logins = 0
        for user, permission in (("root", ""), ("writer", "readwrite"), ("reader", "read"), ("stranger", "")):
            self.ctl("user", "add", ROOT if user == "root" else f"{user}:{PASSWORD}")
            self.ctl("role", "add", user)
            self.ctl("user", "grant-role", user, user)
            if permission:
                self.grant(user, permission)
        self.ctl("auth", "enable")
        self._is_on = True

    def url(self, user: str = "writer", password: str = PASSWORD, *, port: int | None = None) -> str:
        hosts = f"127.0.0.1:{port}" if port else self.cluster.registry_url.partition("://")[2]
        return f"etcd://{user}:{password.replace(' ', '%20')}@{hosts}{self.prefix}"

    def ctl(self, *arguments: str) -> str:
        """etcdctl, as root."""
        self._own_logins += self._is_on
        return self.cluster.etcdctl(*([f"--user={ROOT}"] if self._is_on else []), *arguments)

    def grant(self, role: str, permission: str) -> None:
        self.ctl("role", "grant-permission", "--prefix=true", role, permission, "/disco/")

    def revoke(self, role: str) -> None:
        self.ctl("role", "revoke-permission", "--prefix=true", role, "/disco/")

    def add(self, service: str = "experiment", *, port: int = 9) -> Instance:
        """An instance of somebody else's."""
        instance = Instance(service=service, id=uuid.uuid4().hex, host="127.0.0.1", port=port)
        lease = self.ctl("lease", "grant", "600").split()[1]
        key = Keys(self.prefix).instance(service, instance.id)
        self.ctl("put", f"--lease={lease}", key, encode(instance).decode())
        return instance

    def leases(self) -> int:
        """How many there are."""
        return int(self.ctl("lease", "list").split()[1])  # "found 3 leases"

    def asked(self, method: str) -> int:
        """How many calls of *method* the member has seen since it started, etcdctl's among them."""
        address = f"http://127.0.0.1:{self.cluster.members[0].client_port}/metrics"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5) as metrics:
            text = metrics.read().decode()
        found = re.search(
            rf'^grpc_server_started_total{{grpc_method="{method}",.*}} (\d+)$', text, re.MULTILINE
        )
        assert found is not None
        return int(found[1])

    def read(self, instance: Instance) -> str:
        """What stands at its key."""
        return self.ctl(
            "get", "--print-value-only", Keys(self.prefix).instance(instance.service, instance.id)
        )

    def expired(self, user: str) -> int:
        """How many tokens of *user* have expired."""
        lines = self.cluster.members[0].log_path.read_text().splitlines()
        return sum("deleted a simple token" in line and f'"{user}"' in line for line in lines)

    def logins(self) -> int:
        """How often somebody, but for `ctl`, has tried to log in."""
        return self.asked("Authenticate") - self._own_logins

    def restart(self) -> None:
        """Kill the member, and start it again."""
        (member,) = self.cluster.members
        member.kill()
        member.start()
        self.cluster.wait_healthy()
        self._own_logins = 0  # as the member counts


@contextmanager
def guarded(*flags: str) -> Iterator[Guarded]:
    # The cheapest of bcrypts: what is tested here is not its cost.
    with EtcdCluster(
        nodes=1, heartbeat=HEARTBEAT, election=ELECTION, extra_args=["--bcrypt-cost=4", *flags]
    ) as cluster:
        yield Guarded(cluster)


@pytest.fixture(scope="module")
def _guard() -> Iterator[Guarded]:
    with guarded("--auth-token-ttl=1") as guard:
        yield guard


@pytest.fixture
def guard(_guard: Guarded) -> Guarded:
    """The file's cluster, with a prefix that is this test's alone. A token that is not used for a second expires."""
    _guard.prefix = f"/disco/{uuid.uuid4().hex}"
    return _guard


def log_in_once(registry: Any) -> None:
    """A negative control: one login is enough for ever."""
    registry._members._login.forget = lambda metadata: None


def assert_sees(looking: Look, instance: Instance, *, within: float = 4.0) -> None:
    eventually(lambda: instance.id in looking.ids, timeout=within, what=f"the caller sees {instance.id}")


def why(looking: Look) -> str:
    """What it would say now if nothing were known."""
    return str(looking.resolver.timed_out(0))


# ---- tokens


QUIET = replace(FAST, silence=600.0)
"""Nothing is asked while a watch is idle, so that tokens do expire."""


@pytest.fixture
def proxy(guard: Guarded) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", guard.cluster.members[0].client_port) as running:
        yield running


def test_a_token_that_expired_is_replaced_and_the_watch_goes_on(guard: Guarded, proxy: FaultProxy) -> None:
    rounds = 2
    with (
        look(guard.url("writer", port=proxy.port), settings=QUIET) as looking,
        look(guard.url("reader", port=proxy.port), settings=QUIET, without=log_in_once) as control,
    ):
        for either in (looking, control):
            either.wait_live()
        before = guard.logins()
        for _ in range(rounds):
            expired = guard.expired("writer")
            eventually(
                lambda expired=expired: guard.expired("writer") > expired,
                timeout=10,
                what="the token expires",
            )
            proxy.reset()
            assert_sees(looking, guard.add())
        assert looking.lists == 1
        assert rounds <= guard.logins() - before <= 2 * rounds
        guard.restart()
        assert_sees(looking, guard.add())
        with pytest.raises(AssertionError, match="the caller sees"):
            assert_sees(control, guard.add(), within=0.5)


def test_a_registration_outlives_its_token(guard: Guarded) -> None:
    with (
        fresh_hub(settings=QUIET),
        register(
            "experiment", 9, host="127.0.0.1", registry=guard.url("writer"), ttl=60, quiet=0
        ) as registration,
    ):
        for is_ready in (False, True):
            expired = guard.expired("writer")
            eventually(
                lambda expired=expired: guard.expired("writer") > expired,
                timeout=10,
                what="the token expires",
            )
            registration.set_ready(is_ready)
            assert f'"state":"{"ready" if is_ready else "unready"}"' in guard.read(registration.instance)
    assert guard.read(registration.instance) == "", "nor does it keep anybody from leaving"


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[Guarded]:
    """A cluster with tokens that say of themselves for how long they are good, and for which state of users and roles."""
    key = rsa.generate_private_key(65537, 2048)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with guarded(f"--auth-token=jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=600s") as guard:
        yield guard


def test_a_signed_token_that_is_older_than_the_newest_user_is_replaced(signing: Guarded) -> None:
    with (
        FaultProxy("127.0.0.1", signing.cluster.members[0].client_port) as proxy,
        look(signing.url(port=proxy.port), settings=QUIET) as looking,
        look(signing.url(port=proxy.port), settings=QUIET, without=log_in_once) as control,
        fresh_hub(settings=QUIET),
        # The control has no token to acknowledge its drain with: it is not waited for.
        register(
            "experiment", 9, host="127.0.0.1", registry=signing.url(), ttl=60, quiet=0, drain_timeout=0
        ) as registration,
    ):
        for either in (looking, control):
            assert_sees(either, registration.instance)
        signing.ctl("user", "add", "somebody:else")
        registration.set_ready(False)
        assert '"state":"unready"' in signing.read(registration.instance)
        proxy.reset()
        newcomer = signing.add()
        assert_sees(looking, newcomer)
        with pytest.raises(AssertionError, match="the caller sees"):
            assert_sees(control, newcomer, within=0.5)


# ---- what is refused


def refused(guard: Guarded, url: str) -> str:
    """Why a registration is refused, which takes no time to find out, and leaves no lease behind."""
    before, began = guard.leases(), time.monotonic()
    with fresh_hub(settings=FAST), pytest.raises(RegistryDenied) as told:
        register("experiment", 9, host="127.0.0.1", registry=url, quiet=0, timeout=10)
    assert time.monotonic() - began < 5, "well before the timeout"
    assert guard.leases() == before
    return str(told.value)


def unknown(url: str) -> str:
    """Why nothing is known of a service."""
    with (
        fresh_hub(settings=FAST),
        DiscoClient("experiment", registry=url, discovery_timeout=0.5) as client,
        pytest.raises(DiscoveryTimeout) as told,
    ):
        client.get("/")
    assert isinstance(told.value.__cause__, RegistryDenied)
    return str(told.value)


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("writer", "wrong", "authentication failed, invalid user ID or password"),
        ("nobody", PASSWORD, "authentication failed, invalid user ID or password"),
        ("stranger", PASSWORD, "permission denied"),
        ("", "", "user name is empty"),
    ],
    ids=["wrong password", "wrong user", "no permission", "no user"],
)
def test_whoever_is_refused_is_told_so_at_once_and_why(
    guard: Guarded, user: str, password: str, reason: str
) -> None:
    url = (
        guard.url(user, password)
        if user
        else guard.url().replace(f"writer:{PASSWORD.replace(' ', '%20')}@", "")
    )
    assert reason in refused(guard, url)
    assert reason in unknown(url)


def test_who_may_only_read_calls_and_does_not_register(guard: Guarded) -> None:
    instance = guard.add()
    assert "permission denied" in refused(guard, guard.url("reader"))
    with look(guard.url("reader")) as looking:
        assert_sees(looking, instance)


HASTY = replace(FAST, backoff_first=0.001, backoff_cap=0.001)
"""Who asks again at once, and so would many services together."""


def test_a_wrong_password_is_shown_to_the_registry_once_in_a_while(
    guard: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tries() -> int:
        before = guard.logins()
        with look(guard.url(password="wrong"), settings=HASTY) as looking:
            assert not looking.resolver.wait(lambda: looking.resolver.snapshot is not None, 1.5)
        return guard.logins() - before

    assert 1 <= tries() <= 3
    monkeypatch.setattr(login, "REFUSED_FIRST", 0.0)
    assert tries() > 30, "the negative control"


def test_whoever_is_let_in_later_need_not_be_started_again(
    guard: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "REFUSED_FIRST", 0.2)
    instance = guard.add()
    with look(guard.url("late")) as looking:
        eventually(lambda: "authentication failed" in str(looking.resolver._follower.refusal))
        guard.ctl("user", "add", f"late:{PASSWORD}")
        guard.ctl("user", "grant-role", "late", "reader")
        assert_sees(looking, instance)
        assert looking.resolver._follower.refusal is None


def test_a_permission_that_is_taken_away_and_given_back_costs_a_caller_nothing_it_knew(
    guard: Guarded, proxy: FaultProxy
) -> None:
    instance = guard.add()
    with look(guard.url("reader", port=proxy.port)) as looking:
        looking.wait_live()
        guard.revoke("reader")
        try:
            before = guard.asked("Watch")
            proxy.reset()
            eventually(lambda: "permission denied" in why(looking), what="it is denied")
            eventually(lambda: guard.asked("Watch") - before >= 3, what="it tries again")
            assert looking.ids == {instance.id}
            assert looking.resolver.phase == "suspect"
        finally:
            guard.grant("reader", "read")
        assert_sees(looking, guard.add())
        assert looking.lists == 1


def test_a_password_where_none_is_asked_for_is_no_mistake(etcd: EtcdCluster, registry_url: str) -> None:
    url = registry_url.replace("etcd://", "etcd://writer:pointless@")
    with (
        look(url) as looking,
        fresh_hub(settings=FAST),
        register("experiment", 9, host="127.0.0.1", registry=url, quiet=0) as registration,
    ):
        assert_sees(looking, registration.instance)
        looking.wait_live()
        registration.set_ready(False)
        eventually(
            lambda: looking.resolver.snapshot.by_id[registration.instance.id].state == "unready",
            what="it is seen",
        )


# ---- TLS


@dataclass(frozen=True)
class Sealed:
    """A cluster whose certificate is for ``etcd.internal`` alone, and that wants to see its clients' certificates."""

    cluster: EtcdCluster
    authority: Authority
    stranger: Authority
    """Whom nobody here trusts."""

    def url(self, **changes: str | None) -> str:
        """Its address, with some options changed or left out (``None``)."""
        address, _, query = self.cluster.registry_url.partition("?")
        options = dict(parse_qsl(query)) | changes
        return f"{address}?{urlencode({name: value for name, value in options.items() if value is not None})}"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    folder = tmp_path_factory.mktemp("sealed")
    authority, stranger = Authority(folder / "ours"), Authority(folder / "foreign")
    server, client = authority.issue("server", sans=["etcd.internal"]), authority.issue("client")
    tls = TLSFiles(
        authority.ca, server.cert, server.key, client.cert, client.key, server_name="etcd.internal"
    )
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        yield Sealed(cluster, authority, stranger)


def test_a_registry_behind_tls_is_used_like_any_other(sealed: Sealed) -> None:
    with (
        look(sealed.url()) as looking,
        fresh_hub(settings=FAST),
        register("experiment", 9, host="127.0.0.1", registry=sealed.url(), ttl=2, quiet=0) as registration,
    ):
        assert_sees(looking, registration.instance)
        registration.set_ready(False)
        eventually(
            lambda: looking.resolver.snapshot.by_id[registration.instance.id].state == "unready",
            what="it is seen",
        )
    assert looking.lists == 1


def without_a_client_certificate(sealed: Sealed) -> str:
    return sealed.url(cert=None, key=None)


def with_a_foreign_client_certificate(sealed: Sealed) -> str:
    shown = sealed.stranger.issue("client")
    return sealed.url(cert=str(shown.cert), key=str(shown.key))


def with_an_expired_client_certificate(sealed: Sealed) -> str:
    shown = sealed.authority.issue("expired", lifetime=-3600)
    return sealed.url(cert=str(shown.cert), key=str(shown.key))


def with_a_foreign_authority(sealed: Sealed) -> str:
    return sealed.url(ca=str(sealed.stranger.ca))


def without_a_name(sealed: Sealed) -> str:
    return sealed.url(server_name=None)


def with_another_name(sealed: Sealed) -> str:
    return sealed.url(server_name="etcd.example")


WANTS = "it wants a client certificate that it knows (cert= and key=): "
NOT_GOOD = "its certificate is not good: "


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (without_a_client_certificate, WANTS),
        (with_a_foreign_client_certificate, WANTS),
        (with_an_expired_client_certificate, WANTS),
        (with_a_foreign_authority, f"{NOT_GOOD}unable to get local issuer certificate (ca= and"),
        (without_a_name, f"{NOT_GOOD}IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (with_another_name, f"{NOT_GOOD}Hostname mismatch, certificate is not valid for 'etcd.example'"),
    ],
    ids=[
        "no client certificate",
        "foreign client certificate",
        "expired client certificate",
        "foreign authority",
        "no name",
        "another name",
    ],
)
def test_a_certificate_that_is_not_taken_is_said_to_be_that(
    sealed: Sealed, address: Callable[[Sealed], str], reason: str
) -> None:
    with look(address(sealed), settings=replace(FAST, stale_after=60.0)) as looking:
        eventually(lambda: reason in why(looking), what="it says why")
        eventually(
            lambda: reason in str(looking.resolver._follower.refusal), what="and that waiting is in vain"
        )
        assert looking.resolver.snapshot is None


def test_a_registration_says_at_once_what_is_wrong_with_the_certificate(sealed: Sealed) -> None:
    wanted = re.escape(f"etcd 127.0.0.1:{sealed.cluster.members[0].client_port}: {NOT_GOOD}")
    began = time.monotonic()
    with fresh_hub(settings=FAST), pytest.raises(RegistryUnavailable, match=wanted):
        register("experiment", 9, host="127.0.0.1", registry=without_a_name(sealed), timeout=60.0)
    assert time.monotonic() - began < 30, "waiting is in vain"


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_a_file_that_is_not_there_is_a_mistake_in_the_address(sealed: Sealed, option: str) -> None:
    missing = str(sealed.authority.ca.with_name("missing.pem"))
    with (
        fresh_hub(),
        DiscoClient("experiment", registry=sealed.url(**{option: missing})) as client,
        pytest.raises(ConfigError, match=re.escape(missing)),
    ):
        client.get("/")


@pytest.mark.parametrize("wrong", ["plain to TLS", "TLS to plain"])
def test_one_who_speaks_plain_and_one_who_speaks_tls_do_not_hang(
    sealed: Sealed, etcd: EtcdCluster, wrong: str
) -> None:
    plain, tls = etcd.registry_url, sealed.url()
    url = (
        tls.partition("?")[0].replace("etcds", "etcd")
        if wrong == "plain to TLS"
        else plain.replace("etcd", "etcds")
    )
    began = time.monotonic()
    with (
        fresh_hub(settings=FAST),
        DiscoClient("experiment", registry=url, discovery_timeout=0.5) as client,
        pytest.raises(DiscoveryTimeout),
    ):
        client.get("/")
    assert time.monotonic() - began < 3


@pytest.fixture
def sealed3(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three members behind TLS, that may be pinged often."""
    tls = cluster_tls(tmp_path, client=None)
    flags = ["--grpc-keepalive-min-time=10ms"]
    with EtcdCluster(nodes=3, heartbeat=HEARTBEAT, election=ELECTION, tls=tls, extra_args=flags) as cluster:
        yield cluster


def test_a_member_behind_tls_that_freezes_is_found_out_long_before_tls_itself_does(
    sealed3: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio would wait 30 s for its goodbye."""
    raw = Raw(sealed3, sealed3.registry_url)
    frozen, *others = [*sealed3.followers(), sealed3.leader()]
    hosts, _, query = sealed3.registry_url.partition("?")
    hosts = ",".join(f"127.0.0.1:{member.client_port}" for member in (frozen, *others))
    url = f"etcds://{hosts}?{query}"
    with look(url, settings=QUIET) as control:  # silence is taken for peace, and pinged every 10 s
        control.wait_live()
        monkeypatch.setattr(channel, "KEEPALIVE_TIME", 0.5)
        monkeypatch.setattr(channel, "KEEPALIVE_TIMEOUT", 1.0)
        monkeypatch.setattr(channel, "KEEPALIVE_SPACING", 0.1)
        with (
            look(url, settings=QUIET) as pinging,
            look(url, settings=FAST) as asking,
            fresh_hub(settings=FAST) as hub,
        ):
            hub.rng = Unshuffled()
            for each in (pinging, asking):
                each.wait_live()
            with register("renewing", 9, host="127.0.0.1", registry=url, ttl=6, quiet=0) as registration:
                before = raw.instance("renewing", registration.instance.id)
                frozen.pause()
                newcomer = raw.add("experiment", at=others[0])
                assert_sees(asking, newcomer, within=9)
                assert_sees(pinging, newcomer, within=9)
                with pytest.raises(AssertionError, match="the caller sees"):
                    assert_sees(control, newcomer, within=0.5)
                left = [raw.time_to_live(before.lease)]
                eventually(
                    lambda: left.append(raw.time_to_live(before.lease)) or left[-1] > left[-2],
                    what="it renews",
                )
                assert raw.instance("renewing", registration.instance.id) == before
                frozen.resume()


# ---- secrets

SECRET = "C4n4ry"
"""In every secret of the scenario, in a part of it that needs no encoding."""
TOKEN = re.compile(r"\b[A-Za-z]{16}\.[0-9]+\b")
"""What etcd gives for a password."""


async def answer_by_path(exchange: Exchange) -> None:
    await exchange.body()
    match exchange.seen.target:
        case "/redirect":
            await exchange.reply(
                302, headers={"location": f"http://127.0.0.1:{exchange.server.port}/elsewhere"}
            )
        case "/close":
            exchange.close()
        case _:
            await exchange.reply(200, b"well", {"set-cookie": "harmless=1"})


def test_no_secret_is_told_whatever_is_asked_and_whatever_fails(guard: Guarded, processes: Processes) -> None:
    password, wrong = f"{SECRET}/p@ss:w0rd", f"{SECRET}&nd=wr0ng"
    guard.ctl("user", "add", f"user:{password}")
    guard.ctl("user", "grant-role", "user", "writer")
    with Servers() as servers:
        guard.add(port=servers.start(answer_by_path).port)
        env = {
            "DISCO_REGISTRY": guard.url("user", quote(password, safe="")),
            "WRONG_REGISTRY": guard.url("user", quote(wrong, safe="")),
            "HEADER": f"Bearer {SECRET}-authorization",
            "DISCO_LOG": "debug",
            "PYTHONASYNCIODEBUG": "1",
        }
        program, control = (
            processes.python(PROGRAMS / "telling.py", *flags, env=env) for flags in ([], ["--control"])
        )
        told, told_by_control = ((it.wait(timeout=50), it.output + it.errors)[1] for it in (program, control))
    assert "done" in program.output, program.errors
    assert len(told.splitlines()) > 1000, "much is said"
    for what in (
        "DEBUG:discoclient",
        "DEBUG:httpcore",
        "DEBUG:asyncio",
        "RegistryDenied",
        "DiscoveryTimeout",
        "ConfigError",
    ):
        assert what in told
    for user_and_password in (f"user:{password}", f"user:{wrong}", password, wrong):
        assert base64.b64encode(user_and_password.encode()).decode().rstrip("=") not in told
    assert not [line for line in told.splitlines() if SECRET in line or TOKEN.search(line)]
    # Negative control: a careless program, and hpack's own words.
    assert quote(password, safe="") in told_by_control
    assert f"{SECRET}-authorization" in told_by_control
    assert TOKEN.search(told_by_control)

"""``disco doctor`` on a registry that is well, on one that is not, and on none."""

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import discoclient
from discoclient import State
from discoclient.cli.checks import check_version
from discoclient.dev import EtcdCluster, find_etcd
from tests.cli.conftest import Disco
from tests.cli.records import Records, instance
from tests.support.eventually import eventually
from tests.support.ports import free_port

OF_THE_VERSION = [warning for warning in [check_version(find_etcd().version)] if warning]


def test_a_registry_that_is_well_is_described(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa"))
    records.put(instance("experiment", "bbbbbbbb", state=State.DRAINING))
    result = disco("--registry", records.url, "doctor", "--json")
    assert (result.code, result.err, len(result.lines)) == (0, "", 1)
    found = json.loads(result.out)
    (member,) = found.pop("members")
    assert 0 < member.pop("latency") < 60
    assert member.pop("revision") > 1
    address = records.url.removeprefix("etcd://").partition("/")[0]
    version = find_etcd().version
    assert member == {
        "name": address,
        "reachable": True,
        "version": version,
        "leader": True,
        "has_leader": True,
    }
    assert 0 < found.pop("read_latency") < 60
    assert found.pop("revision") > 1
    versions = found.pop("versions")
    assert versions["python"] == platform.python_version()
    assert versions["discoclient"] == discoclient.__version__
    assert {"httpx", "grpclib", "python3-etcd3", "protobuf"} <= versions.keys()
    assert found.pop("environment").keys() <= {"DISCO_ETCD_BIN"}
    assert found == {
        "registry": records.url,
        "prefix": "/" + records.url.partition("://")[2].partition("/")[2],
        "source": "--registry",
        "reachable": True,
        "problem": None,
        "services": {"experiment": {"ready": 1, "unready": 0, "draining": 1}},
        "skipped": {},
        "warnings": OF_THE_VERSION,
    }


def test_the_text_says_the_same(disco: Disco, records: Records) -> None:
    records.put(instance("experiment", "aaaaaaaa"))
    result = disco("--registry", records.url, "doctor")
    assert (result.code, result.err) == (0, "")
    assert f"  discoclient    {discoclient.__version__}" in result.lines
    assert f"  registry  {records.url} (from --registry)" in "\n".join(result.lines).replace("        ", "  ")
    (member,) = (line.split() for line in result.lines if "  up " in line)
    assert member[1:4] == ["up", find_etcd().version, "leader"]
    assert "  1 service, 1 instance: 1 ready, 0 unready, 0 draining; 0 records skipped" in result.lines
    assert result.lines[-1] == (f"  - {OF_THE_VERSION[0]}" if OF_THE_VERSION else "no warnings")


def test_what_is_wrong_is_told_in_plain_words(
    disco: Disco, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = "/" + records.url.partition("://")[2].partition("/")[2]
    records.put(
        instance("experiment", "aaaaaaaa", registered_at="2999-01-01T00:00:00Z"),
        instance("ledger", "bbbbbbbb", state=State.UNREADY),
    )
    records.put_raw(f"{prefix}/services/experiment/cccccccc", b"secret: not json")
    monkeypatch.setenv("DISCO_ZOEN", "eu-west-1a")
    monkeypatch.setenv("DISCO_ZONE", "eu-west-1a")
    monkeypatch.setenv("DISCO_OVERRIDE_LEDGER", "http://127.0.0.1:3000")
    monkeypatch.setenv("DISCO_OVERRIDE_OTHER", "ftp://user:secret@host")
    result = disco("--registry", records.url, "doctor", "--json")
    assert result.code == 0
    found = json.loads(result.out)
    warnings = [warning for warning in found["warnings"] if warning not in OF_THE_VERSION]
    assert warnings[:-1] == [
        "$DISCO_OVERRIDE_LEDGER is set: calls from here to ledger go to http://127.0.0.1:3000, whatever is registered",
        "$DISCO_OVERRIDE_OTHER must be http://host:port or https://host:port",
        "$DISCO_ZOEN is set, and means nothing to discoclient",
        f"the record at '{prefix}/services/experiment/cccccccc' is skipped: not a JSON value in UTF-8",
        "service ledger has no ready instance: 1 unready",
    ]
    assert warnings[-1].startswith("experiment aaaaaaaa says that it was registered ")
    assert found["environment"]["DISCO_ZONE"] == "eu-west-1a"
    assert "secret" not in result.out + disco("--registry", records.url, "doctor").out


def test_a_member_that_is_down_and_then_a_lost_quorum_are_told(disco: Disco, cluster3: EtcdCluster) -> None:
    one, other = cluster3.followers()
    one.kill()
    result = disco("--registry", cluster3.registry_url, "doctor")
    assert (result.code, result.err) == (0, "")
    assert f"  - member 127.0.0.1:{one.client_port} can't be reached: " in result.out
    assert "no quorum" not in result.out
    other.kill()
    # the last member leads until it notices that nobody follows
    result = eventually(
        lambda: (found := disco("--registry", cluster3.registry_url, "doctor")).code == 4 and found,
        timeout=30,
    )
    assert "  - no quorum: 1 of 3 members answer" in result.out
    assert result.out.count("can't be reached: ") == 2
    assert result.err.startswith(f"disco: the registry {cluster3.registry_url} can't be reached: ")
    assert result.err.count("\n") == 1


def test_an_unreachable_registry_is_exit_code_4_with_all_that_is_known(disco: Disco) -> None:
    port = free_port()
    url = f"etcd://user:secret@127.0.0.1:{port}"
    result = disco("--registry", url, "doctor")
    assert result.code == 4
    assert f"127.0.0.1:{port}  down" in result.out
    assert "a linearizable read fails" in result.out
    assert "quorum" not in result.out
    assert result.err.startswith(f"disco: the registry etcd://127.0.0.1:{port} can't be reached: ")
    assert "secret" not in result.out + result.err
    found = json.loads(disco("--registry", url, "doctor", "--json").out)
    assert (found["reachable"], found["revision"], found["services"]) == (False, None, {})
    assert found["members"][0]["reachable"] is False


@pytest.fixture
def guarded(etcd_node: EtcdCluster) -> str:
    """``host:port`` of a registry that wants to know a user: ``root``, or ``stranger``, who has no permission."""
    for arguments in (
        ("user", "add", "root:root-password"),
        ("user", "add", "stranger:secret"),
        ("role", "add", "root"),
        ("user", "grant-role", "root", "root"),
        ("auth", "enable"),
    ):
        etcd_node.etcdctl(*arguments)
    return etcd_node.registry_url.removeprefix("etcd://")


def test_a_user_that_is_refused_is_no_lost_quorum_and_no_member_that_is_down(
    disco: Disco, guarded: str
) -> None:
    version = find_etcd().version
    for user, state, why in (
        ("", f"up {version} leader", "wants a user and a password, and its URL names none"),
        (
            "stranger:secret@",
            f"up {version} leader",
            "refuses user 'stranger': it may not read /disco/v1/services/",
        ),
        ("stranger:sEcret@", "refuses us", "refuses user 'stranger': wrong password, or no such user"),
        ("nobody:secret@", "refuses us", "refuses user 'nobody': wrong password, or no such user"),
    ):
        url = f"etcd://{user}{guarded}"
        result = disco("--registry", url, "doctor")
        assert result.code == 4
        assert f" {guarded} {state} " in f" {' '.join(result.out.split())} "
        assert "  a linearizable read is refused" in result.lines
        assert f"  - the registry etcd://{guarded} {why}" in result.out
        assert result.err.startswith(f"disco: the registry etcd://{guarded} {why}")
        assert result.err.count("\n") == 1
        for wrong in ("quorum", "down", "can't be reached", "secret", "sEcret"):
            assert wrong not in result.out + result.err
        found = json.loads(disco("--registry", url, "doctor", "--json").out)
        assert found["reachable"] is found["members"][0]["reachable"] is True
        assert why in found["problem"]
        assert found["warnings"][0] == found["problem"]
        listed = disco("--registry", url, "ls")
        assert (listed.code, listed.out, listed.err) == (4, "", result.err)
        one = disco("--registry", url, "ls", "experiment")
        assert one.err == result.err.replace("/services/", "/services/experiment/")


def test_a_user_that_is_not_refused_is_found_well(disco: Disco, guarded: str) -> None:
    """The negative control: it is not the users as such."""
    result = disco("--registry", f"etcd://root:root-password@{guarded}", "doctor")
    assert (result.code, result.err) == (0, "")
    assert "refuse" not in result.out


def test_distributions_that_overwrite_each_other_are_found(
    disco: Disco, records: Records, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "etcd3-0.12.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: etcd3\nVersion: 0.12.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = disco("--registry", records.url, "doctor")
    assert result.code == 4
    assert "python3-etcd3, etcd3 all install a package named etcd3" in result.err
    assert "pip uninstall" in result.err


def test_a_static_registry_has_nothing_to_reach(disco: Disco) -> None:
    result = disco("--registry", "static://experiment=127.0.0.1:8000", "doctor")
    assert (result.code, result.err) == (0, "")
    assert "  fixed addresses; there is no registry to reach" in result.lines
    assert result.lines[-1] == "no warnings"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which a socket's path is not too long, whatever the tests are run in."""
    with tempfile.TemporaryDirectory(prefix="d") as folder:
        yield Path(folder)


def test_who_watches_for_the_host_is_told_where_watches_are_shared(
    disco: Disco, records: Records, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    url = f"{records.url}?share=1"
    assert "one watch per host: nobody watches for this host now" in disco("--registry", url, "doctor").out
    records.put(instance("experiment", "aaaaaaaa"))
    with discoclient.connect(url) as handle:
        assert handle.instances("experiment")
        expected = f"pid {os.getpid()} watches for this host"
        assert json.loads(disco("--registry", url, "doctor", "--json").out)["sharing"] == expected
        (short_path / "discoclient").chmod(0o755)
        assert "not possible here" in disco("--registry", url, "doctor").out
        (short_path / "discoclient").chmod(0o700)
    assert "one watch" not in disco("--registry", records.url, "doctor").out, "the negative control"

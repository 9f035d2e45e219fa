"""A cluster that speaks TLS only, with and without certificates for clients."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from discoclient.dev import EtcdCluster, EtcdFailed, TLSFiles
from discoclient.dev.gateway import Gateway
from tests.conftest import ELECTION, HEARTBEAT
from tests.dev.kv import get, put
from tests.support.tls import Authority, cluster_tls


def secure(tls: TLSFiles, nodes: int = 1) -> EtcdCluster:
    return EtcdCluster(nodes, heartbeat=HEARTBEAT, election=ELECTION, tls=tls)


def test_three_members_with_client_certificates_answer_those_who_have_one(tmp_path: Path) -> None:
    tls = cluster_tls(tmp_path)
    with secure(tls, 3) as etcd:
        put(etcd.leader(), "a", "1")
        assert get(etcd.members[1], "a") == "1"
        assert etcd.etcdctl("get", "--print-value-only", "a").strip() == "1"
        without = TLSFiles(ca=tls.ca, cert=tls.cert, key=tls.key)
        for intruder in (
            Gateway(etcd.members[0].client_port, tls=without),
            Gateway(etcd.members[0].client_port),
        ):
            with pytest.raises(OSError):
                intruder.read_linearizable(timeout=2.0)


def test_the_registry_url_says_where_the_certificates_are(tmp_path: Path) -> None:
    tls = cluster_tls(tmp_path / "a folder & more")
    with secure(tls) as etcd:
        url = urlsplit(etcd.registry_url)
        assert (url.scheme, url.netloc) == ("etcds", f"127.0.0.1:{etcd.members[0].client_port}")
        found = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert found == {"ca": str(tls.ca), "cert": str(tls.client_cert), "key": str(tls.client_key)}


def test_clients_need_no_certificate_if_none_was_made(tmp_path: Path) -> None:
    tls = cluster_tls(tmp_path, client=None)
    with secure(tls) as etcd:
        assert etcd.registry_url.endswith(f"?ca={tls.ca}")


def test_a_certificate_for_another_name_needs_the_server_name(tmp_path: Path) -> None:
    named = cluster_tls(tmp_path / "named", sans=["etcd.test"], server_name="etcd.test")
    with secure(named) as etcd:
        assert "server_name=etcd.test" in etcd.registry_url
    unnamed = cluster_tls(tmp_path / "unnamed", sans=["etcd.test"])
    with pytest.raises(EtcdFailed, match=r"not valid for '127\.0\.0\.1'"):
        secure(unnamed).start(timeout=2.0)


def test_a_member_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    right = cluster_tls(tmp_path / "right")
    other = Authority(tmp_path / "other").ca
    with secure(right) as etcd:
        wrong = TLSFiles(ca=other, cert=right.cert, key=right.key)
        with pytest.raises(OSError, match="certificate verify failed"):
            Gateway(etcd.members[0].client_port, tls=wrong).read_linearizable(timeout=2.0)


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        TLSFiles(ca=tmp_path, cert=tmp_path, key=tmp_path, client_cert=tmp_path)

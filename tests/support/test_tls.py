"""The certificates are good for what they are made for, and for nothing else."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from tests.support.tls import Authority, Certificate


def shake_hands(
    authority: Authority, server: Certificate, name: str, client: Certificate | None = None
) -> None:
    """A handshake in memory. Raises `ssl.SSLError` if either side does not like the other."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
    server_context.load_cert_chain(server.cert, server.key)
    server_context.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    client_context = ssl.create_default_context(cafile=str(authority.ca))
    if client:
        client_context.load_cert_chain(client.cert, client.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context.wrap_bio(to_client, to_server, server_hostname=name),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "localhost"])
def test_a_certificate_is_good_for_its_names(name: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shake_hands(authority, authority.issue("server"), name, client=authority.issue("client"))


def test_a_certificate_is_not_good_for_another_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", sans=["etcd.test"])
    shake_hands(authority, server, "etcd.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(authority, server, "other.test")


def test_an_expired_certificate_is_not_good(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(authority, authority.issue("server", lifetime=-60.0), "localhost")


def test_a_certificate_of_another_authority_is_not_good(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "one"), Authority(tmp_path / "two", name="another authority")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(authority, other.issue("server"), "localhost")


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    assert stat.S_IMODE(Authority(tmp_path).issue("server").key.stat().st_mode) == 0o600

"""Certificates for tests: an authority made on the spot, and what it signs. ECDSA, because RSA keys take time."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from discoclient.dev import TLSFiles

__all__ = ["Authority", "Certificate", "cluster_tls"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two PEM files. The key's is readable by its owner alone."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in *folder*. ``ca`` is what others are told to trust."""

    def __init__(self, folder: Path, *, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .add_extension(key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        sans: Sequence[str] = ("127.0.0.1", "::1", "localhost"),
        lifetime: float = 86_400.0,
    ) -> Certificate:
        """A certificate for the common name *name* and the addresses and host names *sans*, as server and client.

        *lifetime* in seconds; a negative one makes a certificate that has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_named(name), self._name, key.public_key(), lifetime=lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([_general_name(san) for san in sans]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.touch(mode=0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


def cluster_tls(
    folder: Path,
    *,
    sans: Sequence[str] = ("127.0.0.1", "localhost"),
    server_name: str | None = None,
    client: str | None = "client",
) -> TLSFiles:
    """All that an `EtcdCluster` with TLS needs. *client*: the client certificate's common name; None: without."""
    authority = Authority(folder)
    server = authority.issue("server", sans=sans)
    shown = None if client is None else authority.issue(client)
    return TLSFiles(
        ca=authority.ca,
        cert=server.cert,
        key=server.key,
        client_cert=None if shown is None else shown.cert,
        client_key=None if shown is None else shown.key,
        server_name=server_name,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, lifetime: float = 86_400.0
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    # Begun yesterday and more, so that an expired one still has a beginning before its end.
    begin = now - datetime.timedelta(days=2)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(now + datetime.timedelta(seconds=lifetime))
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

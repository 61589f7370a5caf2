"""The machine's own certificate authority and the console certificate it signs (RFC 5280), with no file touched."""

import datetime as dt
import ipaddress
from collections.abc import Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY_S = 86400.0

AUTHORITY_FROM = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
AUTHORITY_UNTIL = dt.datetime(2055, 1, 1, tzinfo=dt.UTC)
"""Fixed, so that no clock, right or wrong, has a say in whether the authority is valid."""

CERTIFICATE_DAYS = 820
"""Some browsers refuse a server certificate, also of a private authority, that is valid for more than 825 days."""


class Authority(msgspec.Struct, frozen=True):
    """The authority's certificate and private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Authority(…)"


class Console(msgspec.Struct, frozen=True):
    """A console certificate: `bundle` is leaf, authority and private key in one PEM; times are Unix times."""

    bundle: bytes
    fingerprint: str
    not_before: float
    not_after: float

    def __repr__(self) -> str:
        return f"Console({self.fingerprint})"


def create_authority(name: str) -> Authority:
    """Return a new authority (ECDSA P-256) that can sign server certificates and no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), AUTHORITY_FROM, AUTHORITY_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=_pem(certificate), key=_private_pem(key))


def issue_console(authority: Authority, names: Sequence[str], now: float) -> Console:
    """Return a new console certificate for `names` (the first is its common name), valid from a day before `now`.

    The day lets in a browser whose clock is slow. ValueError where the authority's PEM cannot be read.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey) or issuer_key.public_key() != issuer.public_key():
        raise ValueError("the authority's key does not belong to its certificate")
    start = dt.datetime.fromtimestamp(int(now - DAY_S), tz=dt.UTC)
    end = start + dt.timedelta(days=CERTIFICATE_DAYS)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Console(
        bundle=_pem(certificate) + authority.certificate + _private_pem(key),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        not_before=start.timestamp(),
        not_after=end.timestamp(),
    )


def general_name(name: str) -> x509.GeneralName:
    """Return `name` as a subject alternative name: an IP address where it is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

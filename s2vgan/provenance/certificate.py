"""The certificate that signs content credentials: a configured one, or a home-made one for tests.

``cryptography`` is imported where it is used: only who signs pays for it.
"""

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from s2vgan import cache
from s2vgan.errors import ConfigError
from s2vgan.files import write_text

CERT_VARIABLE: Final = "S2VGAN_C2PA_CERT"
KEY_VARIABLE: Final = "S2VGAN_C2PA_KEY"
TEST_ISSUER: Final = "S2V-GAN test certificate, trusted by nobody"
_FILE: Final = "c2pa-test-signer.pem"  # in the cache folder, and no folder: it is never evicted
_DAYS: Final = 3650


@dataclass(frozen=True)
class Credential:
    """What a signature is made with.

    Attributes:
        algorithm: of C2PA, such as ``es256``.
        chain: PEM certificates, the signer's first.
        key: PEM of the private key (PKCS #8).
    """

    algorithm: str
    chain: str
    key: str


def credential() -> Credential:
    """The certificate of S2VGAN_C2PA_CERT and S2VGAN_C2PA_KEY (PEM files), or the home-made one.

    Raises:
        ConfigError: if one of the two is missing or unreadable, or the key is of no kind that
            C2PA knows.
    """
    paths = [os.environ.get(name) for name in (CERT_VARIABLE, KEY_VARIABLE)]
    if not any(paths):
        pem = _test_pem()
        return _parse(pem, pem, _test_file())
    if not all(paths):
        raise ConfigError(
            f"content credentials: set both {CERT_VARIABLE} (PEM of the certificates) and "
            f"{KEY_VARIABLE} (PEM of the private key), or neither for a test certificate."
        )
    parts = []
    for path in paths:
        try:
            parts.append(Path(str(path)).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as a PEM file ({error}).") from error
    return _parse(parts[0], parts[1], Path(str(paths[1])))


def _parse(certificates: str, secret: str, where: Path) -> Credential:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_blocks(secret, "PRIVATE KEY").encode(), None)
        chain = x509.load_pem_x509_certificates(_blocks(certificates, "CERTIFICATE").encode())
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{where}: no certificate with its private key in PEM, without a password ({error})."
        ) from error
    if key.public_key() != chain[0].public_key():
        raise ConfigError(f"{where}: not the private key of the first certificate.")
    own = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    whole = b"".join(part.public_bytes(serialization.Encoding.PEM) for part in chain)
    return Credential(_algorithm(key, where), whole.decode(), own.decode())


def _algorithm(key: Any, where: Path) -> str:
    """The name that C2PA has for signatures of a key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in known:
            return known[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ConfigError(
        f"{where}: C2PA knows no signature of this kind of key; use one of P-256, P-384, P-521, "
        "RSA or Ed25519."
    )


def _blocks(pem: str, kind: str) -> str:
    """The PEM blocks whose label ends in ``kind``."""
    kept: list[str] = []
    inside = False
    for line in pem.splitlines():
        inside |= line.startswith("-----BEGIN ") and line.endswith(f"{kind}-----")
        if inside:
            kept.append(line)
        inside &= not line.startswith("-----END ")
    return "\n".join(kept) + "\n"


def _test_file() -> Path:
    return cache.home() / _FILE


def _test_pem() -> str:
    """The home-made key and certificates, made at the first use and kept for this user alone."""
    path = _test_file()
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text(path, _make())
            path.chmod(0o600)
        return path.read_text()
    except OSError as error:
        raise ConfigError(
            f"{path}: the test certificate cannot be kept there ({error.strerror}); set "
            f"{cache.VARIABLE}, or {CERT_VARIABLE} and {KEY_VARIABLE}."
        ) from error


def _make() -> str:
    """PEM of a new key, its certificate, and that of an authority whose key is thrown away."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, TEST_ISSUER),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs, key_cert_sign=signs, crl_sign=signs,
            content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    end = begin + datetime.timedelta(days=_DAYS)
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    blank = (
        x509.CertificateBuilder()
        .issuer_name(name("S2V-GAN test authority"))
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    root = (
        blank.subject_name(name("S2V-GAN test authority"))
        .public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(root_id, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        blank.subject_name(name("S2V-GAN test signer"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = (part.public_bytes(serialization.Encoding.PEM) for part in (leaf, root))
    return (secret + b"".join(chain)).decode()

"""For tests of downloads: a server with a certificate of its own, and a video for it."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import MakeVideo
from tests.website import Site


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of localhost, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def site(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    site = Site(certificate)
    yield site
    site.close()


@pytest.fixture
def body(make_video: MakeVideo) -> bytes:
    """A small video with sound."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    frames = [(n / 30, np.roll(noise, n, 1)) for n in range(30)]
    path = make_video("x.mkv", frames, np.zeros(16000, np.float32))
    content = path.read_bytes()
    path.unlink()
    return content

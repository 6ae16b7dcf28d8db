"""C2PA content credentials: signing a complete MP4, and reading what a file carries.

c2pa-python loads a library of 50 MB: it is imported where it is used.
"""

import io
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final

from s2vgan.errors import ConfigError, SourceError
from s2vgan.provenance.certificate import credential
from s2vgan.provenance.origin import Origin

MP4: Final = "video/mp4"
_OFFLINE: Final = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


@dataclass(frozen=True)
class Credentials:
    """The C2PA manifest that a file carries.

    Attributes:
        state: ``Trusted`` (whole, and signed by whom this machine trusts), ``Valid`` (whole, and
            signed by somebody unknown, such as a test certificate) or ``Invalid`` (changed since).
        issuer: organisation of the certificate.
        source_type: digitalSourceType of how it was made, empty if it says none.
        model: what an S2V-GAN tells of its model: name, version, sha256, mlflow_run, consent.
    """

    state: str
    issuer: str
    source_type: str
    model: dict[str, str]


def sign_file(path: str | Path, origin: Origin, title: str = "") -> None:
    """Sign a complete MP4 file in its place, whole or not at all.

    Args:
        path: of the file.
        origin: of what it shows.
        title: that the credentials give it; by default the file's name.

    Raises:
        ConfigError: if c2pa-python or the certificate cannot be used.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with path.open("rb") as source, temporary.open("w+b") as signed:
            _sign(source, signed, origin, title or path.name)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sign_bytes(movie: bytes, origin: Origin, title: str = "speech.mp4") -> bytes:
    """A complete MP4, signed.

    Raises:
        ConfigError: if c2pa-python or the certificate cannot be used.
    """
    signed = io.BytesIO()
    _sign(io.BytesIO(movie), signed, origin, title)
    return signed.getvalue()


def read_credentials(path: str | Path) -> Credentials | None:
    """The C2PA manifest that a file carries, None if there is none. Nothing is fetched.

    Raises:
        SourceError: if the file is missing, or what it carries cannot be read.
        ConfigError: if c2pa-python cannot be loaded.
    """
    c2pa = _library()
    if not Path(path).is_file():
        raise SourceError(f"{path}: no such file; check the path.")
    try:
        with c2pa.Context(c2pa.Settings.from_dict(_OFFLINE)) as context:
            reader = c2pa.Reader.try_create(path, context=context)
            if reader is None:
                return None
            with reader:
                state = str(reader.get_validation_state())
                manifest = reader.get_active_manifest()
    except c2pa.C2paError.NotSupported:  # a kind of file that can carry none
        return None
    except (c2pa.C2paError, json.JSONDecodeError) as error:
        raise SourceError(f"{path}: its content credentials cannot be read ({error}).") from error
    try:
        return _told(state, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path}: its content credentials cannot be read (not of C2PA's form: {error})."
        ) from error


def _told(state: str, manifest: dict[str, Any]) -> Credentials:
    data: dict[str, Any] = {part["label"]: part["data"] for part in manifest["assertions"]}
    actions = [
        action
        for label, part in data.items()
        if label.startswith("c2pa.actions")
        for action in part["actions"]
    ]
    types = [action["digitalSourceType"] for action in actions if "digitalSourceType" in action]
    issuer = manifest.get("signature_info", {}).get("issuer", "")
    model = dict(data.get("s2vgan.model", {}).items())
    return Credentials(state, issuer, types[0] if types else "", model)


def _sign(source: BinaryIO, signed: BinaryIO, origin: Origin, title: str) -> None:
    c2pa = _library()
    mine = credential()
    info = c2pa.C2paSignerInfo(mine.algorithm, mine.chain.encode(), mine.key.encode(), None)
    try:
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(json.dumps(origin.c2pa(title))) as builder,
        ):
            builder.sign(signer, MP4, source, signed)
    except c2pa.C2paError as error:
        raise ConfigError(
            f"content credentials: cannot be signed ({error}); check the certificate of "
            "S2VGAN_C2PA_CERT: in its time, digital signature, with an extended key usage that "
            "C2PA accepts."
        ) from error


def _library() -> ModuleType:
    try:
        import c2pa
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"content credentials: c2pa-python cannot be loaded ({error}); install it again by "
            "`pip install c2pa-python`; `s2vgan speak --no-credentials` does without."
        ) from error
    return c2pa

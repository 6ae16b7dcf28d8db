"""What is told of the model that made a video, in the words of each place that tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

NOBODY: Final = "nobody is named"
_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True)
class Origin:
    """The model that made a video.

    Attributes:
        model: its name.
        version: of S2V-GAN that trained it.
        run: its MLflow run, empty if there is none.
        sha256: of its weights, in hexadecimal.
        consent: who consented that the face is learned and shown, empty if nobody is named.
        reference: under which it was asked for, such as ``models:/s2vgan/3``.
    """

    model: str
    version: str
    run: str
    sha256: str
    consent: str
    reference: str = ""

    @classmethod
    def of(cls, manifest: Mapping[str, Any], reference: str = "") -> "Origin":
        """The origin in a model's manifest.json; models of before consent was kept name nobody."""
        return cls(
            manifest["name"],
            manifest["version"],
            manifest["mlflow_run"],
            manifest["files"]["model.safetensors"],
            manifest.get("consent", ""),
            reference,
        )

    @property
    def consented(self) -> str:
        """The sentence about consent."""
        return f"Consent of who is shown: {self.consent or NOBODY}."

    def metadata(self) -> dict[str, str]:
        """Tags ``title`` and ``comment`` for the container of a video."""
        run = f", MLflow run {self.run}" if self.run else ""
        return {
            "title": "AI-generated talking face",
            "comment": f"Synthetic: made from speech by S2V-GAN, model {self.model} "
            f"(weights {self.sha256[:12]}{run}). {self.consented}",
        }

    def c2pa(self, title: str) -> dict[str, Any]:
        """The C2PA manifest: created by a trained algorithm, and by which (C2PA 2.2, actions)."""
        model = {"name": self.model, "version": self.version, "sha256": self.sha256}
        told = {"mlflow_run": self.run, "reference": self.reference, "consent": self.consent}
        created = {
            "action": "c2pa.created",
            "digitalSourceType": _SOURCE_TYPE,
            "softwareAgent": {"name": "S2V-GAN", "version": self.version},
        }
        return {
            "claim_generator_info": [{"name": "S2V-GAN", "version": self.version}],
            "title": title,
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [created]}},
                {"label": "s2vgan.model", "data": model | {k: v for k, v in told.items() if v}},
            ],
        }

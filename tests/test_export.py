"""The exported graph does what the model does."""

import ast
import base64
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from s2vgan import artifact
from s2vgan.cli import main
from s2vgan.export import MelByConvolution, export_onnx
from s2vgan.models import AudioEncoder
from tests.test_streams import MODELS, SPEC, random_model, random_speech


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_mel_by_convolution_is_the_mel_spectrogram() -> None:
    speech = torch.from_numpy(random_speech(0, 16_000)).reshape(2, 8_000)
    mel = AudioEncoder("logmel", 8_000, 4).mel
    torch.testing.assert_close(MelByConvolution(mel)(speech), mel(speech), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_parity_over_groups_and_batches(kind: str, tmp_path: Path) -> None:
    model = random_model(MODELS[kind], strength=0.05)
    config = model.config.model
    export_onnx(model, tmp_path / "deep" / "model.onnx")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.onnx"]
    run = session(tmp_path / "deep" / "model.onnx")
    samples = SPEC.window(config.audio_past, config.audio_ahead)[1]
    torch.manual_seed(2)
    for batch in (1, 3):
        audio = torch.randn(batch, 3, samples) * 0.1
        z, pose = torch.randn(batch, 3, config.z_dim), torch.randn(batch, 3, 3, config.pose_dim)
        reference = torch.rand(batch, 3, 32, 32) * 2 - 1 if config.identity else None
        with torch.inference_mode():
            people = [None] * batch if reference is None else reference.split(1)
            state = torch.cat([model.face.first_state(model.face.identify(who)) for who in people])
            expected = model.face.speak(audio, z, pose, state, reference).numpy()
        held, parts = state.numpy(), []
        for group in range(3):
            given = {"audio": audio[:, group].numpy(), "state": held}
            given |= {"z": z[:, group].numpy(), "pose": pose[:, group].numpy()}
            if reference is not None:
                given["reference"] = reference.numpy()
            made = run.run(None, {item.name: given[item.name] for item in run.get_inputs()})
            frames, held = made[0], made[-1]
            parts.append(frames)
        np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=1e-3)
        assert expected.std() > 0.02


def test_the_command(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    assert main(["export", "--model", str(run_folder), "--out", str(out), "--format", "onnx"]) == 0
    assert "model.onnx: " in capsys.readouterr().out
    run = session(out)
    assert [item.name for item in run.get_inputs()] == ["audio", "z", "pose", "state"]
    assert [item.name for item in run.get_outputs()] == ["frames", "next_state"]
    assert run.get_inputs()[0].shape[1:] == [8_000]
    facts = run.get_modelmeta().custom_metadata_map
    model = artifact.load(run_folder)
    assert facts["sha256"] == model.manifest["files"]["model.safetensors"]
    assert facts["model"] == "small" and facts["samples_before"] == "4800"
    assert ast.literal_eval(facts["reference_pose"]) == model.face.codes.reference_pose.tolist()
    first = np.frombuffer(base64.b64decode(facts["first_state"]), "<f4").reshape(1, 3, 32, 32)
    np.testing.assert_array_equal(first, model.face.first_state(None).numpy())

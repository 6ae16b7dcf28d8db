"""From a window of speech to the audio code."""

import torch
import torchaudio
from torch import Tensor, nn

MEL_BANDS = 64
MEL_WINDOW = 0.025  # s, the usual window and hop of speech recognition
MEL_HOP = 0.010
LOG_FLOOR = 1e-5  # of mel power; the quantisation noise of 16-bit speech lies near it


class AudioEncoder(nn.Module):
    """A few 1-D convolutions from a window of speech to a vector.

    VGGish and SEGAN encoders want longer input than the method's 0.1 s; this one takes any length.
    The scale of the speech is fixed, never fitted to the file, so that a stream gives the same
    code as a file.

    Args:
        features: ``waveform`` or ``logmel``.
        samples: length L of a window.
        dim: length of the code.
        sample_rate: in Hz.
        dropout: share of activations dropped in training, behind each convolution.
    """

    def __init__(
        self,
        features: str,
        samples: int,
        dim: int,
        sample_rate: int = 16000,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = features
        if features == "waveform":
            channels: tuple[int, ...] = (1, 16, 32, 64, 128)
            kernel, stride = 15, 4
            steps = samples
        else:
            self.mel = torchaudio.transforms.MelSpectrogram(
                sample_rate,
                n_fft=512,
                win_length=round(MEL_WINDOW * sample_rate),
                hop_length=round(MEL_HOP * sample_rate),
                n_mels=MEL_BANDS,
            )
            self.normalise = nn.BatchNorm1d(MEL_BANDS, affine=False)
            channels, kernel, stride = (MEL_BANDS, 128, 128, 128), 5, 2
            steps = samples // round(MEL_HOP * sample_rate) + 1
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels, channels[1:], strict=False):
            layers += [
                nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
                nn.BatchNorm1d(outputs),
                nn.LeakyReLU(0.2),
                nn.Dropout(dropout),
            ]
            steps = (steps - 1) // stride + 1
        self.layers = nn.Sequential(*layers)
        self.code = nn.Linear(channels[-1] * steps, dim)

    def forward(self, audio: Tensor) -> Tensor:
        """Encode windows of speech.

        Args:
            audio: (B, L) float in [-1, 1].

        Returns:
            (B, dim).
        """
        if self.features == "waveform":
            x = audio.unsqueeze(1)
        else:
            with torch.autocast(audio.device.type, enabled=False):  # bf16 has 8 bits: too coarse
                x = self.normalise(torch.log(self.mel(audio.float()) + LOG_FLOOR))
        return self.code(self.layers(x).flatten(1))

"""``s2vgan speak`` and ``s2vgan detect``: a film of a face that speaks, and who made a film."""

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from s2vgan.cli.models import MODEL_HELP, REGISTERED


def speak_parser() -> ArgumentParser:
    """Of ``s2vgan speak``."""
    parser = ArgumentParser(description="Make a video of the face that says a piece of speech.")
    parser.add_argument("--model", type=str, required=True, help=MODEL_HELP)
    parser.add_argument(
        "--audio", type=Path, required=True, help="speech: WAV, FLAC, OGG, MP3, or a video's sound"
    )
    parser.add_argument("--out", type=Path, required=True, help="MP4 file to write")
    parser.add_argument(
        "--pose",
        type=str | None,
        metavar="VIDEO",
        help="video of the person whose head moves as the made one shall (dubbing); without it the "
        "head is held still",
    )
    parser.add_argument(
        "--reference",
        type=str | None,
        metavar="WHO",
        help="who speaks, for a model with model.identity: a picture of a face, or the id of a "
        "video it was trained on; by default the first of these",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise, 0 to 2^63 - 1")
    parser.add_argument("--scale", type=int, default=4, help="whole-number enlargement")
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--no-label", action="store_true", help="leave the visible label out; the watermark stays"
    )
    parser.add_argument(
        "--no-credentials", action="store_true", help="do not sign with C2PA content credentials"
    )
    return parser


def speak(arguments: Namespace) -> None:
    """Run ``s2vgan speak``."""
    from tqdm import tqdm

    from s2vgan.driving import read_pose
    from s2vgan.media import read_audio, write_video
    from s2vgan.portrait import read_portrait
    from s2vgan.provenance import Marker, Origin, sign_file
    from s2vgan.synthesis import Synthesizer, enlarge
    from s2vgan.tracking import fetch_model

    registered = REGISTERED.match(arguments.model)
    with fetch_model(arguments.model) as folder:
        synthesizer = Synthesizer.load(folder, arguments.device)
    spec = synthesizer.spec
    origin = Origin.of(synthesizer.manifest, arguments.model if registered else "")
    marker = Marker(label=not arguments.no_label, fps=spec.fps)
    speech = read_audio(arguments.audio, spec.sample_rate)
    reference = None
    if arguments.reference is not None:
        reference = synthesizer.person(arguments.reference)
        if reference is None:
            reference = read_portrait(arguments.reference, spec)
    pose = None
    if arguments.pose is not None:
        pose = read_pose(synthesizer, arguments.pose, len(speech) / spec.sample_rate, reference)
        if len(pose) * spec.sample_rate < len(speech) * spec.fps:
            print(
                f"{arguments.pose}: ends after {len(pose) / spec.fps:.1f} s; its last pose is held."
            )
    blocks = synthesizer.blocks(speech, arguments.seed, pose, reference)
    frames = (frame for block in blocks for frame in block)
    large = enlarge(tqdm(frames, desc="speaking", unit="frame", mininterval=1), arguments.scale)
    tags = origin.metadata()
    unsigned = arguments.out.with_name(f".{arguments.out.name}.unsigned.mp4")
    try:
        write_video(unsigned, marker.mark(large), spec.fps, speech, spec.sample_rate, metadata=tags)
        if not arguments.no_credentials:
            sign_file(unsigned, origin, arguments.out.name)
        unsigned.replace(arguments.out)
    finally:
        unsigned.unlink(missing_ok=True)
    print(f"{arguments.out}: {len(speech) / spec.sample_rate:.1f} s of speech. {origin.consented}")


def detect_parser() -> ArgumentParser:
    """Of ``s2vgan detect``."""
    parser = ArgumentParser(
        description="Say whether a video was made by S2V-GAN: the watermark of the key "
        "S2VGAN_WATERMARK_KEY (or the public one), the container's tags, and C2PA content "
        "credentials. Exits with 0 if the watermark is found, 1 if not, 2 if it cannot be told."
    )
    parser.add_argument("file", type=Path, help="video of 1 s or more")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def detect(arguments: Namespace) -> int:
    """Run ``s2vgan detect``."""
    from s2vgan.provenance import Provenance, watermark_key

    told = Provenance.read(arguments.file, watermark_key())
    print(json.dumps(told.to_dict()) if arguments.json else told.describe())
    return 0 if told.watermark.found else 1

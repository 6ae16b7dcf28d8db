"""``s2vgan demo`` and ``s2vgan data``: a rendered talking head, and what is in a dataset."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def demo_parser() -> ArgumentParser:
    """Of ``s2vgan demo``."""
    parser = ArgumentParser(
        description="Render a talking head whose every mouth is known. Writes talk.mp4, its true "
        "mouth openings, and speech.wav with sentences that the video does not hold."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the video")
    parser.add_argument("--speaker", type=int, default=0, help="0 to 3: voice, pitch, speed, tint")
    parser.add_argument("--person", type=int, default=0, help="0 to 3: whose face it is")
    parser.add_argument("--seed", type=int, default=0, help="of sentences, sway and blinks")
    return parser


def demo(arguments: Namespace) -> None:
    """Run ``s2vgan demo``."""
    from s2vgan.demo import UNHEARD, render, synthesize_speech
    from s2vgan.media import write_wav

    rendered = render(
        arguments.out / "talk.mp4",
        arguments.speaker,
        arguments.seconds,
        arguments.seed,
        person=arguments.person,
    )
    speech, _ = synthesize_speech(UNHEARD, arguments.speaker)
    write_wav(arguments.out / "speech.wav", speech)
    print(f"{rendered.video}\n{rendered.openings}\n{arguments.out / 'speech.wav'}")


def data_parser() -> ArgumentParser:
    """Of ``s2vgan data``."""
    parser = ArgumentParser(
        description="Show a dataset: its summary, and a page of its crops over time. The page "
        "opens offline; a mean face that is sharp tells that the crops are well aligned."
    )
    parser.add_argument("data", type=str, help="dataset folder or URL")
    parser.add_argument(
        "--sheet", type=str | None, help="page to write; by default DATA/contact_sheet.html"
    )
    parser.add_argument("--videos", type=int, default=40, help="that get crops on the page")
    parser.add_argument("--no-sheet", action="store_true", help="print the summary only")
    return parser


def data(arguments: Namespace) -> None:
    """Run ``s2vgan data``."""
    from s2vgan import overview

    if arguments.no_sheet:
        print(overview.describe(arguments.data))
    else:
        overview.show(arguments.data, arguments.sheet, arguments.videos)

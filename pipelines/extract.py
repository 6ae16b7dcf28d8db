"""Extract face groups from videos: Ray Data over paths, one task a video.

    python pipelines/extract.py SOURCE... --out DATA

No frame travels between operators: a task decodes, detects, crops and writes one video, or one
span of a long one, and hands back what it counted. What is done already is not done again.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipelines import download
from pipelines.download import Policy
from pipelines.parallel import ray_rows
from pipelines.progress import Progress
from pipelines.sources import resolve
from pipelines.stages import Stages
from s2vgan import extraction, known, ledger, overview, source, storage
from s2vgan.errors import S2VError, SourceError
from s2vgan.known import Options
from s2vgan.ledger import DatasetInfo, LedgerRow
from s2vgan.source import Source
from s2vgan.spec import CropMode, FaceChoice, GroupSpec


def run(
    sources: Sequence[str],
    data: str | Path,
    options: Options | None = None,
    workers: int | None = None,
    *,
    videos: str | Path = "videos",
    policy: Policy | None = None,
    downloads: int = 2,
    span_seconds: float = extraction.SPAN_SECONDS,
) -> DatasetInfo:
    """Extract all sources into a dataset, and print a summary.

    Args:
        sources: video files, folders, globs, ``s3://`` URLs, .txt lists of these and of links.
        data: folder or URL of the dataset.
        options: what a group holds.
        workers: videos at a time; None for one per core, 0 for this process without Ray.
        videos: folder for downloads; on a cluster, one that all its machines share.
        policy: of downloads.
        downloads: at a time.
        span_seconds: length of the spans of a long video; it changes nothing about the groups.

    Raises:
        SourceError: if there is no source, or none gave a group.
        DatasetError: if the dataset is of another spec.
    """
    options, policy = options or Options(), policy or Policy()
    data = str(data) if "://" in str(data) else str(Path(data).absolute())
    known.check_spec(data, options.spec)
    found = resolve(sources)
    storage.make(data)
    known.tidy(data, options)  # what a killed job left may fill the disk
    catalogue = known.Known(data, options)
    stages = Stages(data, options, str(Path(videos).absolute()), policy, span_seconds)

    done: dict[str, LedgerRow] = {}  # by id: a copy is the same video
    todo: list[Source] = []
    for video in found.videos:
        row = catalogue.find(video, None if video.is_link else video.location)
        if row is None:
            todo.append(video)
        else:
            catalogue.forget_failure(video)
            done[row.video_id] = row
    todo = _without_copies(todo)
    for named in found.expanded:
        catalogue.forget_failure(named)
    fresh: dict[str, LedgerRow] = {}
    for named in found.missing:
        what = "no video in this folder" if Path(named.location).is_dir() else "no such file"
        row = stages.failure(named, f"{what}; check the path.")
        fresh[row.video_id] = row
    with Progress(len(todo)) as bar:
        if workers == 0:
            rows = stages.all(todo, bar.groups)
        else:
            rows = ray_rows(todo, stages, workers, downloads, bar.groups)
        for row in rows:
            bar.video()
            if row.video_id not in done:
                fresh[row.video_id] = row
                catalogue.forget_replaced(row, done)
    known.tidy(data, options)  # workers of a killed job may have ended only now
    print(overview.summary([*done.values()], [*fresh.values()]))

    everything = [*done.values(), *fresh.values()]
    good = sum(row.groups for row in everything if row.status == "ok")
    if good or ledger.has_dataset(data):
        info = ledger.write_dataset(data, options.spec)
        overview.write_card(data)
    if not good:
        raise SourceError(f"no source gave a group: {_worst(everything)}")
    return info


def _without_copies(videos: Sequence[Source]) -> list[Source]:
    """Each local video once, the first: two tasks at a time would write the same files.

    Only files of the same size are read for it.
    """
    alike: dict[tuple[int, float, float | None], list[Source]] = {}
    for video in videos:
        if "://" not in video.location:
            key = (known.stat(video.location)[0], video.start, video.end)
            alike.setdefault(key, []).append(video)
    copies: set[Source] = set()
    for some in alike.values():
        seen: set[str] = set()
        for video in some if len(some) > 1 else ():
            with contextlib.suppress(SourceError):  # its own turn will say what is wrong
                digest = source.sha256(Path(video.location))
                if digest in seen:
                    copies.add(video)
                seen.add(digest)
    return [video for video in videos if video not in copies]


def _worst(rows: Sequence[LedgerRow]) -> str:
    """The commonest reasons, each with some of its sources."""
    names: dict[str, list[str]] = {}
    for row in rows:
        name = row.source if "://" in row.source else Path(row.source).name
        names.setdefault(row.reason.rstrip("."), []).append(name)
    worst = sorted(names.items(), key=lambda item: -len(item[1]))[:3]
    return "; ".join(
        f"{', '.join(some[:3])}{', ...' if some[3:] else ''}: {reason}" for reason, some in worst
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: use 1 or more")
    return number


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: use auto, or 0 or more")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 if a source gave a group, else 2."""
    parser = argparse.ArgumentParser(
        prog="extract.py",
        description="Cut the faces and the speech out of videos of people talking. Running it "
        "again does only what is missing or changed.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="video file, folder, glob, s3:// path, or a .txt list of these and of YouTube links "
        "(one a line, # starts a comment, relative paths start at the list)",
    )
    defaults, usual = GroupSpec(), "default: %(default)s"
    parser.add_argument("--out", required=True, metavar="DATA", help="folder or URL to write")
    parser.add_argument(
        "--size", type=int, default=defaults.size, help=f"of a face, in pixels ({usual})"
    )
    parser.add_argument(
        "--fps", type=int, default=defaults.fps, help=f"frames a second to sample ({usual})"
    )
    parser.add_argument(
        "--crop",
        choices=get_args(CropMode),
        default=defaults.crop,
        help=f"tracked: one steady square per segment; paper: each frame's raw Haar box ({usual})",
    )
    parser.add_argument(
        "--face",
        choices=get_args(FaceChoice),
        default="largest",
        help=f"which face to follow where there are several ({usual})",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default="auto",
        help=f"videos at a time ({usual}, one per core; 0: without Ray)",
    )
    parser.add_argument(
        "--videos",
        default="videos",
        help=f"folder for what links give, shared by all machines ({usual})",
    )
    parser.add_argument(
        "--downloads", type=_at_least_one, default=2, help=f"links at a time ({usual})"
    )
    parser.add_argument(
        "--cookies", type=Path, help="cookie file (Netscape format) for links that want a login"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the dataset and make its contact sheet"
    )
    given = parser.parse_args(argv)
    try:
        options = Options(GroupSpec(fps=given.fps, size=given.size, crop=given.crop), given.face)
        policy = download.Policy(cookies=given.cookies)
        info = run(
            given.sources,
            given.out,
            options,
            given.workers,
            videos=given.videos,
            policy=policy,
            downloads=given.downloads,
        )
        if given.show:
            overview.show(given.out)
    except S2VError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{given.out}: the extraction stopped ({error}); check --out.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is missing.", file=sys.stderr)
        return 130
    print(f"{given.out}: {sum(info.groups.values())} groups of {len(info.groups)} videos.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetch the YouTube links of a list with yt-dlp (extra ``download``).

    python pipelines/download.py videos.txt --out VIDEOS

VIDEOS/archive holds a record of each link: the file that it gave, or why it gave none. Links are
data: only https to allow-listed hosts, and no option reaches yt-dlp from the list.
"""

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from pipelines import archive, fetching
from pipelines.policy import Policy
from pipelines.sources import read_list
from s2vgan.errors import S2VError, SourceError


def fetch(
    link: str,
    out: str | Path,
    policy: Policy | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Path:
    """Download the video of one link, unless it is there; the archive tells what became of it.

    Another process that fetches the same link into the same folder is waited for.

    Args:
        link: https link to an allowed host.
        out: folder for the video.
        policy: what is allowed; None for the usual.
        progress: is told the number of bytes as they come.

    Returns:
        Path of the video.

    Raises:
        SourceError: if the link is not allowed, or cannot be downloaded.
    """
    out, policy = Path(out), policy or Policy()
    try:
        policy.check_link(link)
        done = archive.present(link, out)
        if done is not None:
            return done
        with archive.alone(link, out) as folder:
            done = archive.present(link, out)  # another process may have been faster
            if done is not None:
                return done
            found = fetching.download(link, folder, policy, progress)
            return archive.keep(link, found, out)
    except SourceError as error:
        reason = str(error).removeprefix(f"{link}: ")
        with contextlib.suppress(OSError):  # the failure itself matters more
            archive.note_failure(link, reason, out)
        raise
    except OSError as error:
        raise SourceError(f"{link}: cannot be kept in {out} ({error}).") from error


Outcome = tuple[str, Literal["ok", "kept", "failed"], Path | None, str]


def fetch_all(
    links: Sequence[str], out: str | Path, policy: Policy | None = None, jobs: int = 1
) -> list[Outcome]:
    """Download links, with a progress bar; one that fails does not stop the others.

    Args:
        links: each once.
        out: folder for the videos.
        policy: what is allowed; None for the usual.
        jobs: links at a time.

    Returns:
        For each link, as they are done: the link, what became of it (``kept`` was there), its
        file, and the reason if it failed.
    """

    def one(link: str) -> Outcome:
        known = archive.present(link, out)
        if known is not None:
            return link, "kept", known, ""
        try:
            return link, "ok", fetch(link, out, policy, arrived), ""
        except SourceError as error:
            return link, "failed", None, str(error)

    total, started = 0, time.monotonic()
    shown = started

    def arrived(count: int) -> None:
        nonlocal total, shown
        total += count
        now = time.monotonic()
        if now > shown + 0.2:
            shown = now
            rate = total / (now - started)
            bar.set_postfix_str(f"{total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s")

    outcomes = []
    with tqdm(total=len(links), unit="video") as bar, ThreadPool(jobs) as pool:
        for outcome in pool.imap_unordered(one, links):
            outcomes.append(outcome)
            bar.update()
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table at the end, and why links failed."""
    lines = [f"{'status':<8}{'videos':>8}{'MB':>10}"]
    for status in ("ok", "kept", "failed"):
        paths = [path for _, found, path, _ in outcomes if found == status]
        size = sum(path.stat().st_size for path in paths if path is not None and path.is_file())
        if paths:
            lines.append(f"{status:<8}{len(paths):>8}{size / 1e6:>10.1f}")
    lines += [f"failed: {reason}" for _, status, _, reason in outcomes if status == "failed"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None, policy: Policy | None = None) -> int:
    """Download the links of a list; 0 if a video is there in the end, else 2."""
    policy = policy or Policy()
    parser = argparse.ArgumentParser(
        prog="download.py",
        description="Download the YouTube links of a list, at most 720p. What is there is kept; "
        "running it again fetches what is missing.",
        epilog="Download only what you may use; the speaker's consent is yours to have.",
    )
    parser.add_argument("list", help=".txt file with one https link a line; # starts a comment")
    parser.add_argument("--out", required=True, type=Path, help="folder for the videos")
    parser.add_argument("--cookies", type=Path, help="cookie file (Netscape format) for yt-dlp")
    parser.add_argument(
        "--sleep",
        type=float,
        metavar="S",
        help=f"shortest wait before a download, in seconds; the longest is three times as long "
        f"(default: {policy.pause[0]:g})",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=policy.retries,
        help="after a failure of the network (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="links at a time (default: 1)")
    given = parser.parse_args(argv)
    if (given.sleep or 0) < 0 or given.retries < 0 or given.jobs < 1:
        parser.error("use 0 or more for --sleep and --retries, and 1 or more for --jobs")
    pause = policy.pause if given.sleep is None else (given.sleep, 3 * given.sleep)
    policy = dataclasses.replace(
        policy, cookies=given.cookies or policy.cookies, retries=given.retries, pause=pause
    )
    try:
        fetching.read_cookies(policy)
        entries = read_list(given.list)
        links = list(dict.fromkeys(entry.location for entry in entries if entry.is_link))
        if not links:
            raise SourceError(f"{given.list}: holds no link; write one https link a line.")
        outcomes = fetch_all(links, given.out, policy, given.jobs)
    except S2VError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is missing.", file=sys.stderr)
        return 130
    print(summary(outcomes))
    return 0 if any(path is not None for _, _, path, _ in outcomes) else 2


if __name__ == "__main__":
    sys.exit(main())

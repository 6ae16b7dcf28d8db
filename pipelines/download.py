"""Fetch the YouTube links of a list with yt-dlp (extra ``download``).

    python pipelines/download.py videos.txt --out VIDEOS

A link's file is named by the link's hash, so what is there is not fetched again. Links are
data: only https to allow-listed hosts, and no option reaches yt-dlp from the list.
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pipelines.sources import VIDEO_SUFFIXES, read_list
from s2vgan.errors import S2VError, SourceError
from s2vgan.media import MAX_SECONDS

HOSTS: Final = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")
MAX_HEIGHT: Final = 720  # more pixels give no better 64x64 faces
MAX_BYTES: Final = 4 << 30


def check_link(link: str, hosts: Collection[str] = HOSTS) -> None:
    """Make sure that a link may be fetched.

    Raises:
        SourceError: unless it is https to one of the hosts, with no user name and usual port.
    """
    try:
        parts = urlsplit(link)
        plain = parts.username is None and parts.port in (None, 443)
    except ValueError as error:
        raise SourceError(f"{link}: not a link ({error}).") from error
    if parts.scheme != "https" or not plain or parts.hostname not in hosts:
        raise SourceError(
            f"{link}: only https links to {', '.join(sorted(hosts))} are downloaded; "
            "fetch the file yourself and give its path."
        )


def stem(link: str) -> str:
    """Name of a link's file, without its suffix."""
    return "link-" + hashlib.sha256(link.encode()).hexdigest()[:16]


def present(link: str, out: Path) -> Path | None:
    """The file of a link that was fetched before."""
    candidates = (out / (stem(link) + suffix) for suffix in VIDEO_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def options(link: str, out: Path, cookies: Path | None = None) -> dict[str, Any]:
    """What yt-dlp is told for one link; nothing but the file's name depends on the link."""
    best = f"b[height<={MAX_HEIGHT}]"
    if shutil.which("ffmpeg"):  # yt-dlp needs it to join separate picture and sound
        best = f"bv*[height<={MAX_HEIGHT}]+ba/{best}"
    return {
        "format": best,
        "outtmpl": {"default": str(out / f"{stem(link)}.%(ext)s")},
        "allowed_extractors": ["youtube"],
        "noplaylist": True,
        "match_filter": _short_enough,
        "max_filesize": MAX_BYTES,
        "retries": 5,
        "fragment_retries": 5,
        "sleep_interval": 2,
        "max_sleep_interval": 6,
        "socket_timeout": 30,
        "cachedir": False,
        "cookiefile": None if cookies is None else str(cookies),
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
    }


def _short_enough(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
    """yt-dlp's filter: None to go on, else why not."""
    if info.get("is_live"):
        return "a live stream has no end"
    if (info.get("duration") or 0) > MAX_SECONDS:
        return f"longer than {MAX_SECONDS} s"
    return None


def fetch(
    link: str, out: str | Path, *, cookies: Path | None = None, hosts: Collection[str] = HOSTS
) -> Path:
    """Download the video of one link, unless it is there.

    Args:
        link: https link to an allowed host.
        out: folder for the video.
        cookies: file in Netscape's format, for videos that want a login.
        hosts: that links may point to.

    Returns:
        Path of the video.

    Raises:
        SourceError: if the link is not allowed, or cannot be downloaded.
    """
    check_link(link, hosts)
    out = Path(out)
    done = present(link, out)
    if done is not None:
        return done
    try:
        import yt_dlp
    except ImportError as error:
        raise SourceError(
            f"{link}: downloading needs yt-dlp; install it with `pip install -e '.[download]'`."
        ) from error
    try:
        out.mkdir(parents=True, exist_ok=True)
        with yt_dlp.YoutubeDL(options(link, out, cookies)) as client:
            client.extract_info(link, download=True)
    except (yt_dlp.utils.YoutubeDLError, OSError) as error:
        raise SourceError(f"{link}: cannot be downloaded ({error}).") from error
    done = present(link, out)
    if done is None:
        raise SourceError(
            f"{link}: gave no video (a live stream, longer than {MAX_SECONDS} s, or larger than "
            f"{MAX_BYTES >> 30} GB)."
        )
    return done


def fetch_all(
    links: Iterable[str], out: str | Path, *, cookies: Path | None = None
) -> dict[str, Path | SourceError]:
    """Download links one after another; a link that fails does not stop the others."""
    results: dict[str, Path | SourceError] = {}
    for link in links:
        try:
            results[link] = fetch(link, out, cookies=cookies)
        except SourceError as error:
            results[link] = error
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Download the links of a list; 0 if a video is there in the end, else 2."""
    parser = argparse.ArgumentParser(
        prog="download.py",
        description="Download the YouTube links of a list, at most 720p. What is there is kept.",
        epilog="Download only what you may use; the speaker's consent is yours to have.",
    )
    parser.add_argument("list", help=".txt file with one https link a line; # starts a comment")
    parser.add_argument("--out", required=True, type=Path, help="folder for the videos")
    parser.add_argument("--cookies", type=Path, help="cookie file (Netscape format) for yt-dlp")
    given = parser.parse_args(argv)
    try:
        links = [line for line in read_list(given.list) if "://" in line]
        if not links:
            raise SourceError(f"{given.list}: holds no link; write one https link a line.")
    except S2VError as error:
        print(error, file=sys.stderr)
        return 2
    results = fetch_all(dict.fromkeys(links), given.out, cookies=given.cookies)
    for link, result in results.items():
        if isinstance(result, SourceError):
            print(result, file=sys.stderr)
        else:
            print(f"{result}\t{link}")
    return 0 if any(isinstance(result, Path) for result in results.values()) else 2


if __name__ == "__main__":
    sys.exit(main())

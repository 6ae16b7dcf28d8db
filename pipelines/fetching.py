"""One download with yt-dlp: what it is told, and what its errors mean."""

import io
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.policy import Policy
from pipelines.sources import VIDEO_SUFFIXES
from s2vgan.errors import SourceError

# What yt-dlp says about a video, and what it means for a user.
_MEANINGS: Final = (
    (r"not a bot|too many requests|rate.?limit", "is refused for now: the site takes us for a "
     "robot; try later, with a longer --sleep, or give --cookies"),
    (r"private", "is private; give the --cookies of an account that may see it"),
    (r"sign in|log ?in|members|confirm your age|age.restricted|purchase", "needs a login; "
     "give the --cookies of an account that may see it"),
    (r"live event|is live|live stream|premiere|will begin", "is live or yet to come; try again "
     "when it is over"),
    (r"DRM", "is protected against copying"),
    (r"No suitable extractor|Unsupported URL", "is not the page of one video; give links to "
     "single videos"),
    (r"HTTP Error 403", "is forbidden (HTTP 403); give --cookies, or update yt-dlp "
     "(`pip install -U 'yt-dlp[default,deno]'`)"),
    (r"format is not available|No video formats", "has no picture and sound that can be taken; "
     "install ffmpeg, and update yt-dlp (`pip install -U 'yt-dlp[default,deno]'`)"),
    (r"unavailable|not available|no longer available|been removed|deleted|terminated|"
     r"not exist|HTTP Error 4(04|10)", "is not available; check the link in a browser"),
)  # fmt: skip


def download(link: str, folder: Path, policy: Policy, progress: Callable[[int], object]) -> Path:
    """Download into an empty folder; again where the network fails.

    Raises:
        SourceError: if that gives no video.
    """
    try:
        from pipelines import guard
    except ImportError as error:
        raise SourceError(
            f"{link}: downloading needs yt-dlp; install it with `pip install -e '.[download]'`."
        ) from error
    for attempt in range(policy.retries + 1):
        meter = guard.Meter(policy, progress)
        try:
            with guard.Client(options(folder.absolute(), policy), meter) as client:
                info = client.extract_info(link)
            return _only_video(link, info, folder, policy)
        except SourceError:
            raise
        except Unfit as error:
            raise SourceError(f"{link}: {error}.") from error
        except Exception as error:  # yt-dlp raises whatever a changed page leads to
            said = str(error)
            reason = meter.refusal or meaning(said)
            if meter.refusal or not meter.trouble or (reason and meter.trouble not in said):
                said = _clean(said) or type(error).__name__
                reason = reason or f"cannot be downloaded ({said})"
                raise SourceError(f"{link}: {reason}.") from error
        if attempt < policy.retries:
            time.sleep(min(60.0, policy.backoff * 2**attempt) * random.uniform(0.5, 1))
    raise SourceError(
        f"{link}: the network failed {policy.retries + 1} times ({meter.trouble}); try again later."
    )


def options(folder: Path, policy: Policy) -> dict[str, Any]:
    """What yt-dlp is told; nothing depends on the link."""
    longest = policy.max_height * 16 // 9
    fits = f"[height<=?{longest}][width<=?{longest}][protocol=https]"  # a playlist is not read
    best = f"b{fits}"
    if shutil.which("ffmpeg"):  # yt-dlp needs it to join separate picture and sound
        best = f"bv*{fits}+ba[protocol=https]/{best}"
    return {
        "format": best,
        # The shorter side counts; then what is decoded with the least work
        "format_sort": [f"res:{policy.max_height}", "fps:30", "vcodec:h264"],
        # Another format is another file, so that none is continued with the bytes of another
        "outtmpl": {"default": "%(format_id)s.%(ext)s"},
        "paths": {"home": str(folder)},
        "allowed_extractors": list(policy.extractors),
        "noplaylist": True,
        "playlist_items": "0",
        "match_filter": _Filter(policy),
        "retries": 0,  # we try again ourselves: one count, whatever failed
        "extractor_retries": 0,
        "sleep_interval": policy.pause[0],
        "max_sleep_interval": policy.pause[1],
        "socket_timeout": policy.timeout,
        "cachedir": False,
        "cookiefile": read_cookies(policy),
        "fixup": "never",
        "updatetime": False,
        "postprocessor_args": {"merger+ffmpeg_i": ["-protocol_whitelist", "file"]},
        "logger": _Silence(),
        "noprogress": True,
    }


class Unfit(Exception):
    """A video that is not wanted; its text says why."""


@dataclass(frozen=True)
class _Filter:
    """yt-dlp's match filter: raises for what is not wanted, and returns None to go on."""

    policy: Policy

    def __call__(self, info: dict[str, Any], *, incomplete: bool = False) -> None:
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
            raise Unfit("is live or yet to come; try again when it is over")
        seconds = info.get("duration") or 0
        if seconds > self.policy.max_seconds:
            raise Unfit(f"is {seconds:g} s long; the limit is {self.policy.max_seconds:g} s")


class _Silence:
    """yt-dlp's logger; what it has to say comes with its errors."""

    def debug(self, message: str) -> None:
        pass

    info = warning = error = debug


def read_cookies(policy: Policy) -> io.StringIO | None:
    """The cookie file's content: given the file itself, yt-dlp would write to it.

    Raises:
        SourceError: if it cannot be read.
    """
    if policy.cookies is None:
        return None
    try:
        return io.StringIO(policy.cookies.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{policy.cookies}: not a cookie file that can be read ({error})."
        ) from error


def meaning(message: str) -> str:
    """What a message of yt-dlp means for a user; empty if that is not known."""
    return next((text for known, text in _MEANINGS if re.search(known, message, re.I)), "")


def _clean(message: str) -> str:
    """The first line of a message of yt-dlp, without its decoration."""
    message = re.sub(r"^(\x1b\[[\d;]*m|ERROR:|\[[\w:]+\]|\s)+", "", message)
    return message.partition("\n")[0].partition("; please report this")[0].rstrip(". ")[:300]


def _only_video(link: str, info: Any, folder: Path, policy: Policy) -> Path:
    """The one file that a download left.

    Raises:
        SourceError: if there is none, or it is no video or too large.
    """
    if (info or {}).get("_type") == "playlist":
        raise SourceError(f"{link}: is a list of videos; give links to single videos.")
    names = [Path(item["filepath"]).name for item in (info or {}).get("requested_downloads", [])]
    if len(names) != 1 or not (folder / names[0]).is_file():
        raise SourceError(f"{link}: gave no video; check the link in a browser.")
    path = folder / names[0]
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise SourceError(f"{link}: gave a {path.suffix} file, which is no video.")
    if path.stat().st_size > policy.max_bytes:
        raise SourceError(f"{link}: is larger than the limit of {policy.max_bytes:,} bytes.")
    return path

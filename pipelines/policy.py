"""What may be fetched from the web, and how patiently."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from s2vgan.errors import SourceError
from s2vgan.media import MAX_SECONDS


@dataclass(frozen=True)
class Policy:
    """Everything that governs fetching.

    Attributes:
        hosts: that links may name.
        servers: that may be read from, with their subdomains: those of the hosts' pages and of
            their videos. Holds for every request and every redirect.
        ports: of hosts and servers.
        extractors: yt-dlp's names of what it may make of a link.
        private: whether servers may have addresses that are not public.
        certificate: file with a certificate to trust as well; None for the usual ones only.
        max_height: shorter side of the picture in pixels; more give no better 64x64 faces.
        max_bytes: of a video.
        max_seconds: of a video, where the site says how long it is.
        max_wait: for one attempt, s.
        timeout: for an answer, s.
        retries: after a failure of the network.
        backoff: before the first retry, s; doubles each time, up to a minute.
        pause: shortest and longest wait before a download, s.
        cookies: file in Netscape's format, for videos that want a login; it is not changed.
    """

    hosts: tuple[str, ...] = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")
    servers: tuple[str, ...] = ("youtube.com", "youtu.be", "googlevideo.com")
    ports: tuple[int, ...] = (443,)
    extractors: tuple[str, ...] = ("youtube",)
    private: bool = False
    certificate: Path | None = None
    max_height: int = 720
    max_bytes: int = 4 << 30
    max_seconds: float = MAX_SECONDS
    max_wait: float = 2 * 3600.0
    timeout: float = 30.0
    retries: int = 4
    backoff: float = 2.0
    pause: tuple[float, float] = (2.0, 6.0)
    cookies: Path | None = None

    def check_link(self, link: str) -> None:
        """Make sure that a link may be fetched.

        Raises:
            SourceError: unless it is https to one of the hosts, with no user name and usual port.
        """
        if not self._plain(link) or urlsplit(link).hostname not in self.hosts:
            raise SourceError(
                f"{link}: only https links to {', '.join(sorted(self.hosts))} are downloaded; "
                "fetch the file yourself and give its path."
            )

    def check_url(self, url: str) -> None:
        """Make sure that yt-dlp may read a URL.

        Raises:
            SourceError: unless it is https to one of the servers.
        """
        host = urlsplit(url).hostname if self._plain(url) else None
        if not any(host == name or (host or "").endswith(f".{name}") for name in self.servers):
            raise SourceError(f"leads to {url[:200]}, which is not allowed")

    def _plain(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            usual = parts.username is None and (parts.port or 443) in self.ports
        except ValueError:
            return False
        return usual and parts.scheme == "https"

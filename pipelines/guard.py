"""yt-dlp behind a guard: it reads https from allowed servers only, within limits.

yt-dlp asks its *request handlers* for every page, API answer and piece of a video. The client of
this module has one handler, ours: each URL is checked before it is opened, and so is each
redirect, whatever an extractor makes of a page. Nothing else fetches, for only formats that
yt-dlp reads by itself are asked for (no ffmpeg or other program is given a URL).
"""

import functools
import http.client
import ipaddress
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, Any, Final

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request, RequestHandler, Response
from yt_dlp.networking.exceptions import (
    CertificateVerifyError,
    HTTPError,
    IncompleteRead,
    RequestError,
    SSLError,
    TransportError,
)

from pipelines.policy import Policy
from s2vgan.errors import SourceError

_BLOCK: Final = 1 << 16
_BUSY: Final = (408, 425, 429, *range(500, 600))  # HTTP: try again later


class Refused(RequestError):
    """Something that the policy does not allow; yt-dlp neither retries nor ignores it."""


class Meter:
    """Counts what one attempt reads, and remembers why it could not go on.

    Attributes:
        trouble: what the network did wrong last; empty if nothing.
        refusal: what was refused; empty if nothing.
    """

    def __init__(self, policy: Policy, progress: Callable[[int], object]) -> None:
        self.policy, self.trouble, self.refusal = policy, "", ""
        self._left, self._progress = policy.max_bytes, progress
        self._deadline = time.monotonic() + policy.max_wait

    def expect(self, count: int) -> None:
        """Refuse a body of ``count`` bytes if it is too large."""
        if count > self._left:
            raise self.refused(f"is larger than the limit of {self.policy.max_bytes:,} bytes")

    def add(self, count: int) -> None:
        """Note that ``count`` bytes were read."""
        self.expect(count)
        self._left -= count
        self._progress(count)
        if time.monotonic() > self._deadline:
            raise self.refused(f"is not done after {self.policy.max_wait:g} s")

    def refused(self, reason: str) -> Refused:
        """The error for something that is not allowed."""
        self.refusal = reason
        return Refused(reason)

    def troubled(self, error: TransportError) -> TransportError:
        """The same error, noted."""
        self.trouble = str(error)
        return error


class Client(YoutubeDL):
    """yt-dlp with one way to the network.

    Args:
        options: of yt-dlp.
        meter: that knows the policy.
    """

    def __init__(self, options: dict[str, Any], meter: Meter) -> None:
        self._meter = meter
        super().__init__(options)

    def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
        """As yt-dlp's, with our handler in place of all others."""
        return super().build_request_director([functools.partial(GuardedRH, meter=self._meter)])


class GuardedRH(RequestHandler):
    """Reads https from the policy's servers; yt-dlp wants the name to end in RH."""

    _SUPPORTED_URL_SCHEMES = None  # checked by us, so that the sentence is ours
    _SUPPORTED_PROXY_SCHEMES = ("http",)
    _SUPPORTED_FEATURES = None

    def __init__(self, *, meter: Meter, **settings: Any) -> None:
        super().__init__(**settings)
        self._meter = meter

    def close(self) -> None:
        """Nothing is kept open between requests."""

    def _check_extensions(self, extensions: dict[str, Any]) -> None:
        super()._check_extensions(extensions)
        for known in ("cookiejar", "timeout", "legacy_ssl", "keep_header_casing"):
            extensions.pop(known, None)

    def _check(self, url: str) -> None:
        try:
            self._meter.policy.check_url(url)
        except SourceError as error:
            raise self._meter.refused(str(error)) from error

    def _opener(self, request: Request) -> urllib.request.OpenerDirector:
        context = self._make_sslcontext()
        if self._meter.policy.certificate is not None:
            context.load_verify_locations(self._meter.policy.certificate)
        proxies = self._get_proxies(request)
        proxy = proxies.get("https") or proxies.get("all")
        opener = urllib.request.OpenerDirector()  # build_opener would add file: and ftp:
        for handler in (
            urllib.request.ProxyHandler({"https": proxy} if proxy else {}),
            urllib.request.HTTPCookieProcessor(self._get_cookiejar(request)),
            _Connect(context, self._meter),
            _Redirect(self._check),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        opener.addheaders = []
        return opener

    def _send(self, request: Request) -> Response:
        self._check(request.url)
        headers = self._get_headers(request)
        headers["Accept-Encoding"] = "identity"  # nothing that swells when it is unpacked
        asked = urllib.request.Request(
            request.url, data=request.data, headers=headers, method=request.method
        )
        try:
            answer = self._opener(request).open(asked, timeout=self._calculate_timeout(request))
        except urllib.error.HTTPError as error:
            if 300 <= error.code < 400:
                target = str(error.headers.get("Location"))[:200]
                raise self._meter.refused(f"leads to {target}, which is not allowed") from error
            answered = HTTPError(_Answer(error, request, self._meter))
            if error.code in _BUSY:
                self._meter.trouble = str(answered)
            raise answered from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise self._failure(cause) from error
        return _Answer(answer, request, self._meter)

    def _failure(self, cause: object) -> TransportError:
        if isinstance(cause, ssl.SSLCertVerificationError):
            self._meter.refusal = f"has no certificate that can be trusted ({cause.verify_message})"
            return CertificateVerifyError(cause=cause)
        kind = SSLError if isinstance(cause, ssl.SSLError) else TransportError
        return self._meter.troubled(kind(cause=cause))


class _Answer(Response):
    """The body of an answer, counted and cut off at the limits."""

    def __init__(self, answer: Any, request: Request, meter: Meter) -> None:
        super().__init__(answer, answer.url, answer.headers, answer.status)
        self._meter = meter
        self._missing: int | None = None
        if request.method == "HEAD":
            return
        length = self.headers.get("Content-Length", "")
        self._missing = int(length) if length.isdecimal() else None
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise meter.refused("is sent compressed, though that was not asked for")
        if self._missing is not None:
            meter.expect(self._missing)
        elif not chunked and 200 <= self.status < 300:
            raise meter.refused(
                "is sent without its length, so that no one can tell if it is whole"
            )

    def read(self, amt: int | None = None) -> bytes:
        """At most ``amt`` bytes (all of them for None); empty at the end."""
        if amt is not None:
            return self._read(amt)
        return b"".join(iter(lambda: self._read(_BLOCK), b""))

    def _read(self, most: int) -> bytes:
        try:
            part: bytes = self.fp.read1(most)
        except (OSError, http.client.HTTPException) as error:
            raise self._meter.troubled(TransportError(cause=error)) from error
        self._meter.add(len(part))
        if self._missing is not None:
            self._missing -= len(part)
        if not part and most > 0:
            if self._missing:
                raise self._meter.troubled(IncompleteRead(0, self._missing))
            self.close()
        return part


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows a redirect if its target is allowed."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self._check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Connect(urllib.request.HTTPSHandler):
    """Opens connections that end at public addresses."""

    def __init__(self, context: ssl.SSLContext, meter: Meter) -> None:
        super().__init__(context=context)
        self._settings, self._meter = context, meter

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection = functools.partial(_Connection, meter=self._meter)
        return self.do_open(connection, req, context=self._settings)


class _Connection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, meter: Meter, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._meter, self._proxied = meter, False

    def set_tunnel(self, *target: Any, **settings: Any) -> None:
        self._proxied = True  # the proxy's own address is the user's choice
        super().set_tunnel(*target, **settings)

    def connect(self) -> None:
        """Connect, and look where that led: a name can be made to mean any address."""
        super().connect()
        address = ipaddress.ip_address(self.sock.getpeername()[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not (address.is_global or self._proxied or self._meter.policy.private):
            self.close()
            raise self._meter.refused(f"leads to {address}, which is no address of the public web")

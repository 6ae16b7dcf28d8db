"""Who may ask: a bearer token, checked in the application itself, whatever port led to it."""

import hmac
import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from s2vgan.errors import ServiceError
from serve.problems import Refusal, answer

TOKEN_VARIABLE = "S2VGAN_TOKEN"
OPEN_VARIABLE = "S2VGAN_OPEN"
ORIGINS_VARIABLE = "S2VGAN_ORIGINS"
_MIN_TOKEN = 16  # characters
# The page and the manual hold no secret; a browser cannot send a token with its first request.
# Whether a service is alive is for those who watch it.
_FREE = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
_LIVE = "/v1/stream"  # a browser's WebSocket cannot send it in a header: it is in the first message


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: that every request must bear; None for none.
        origins: of pages of other hosts that may ask, such as ``https://example.org``.
        open: whether anybody may ask without a token, whatever the service is called.
    """

    token: str | None = None
    origins: tuple[str, ...] = ()
    open: bool = False

    @classmethod
    def from_environment(cls) -> "Access":
        """As S2VGAN_TOKEN, if it is set, S2VGAN_ORIGINS and S2VGAN_OPEN say.

        Raises:
            ServiceError: if the token can be guessed, or no header can bear it.
        """
        given = os.environ.get(TOKEN_VARIABLE, "")
        token = given.strip()  # a file's last line ends in a newline
        if not (token.isascii() and token.isprintable()):
            raise ServiceError(
                f"{TOKEN_VARIABLE}: no header can bear this token; use letters and digits, for "
                "example of `openssl rand -hex 16`."
            )
        if given and len(token) < _MIN_TOKEN:
            raise ServiceError(
                f"{TOKEN_VARIABLE}: a token of {len(token)} characters can be guessed; use "
                f"{_MIN_TOKEN} or more, for example of `openssl rand -hex 16`."
            )
        origins = os.environ.get(ORIGINS_VARIABLE, "").split(",")
        return cls(
            token or None,
            tuple(one.strip() for one in origins if one.strip()),
            os.environ.get(OPEN_VARIABLE) == "yes",
        )

    def allows(self, token: str | None) -> bool:
        """Whether a token is the right one, compared in constant time."""
        if self.token is None:
            return True
        return hmac.compare_digest((token or "").encode(), self.token.encode())

    def admits(self, origin: str, host: str | None) -> bool:
        """Whether pages of an origin may ask a service that they call ``host``.

        The service's own may. Without a token it also has to go by a name of this machine: anybody
        can let a name of theirs lead here, and then their page is of the same host (DNS rebinding).
        """
        if origin in self.origins:
            return True
        try:
            page = urlsplit(origin)
        except ValueError:  # such as http://[
            return False
        name = page.hostname or ""
        safe = self.open or self.token is not None or is_local(name) or name.endswith(".localhost")
        return safe and page.netloc == host

    def require_for(self, host: str) -> None:
        """Make sure that a service which others can reach asks for a token.

        Args:
            host: address that the service binds.

        Raises:
            ServiceError: if it is not this machine's own, there is no token, and it is not open.
        """
        if is_local(host) or self.token or self.open:
            return
        raise ServiceError(
            f"host {host}: anybody in the network could use the service; set {TOKEN_VARIABLE} to a "
            f"secret of {_MIN_TOKEN} or more characters, or {OPEN_VARIABLE}=yes if you want that."
        )


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bearer(headers: Headers) -> str | None:
    """The token of an ``Authorization: Bearer`` header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class OriginCheck:
    """ASGI middleware: 403 for pages of other hosts, which a browser would let ask.

    CORS does not hold them off alone: it is not asked about WebSockets, nor about a plain POST, nor
    by a page whose host's name leads here.

    Args:
        app: what is behind it.
        access: who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] != "lifespan" else Headers()
        origin = headers.get("origin")
        if origin is None or self._access.admits(origin, headers.get("host")):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        advice = f"pages of {origin} may not ask; name it in {ORIGINS_VARIABLE} to let them."
        await answer(Refusal(403, advice))(scope, receive, send)


class TokenCheck:
    """ASGI middleware: 401 for whoever does not bear the token.

    Args:
        app: what is behind it.
        access: who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        live = scope["type"] == "websocket" and path == _LIVE
        free = scope["type"] == "lifespan" or live or path in _FREE
        if free or self._access.allows(bearer(Headers(scope=scope))):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        refusal = Refusal(401, "this service asks for its token: Authorization: Bearer TOKEN.")
        await answer(refusal)(scope, receive, send)

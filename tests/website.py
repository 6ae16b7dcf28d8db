"""A server for tests of downloads: HTTPS on this machine, whose paths answer as they are told."""

import contextlib
import http.server
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from pipelines import archive
from pipelines.policy import Policy

Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


class Site:
    """A server whose paths answer as they are told, and which notes what it is asked.

    Attributes:
        answers: by path.
        asked: path and Range header of each request.
    """

    def __init__(self, certificate: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []
        site = self

        class Local(Handler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers.get("Range", "")))
                self.close_connection = True
                answer = site.answers.get(self.path, status(404))
                with contextlib.suppress(OSError):  # the client has left
                    answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Local)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.certificate = certificate
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def link(self, name: str, answer: Answer, *, host: str = "localhost") -> str:
        """A link to a path that answers like this."""
        self.answers[f"/{name}"] = answer
        return f"https://{host}:{self.port}/{name}"

    @property
    def policy(self) -> Policy:
        """Lets this server in, and does not wait long."""
        return Policy(
            hosts=("localhost",), servers=("localhost",), ports=(self.port,),
            extractors=("generic",), private=True, certificate=self.certificate,
            timeout=5, retries=2, backoff=0.01, pause=(0, 0),
        )  # fmt: skip


def status(code: int) -> Answer:
    def answer(to: Handler) -> None:
        to.send_response(code)
        to.send_header("Content-Length", "0")
        to.end_headers()

    return answer


def begin(to: Handler, length: int | None, kind: str = "video/mp4", **headers: str) -> None:
    to.send_response(200)
    to.send_header("Content-Type", kind)
    if length is not None:
        to.send_header("Content-Length", str(length))
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()


def whole(body: bytes, kind: str = "video/mp4", *, stop: int | None = None) -> Answer:
    """A file, or what is asked for of it; the connection breaks at byte ``stop``."""

    def answer(to: Handler) -> None:
        first = 0
        if asked := to.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            to.send_response(206)
            to.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            to.send_header("Content-Length", str(len(body) - first))
            to.send_header("Content-Type", kind)
            to.end_headers()
        else:
            begin(to, len(body), kind)
        to.wfile.write(body[first:stop])

    return answer


def page(html: str) -> Answer:
    return whole(f"<html><head><title>x</title>{html}</head></html>".encode(), "text/html")


def in_turn(*answers: Answer) -> Answer:
    """One after the other; the last for ever."""
    left = list(answers)

    def answer(to: Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(to)

    return answer


def redirect(target: str) -> Answer:
    def answer(to: Handler) -> None:
        to.send_response(302)
        to.send_header("Location", target)
        to.send_header("Content-Length", "0")
        to.end_headers()

    return answer


def files(out: Path) -> list[str]:
    """Everything in a folder but the archive."""
    return sorted(
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != archive.ARCHIVE
    )

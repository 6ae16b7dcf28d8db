"""Downloads with the real yt-dlp from a local HTTPS server that serves real clips, and behaves."""

import contextlib
import dataclasses
import datetime
import http.server
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines import archive, download
from pipelines.policy import Policy
from s2vgan import media
from s2vgan.errors import SourceError
from tests.conftest import MakeVideo

pytest.importorskip("yt_dlp")

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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of localhost, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def site(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    site = Site(certificate)
    yield site
    site.close()


@pytest.fixture
def body(make_video: MakeVideo) -> bytes:
    """A small video with sound."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    frames = [(n / 30, np.roll(noise, n, 1)) for n in range(30)]
    path = make_video("x.mkv", frames, np.zeros(16000, np.float32))
    content = path.read_bytes()
    path.unlink()
    return content


def files(out: Path) -> list[str]:
    """Everything in a folder but the archive."""
    return sorted(
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != archive.ARCHIVE
    )


def test_a_video_is_fetched_once(site: Site, body: bytes, tmp_path: Path) -> None:
    link = site.link("a.mkv", whole(body))
    counted: list[int] = []
    path = download.fetch(link, tmp_path, site.policy, counted.append)
    assert path.read_bytes() == body and sum(counted) == len(body)
    assert media.probe(path).width == 64
    asked = len(site.asked)
    assert asked == 2  # what is it, and what is in it
    (tmp_path / ".partial").rmdir()
    assert download.fetch(link, tmp_path, site.policy) == path
    assert len(site.asked) == asked and not (tmp_path / ".partial").exists()
    with path.open("r+b") as file:
        file.truncate(100)
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    path.unlink()
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    assert len(site.asked) == 3 * asked
    assert files(tmp_path) == [path.name]


@pytest.mark.real_clips
@pytest.mark.parametrize("name", ["fps60.mp4", "opus.mkv", "vp8_opus.webm", "mpeg4_mp3.avi"])
def test_real_clips(site: Site, clips: Path, tmp_path: Path, name: str) -> None:
    body = (clips / "edge" / name).read_bytes()
    path = download.fetch(site.link(name, whole(body)), tmp_path, site.policy)
    assert path.read_bytes() == body and path.suffix == Path(name).suffix


def test_the_usual_policy_refuses_the_same_link(site: Site, body: bytes, tmp_path: Path) -> None:
    link = site.link("a.mkv", whole(body))
    with pytest.raises(SourceError, match="only https links to m.youtube.com"):
        download.fetch(link, tmp_path)
    hosts = dataclasses.replace(Policy(), hosts=("localhost",), ports=(site.port,))
    with pytest.raises(SourceError, match="single videos"):  # no extractor for it
        download.fetch(link, tmp_path, hosts)
    servers = dataclasses.replace(site.policy, servers=Policy().servers)
    with pytest.raises(SourceError, match="leads to https://localhost.*not allowed"):
        download.fetch(link, tmp_path, servers)
    assert not site.asked and not files(tmp_path)


def test_failures_of_the_network_are_tried_again(site: Site, body: bytes, tmp_path: Path) -> None:
    busy = in_turn(status(500), status(503), whole(body))
    path = download.fetch(site.link("a.mkv", busy), tmp_path, site.policy)
    assert path.read_bytes() == body and len(site.asked) == 4
    site.asked.clear()
    with pytest.raises(SourceError, match=r"network failed 3 times .*502.*try again later"):
        download.fetch(site.link("b.mkv", status(502)), tmp_path, site.policy)
    assert len(site.asked) == 3


def test_a_missing_video_is_not_asked_for_again_before_the_next_run(
    site: Site, body: bytes, tmp_path: Path
) -> None:
    link = site.link("a.mkv", in_turn(status(404), whole(body)))
    with pytest.raises(SourceError, match="not available"):
        download.fetch(link, tmp_path, site.policy)
    assert len(site.asked) == 1
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body


def test_what_breaks_off_is_continued(site: Site, body: bytes, tmp_path: Path) -> None:
    half = len(body) // 2
    link = site.link("a.mkv", in_turn(whole(body), whole(body, stop=half), whole(body)))
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    assert site.asked[-1] == ("/a.mkv", f"bytes={half}-")
    assert len(files(tmp_path)) == 1


def test_half_a_video_is_never_taken_for_one(site: Site, body: bytes, tmp_path: Path) -> None:
    def chunk(to: Handler) -> None:
        begin(to, None, Transfer_Encoding="chunked")
        to.wfile.write(b"%x\r\n%s\r\n" % (len(body) // 2, body[: len(body) // 2]))

    def no_length(to: Handler) -> None:
        begin(to, None)
        to.wfile.write(body[: len(body) // 2])

    for number, answer in enumerate((whole(body, stop=len(body) // 2), chunk)):
        link = site.link(f"{number}.mkv", in_turn(whole(body), answer))
        with pytest.raises(SourceError, match="network failed 3 times"):
            download.fetch(link, tmp_path, site.policy)
    with pytest.raises(SourceError, match="without its length"):
        download.fetch(site.link("c.mkv", no_length), tmp_path, site.policy)
    assert not files(tmp_path)


def test_too_large(site: Site, body: bytes, tmp_path: Path) -> None:
    sent: list[int] = []

    def claims(to: Handler) -> None:
        begin(to, 10**12)
        to.wfile.write(body)

    def lies(to: Handler) -> None:
        begin(to, None, Transfer_Encoding="chunked")
        while True:
            to.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            sent.append(0x1000)

    policy = dataclasses.replace(site.policy, max_bytes=1 << 20)
    for name, answer in (("a.mkv", claims), ("b.mkv", lies)):
        with pytest.raises(SourceError, match="larger than the limit of 1,048,576 bytes"):
            download.fetch(site.link(name, answer), tmp_path, policy)
    assert sum(sent) < 64 << 20 and not files(tmp_path)


def test_too_slow(site: Site, body: bytes, tmp_path: Path) -> None:
    done = threading.Event()

    def stalls(to: Handler) -> None:
        begin(to, len(body))
        to.wfile.write(body[:1000])
        done.wait(60)

    def trickles(to: Handler) -> None:
        begin(to, len(body))
        for byte in body:
            to.wfile.write(bytes([byte]))
            if done.wait(0.05):
                return

    quick = dataclasses.replace(site.policy, timeout=0.3, retries=1)
    with pytest.raises(SourceError, match=r"network failed 2 times \(.*timed out"):
        download.fetch(site.link("a.mkv", in_turn(whole(body), stalls)), tmp_path, quick)
    quick = dataclasses.replace(site.policy, max_wait=0.5)
    with pytest.raises(SourceError, match="not done after 0.5 s"):
        download.fetch(site.link("b.mkv", in_turn(whole(body), trickles)), tmp_path, quick)
    done.set()
    assert not files(tmp_path)


@pytest.mark.parametrize("after", [0, 1], ids=["at once", "in the download"])
def test_redirects_lead_to_allowed_servers_only(
    site: Site, body: bytes, tmp_path: Path, after: int
) -> None:
    site.link("target.mkv", whole(body))
    first = [whole(body)] * after
    local = f"localhost:{site.port}/target.mkv"
    for number, target in enumerate(
        (
            f"http://{local}",
            f"https://127.0.0.1:{site.port}/target.mkv",
            "https://localhost/target.mkv",  # another port
            f"https://user@{local}",
            "file:///etc/passwd",
            "ftp://localhost/target.mkv",
            "//127.0.0.1/target.mkv",
        )
    ):
        link = site.link(f"{after}-{number}.mkv", in_turn(*first, redirect(target)))
        with pytest.raises(SourceError, match="leads to .*not allowed"):
            download.fetch(link, tmp_path, site.policy)
    assert "/target.mkv" not in {path for path, _ in site.asked}
    assert not files(tmp_path)
    link = site.link(f"{after}.mkv", in_turn(*first, redirect(f"https://{local}")))
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body


def test_redirects_without_end(site: Site, tmp_path: Path) -> None:
    link = site.link("a.mkv", redirect("/a.mkv"))
    with pytest.raises(SourceError, match="leads to /a.mkv"):
        download.fetch(link, tmp_path, site.policy)
    assert len(site.asked) < 20


def test_certificates(site: Site, body: bytes, tmp_path: Path) -> None:
    link = site.link("a.mkv", whole(body))
    unknown = dataclasses.replace(site.policy, certificate=None)
    with pytest.raises(SourceError, match="no certificate that can be trusted"):
        download.fetch(link, tmp_path, unknown)
    link = site.link("a.mkv", whole(body), host="127.0.0.1")  # which it does not name
    other = dataclasses.replace(site.policy, hosts=("127.0.0.1",), servers=("127.0.0.1",))
    with pytest.raises(SourceError, match="no certificate that can be trusted"):
        download.fetch(link, tmp_path, other)
    assert not site.asked and not files(tmp_path)


def test_an_allowed_name_must_not_mean_a_private_address(
    site: Site, body: bytes, tmp_path: Path
) -> None:
    policy = dataclasses.replace(site.policy, private=False)
    with pytest.raises(SourceError, match=r"leads to 127\.0\.0\.1"):
        download.fetch(site.link("a.mkv", whole(body)), tmp_path, policy)
    assert not site.asked


def test_what_swells_when_unpacked_is_refused(site: Site, tmp_path: Path) -> None:
    def bomb(to: Handler) -> None:
        begin(to, 3, Content_Encoding="gzip")
        to.wfile.write(b"\x1f\x8b\x08")

    with pytest.raises(SourceError, match="compressed"):
        download.fetch(site.link("a.mkv", bomb), tmp_path, site.policy)


def described(**video: str) -> str:
    parts = ", ".join(f'"{key}": "{value}"' for key, value in video.items())
    return (
        '<script type="application/ld+json">{"@context": "https://schema.org", "@type": '
        f'"VideoObject", "name": "x", {parts}}}</script>'
    )


def test_pages(site: Site, body: bytes, tmp_path: Path) -> None:
    video = site.link("a.mkv", whole(body))
    link = site.link("good", page(described(contentUrl=video, duration="PT4M")))
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    found = files(tmp_path)
    site.asked.clear()
    link = site.link("long", page(described(contentUrl=video, duration="PT5H")))
    with pytest.raises(SourceError, match="18000 s long; the limit is 14400 s"):
        download.fetch(link, tmp_path, site.policy)
    items = f"<item><title>x</title><link>{video}</link></item>" * 2
    feed = f'<?xml version="1.0"?><rss version="2.0"><channel>{items}</channel></rss>'.encode()
    with pytest.raises(SourceError, match="list of videos"):
        download.fetch(site.link("two", whole(feed, "text/xml")), tmp_path, site.policy)
    with pytest.raises(SourceError, match="single videos"):
        download.fetch(site.link("text", page("nothing")), tmp_path, site.policy)
    assert [path for path, _ in site.asked].count("/a.mkv") == 1  # looked at, not fetched
    assert files(tmp_path) == found


def test_pages_and_playlists_that_point_elsewhere(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    out = tmp_path / "out"
    for number, target in enumerate(
        (f"file://{secret}", f"http://localhost:{site.port}/x.mp4", "https://127.0.0.1/x.mp4")
    ):
        link = site.link(f"{number}", page(described(contentUrl=target)))
        with pytest.raises(SourceError, match="not allowed|can be taken|single videos|cannot be"):
            download.fetch(link, out, site.policy)
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
        kind = "application/vnd.apple.mpegurl"
        link = site.link(f"{number}.m3u8", whole(playlist.encode(), kind))
        with pytest.raises(SourceError, match="can be taken"):
            download.fetch(link, out, site.policy)
    assert not files(out)


def test_what_is_no_video_is_not_kept(site: Site, tmp_path: Path) -> None:
    link = site.link("a.mp3", whole(b"sound" * 100, "audio/mpeg"))
    with pytest.raises(SourceError, match="can be taken|no video"):
        download.fetch(link, tmp_path, site.policy)
    assert not files(tmp_path)


def test_cookies(site: Site, body: bytes, tmp_path: Path) -> None:
    def guarded(to: Handler) -> None:
        if "session=42" in to.headers.get("Cookie", ""):
            begin(to, len(body), Set_Cookie="session=43; Secure")
            to.wfile.write(body)
        else:
            status(403)(to)

    link, cookies = site.link("a.mkv", guarded), tmp_path / "cookies.txt"
    with pytest.raises(SourceError, match="give --cookies"):
        download.fetch(link, tmp_path / "out", site.policy)
    text = "# Netscape HTTP Cookie File\nlocalhost.local\tFALSE\t/\tTRUE\t0\tsession\t42\n"
    cookies.write_text(text)
    site.answers["/a.mkv"] = in_turn(guarded, whole(body))
    policy = dataclasses.replace(site.policy, cookies=cookies)
    assert download.fetch(link, tmp_path / "out", policy).read_bytes() == body
    assert cookies.read_text() == text


def test_many_at_once_fetch_a_link_once(site: Site, body: bytes, tmp_path: Path) -> None:
    def slowly(to: Handler) -> None:
        time.sleep(0.2)
        whole(body)(to)

    link = site.link("a.mkv", slowly)
    results: list[Path] = []
    start = threading.Barrier(6)

    def one() -> None:
        start.wait()
        results.append(download.fetch(link, tmp_path, site.policy))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6 and len(set(results)) == 1
    assert len(site.asked) == 2 and files(tmp_path) == [results[0].name]


@pytest.mark.chaos
def test_a_killed_download_leaves_nothing_that_counts(
    site: Site, body: bytes, tmp_path: Path
) -> None:
    halfway, done = threading.Event(), threading.Event()

    def stalls(to: Handler) -> None:
        begin(to, len(body))
        to.wfile.write(body[: len(body) // 2])
        halfway.set()
        done.wait(60)

    link = site.link("a.mkv", in_turn(whole(body), stalls, whole(body)))
    (tmp_path / "code.py").write_text(
        "import pathlib\nfrom pipelines import download\nfrom pipelines.policy import Policy\n"
        f"certificate = pathlib.Path({str(site.certificate)!r})\n"
        f"policy = Policy(hosts=('localhost',), servers=('localhost',), ports=({site.port},),\n"
        "    extractors=('generic',), private=True, certificate=certificate, pause=(0, 0))\n"
        f"download.fetch({link!r}, {str(tmp_path / 'out')!r}, policy)\n"
    )
    child = subprocess.Popen([sys.executable, str(tmp_path / "code.py")])
    try:
        assert halfway.wait(60)
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        done.set()
    assert archive.present(link, tmp_path / "out") is None
    assert all(".partial" in name for name in files(tmp_path / "out"))
    path = download.fetch(link, tmp_path / "out", site.policy)
    assert path.read_bytes() == body and files(tmp_path / "out") == [path.name]


def test_main(site: Site, body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [site.link(f"{number}.mkv", whole(body + bytes(number))) for number in range(3)]
    bad = site.link("bad.mkv", in_turn(status(404), whole(body)))
    (tmp_path / "list.txt").write_text("\n".join([*good, bad, "http://localhost/x"]))
    command = [str(tmp_path / "list.txt"), "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert download.main(command, site.policy) == 0
    output = capsys.readouterr().out
    assert "ok             3" in output and f"failed: {bad}: is not available" in output
    site.asked.clear()
    assert download.main(command, site.policy) == 0
    assert "kept           3" in capsys.readouterr().out
    assert {path for path, _ in site.asked} == {"/bad.mkv"}
    site.asked.clear()
    assert download.main(command, site.policy) == 0
    assert not site.asked and len(files(tmp_path / "out")) == 4
    record = archive.read_record("http://localhost/x", tmp_path / "out")
    assert record is not None and "only https" in record.reason

"""What a download refuses, with the real yt-dlp: servers, addresses, certificates and pages."""

import dataclasses
from pathlib import Path

import pytest

from pipelines import download
from pipelines.policy import Policy
from s2vgan.errors import SourceError
from tests.website import Handler, Site, begin, files, in_turn, page, redirect, whole

pytest.importorskip("yt_dlp")


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

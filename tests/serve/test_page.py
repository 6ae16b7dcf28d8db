"""The page in a real browser: headless Chromium, with a WAV as its microphone."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vgan.media import write_wav
from serve.access import Access
from serve.api import build
from serve.limits import Limits
from serve.voices import Voice
from tests.serve.sounds import RATE, served, service_of, sound

CHROMIUM = shutil.which("chromium")
SHOTS = Path(os.environ.get("S2VGAN_SCREENSHOTS", ""))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    speech = tmp_path_factory.mktemp("microphone") / "speech.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE)
    write_wav(speech, noise.astype(np.float32))
    with playwright.sync_playwright() as driver:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={speech}"]
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, voice: Voice) -> Iterator[Any]:
    """The page, which asks nobody but the service, and says nothing on the console."""
    with served(build(service_of(voice, Limits(window=5)))) as where:
        yield from opened_page(browser, where)


def opened_page(browser: Any, where: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 420, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"http://{where}/")
    yield page
    own = (f"http://{where}/", f"ws://{where}/", "blob:", "data:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert failed == []
    context.close()


def until(page: Any, expression: str) -> None:
    """Wait until something holds; Playwright's own way needs an eval, which the page forbids."""
    for _ in range(600):  # a minute: machines are busy
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{expression} never came true; the page says: {page.inner_text('body')}")


def shot(page: Any, name: str) -> None:
    """Keep a picture where S2VGAN_SCREENSHOTS says so."""
    if SHOTS.name:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png")


def give(page: Any, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "audio/wav", "buffer": content}
    page.set_input_files("#file", files=[file])


@pytest.mark.slow
def test_a_file_is_spoken_by_keyboard_alone(page: Any) -> None:
    give(page, "speech.wav", sound(2))
    page.focus("#speak")
    page.keyboard.press("Enter")
    page.wait_for_selector("#video:not([hidden])")
    until(page, "document.getElementById('video').videoWidth === 128")
    assert page.evaluate("document.getElementById('video').duration") == pytest.approx(2, abs=0.2)
    assert "small" in page.inner_text("#model")
    assert "nobody is named" in page.inner_text("#notice")
    assert page.is_hidden("#problem")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "fits a phone"
    shot(page, "upload")


@pytest.mark.slow
def test_a_long_film_plays_while_it_arrives(page: Any) -> None:
    give(page, "speech.wav", sound(60))
    page.evaluate(
        """() => document.getElementById('video').addEventListener('playing', () => {
            const hidden = name => document.getElementById(name).hidden;
            window.arriving = !hidden('progress') && hidden('save');
        }, { once: true })"""
    )
    page.click("#speak")
    until(page, "window.arriving === true")
    until(page, "document.getElementById('progress').hidden")
    assert page.evaluate("document.getElementById('video').duration") == pytest.approx(60, abs=0.2)
    assert page.get_attribute("#save", "href").startswith("blob:")
    assert page.is_visible("#save")
    assert page.is_hidden("#problem")


@pytest.mark.slow
def test_live_from_the_microphone(page: Any) -> None:
    page.click("#live")
    until(page, "Number(document.getElementById('canvas').dataset.drawn) > 20")  # beyond its window
    assert page.get_attribute("#live", "aria-pressed") == "true"
    shot(page, "live")
    inside = """() => {
        const { width, height } = document.getElementById('canvas');
        const drawn = document.getElementById('canvas').getContext('2d');
        return drawn.getImageData(0, 0, width, height).data.some(v => v > 40 && v < 250);
    }"""
    assert page.evaluate(inside), "a picture is drawn"
    seen = "Number(document.getElementById('took').textContent.match(/[0-9.]+/)[0])"
    page.click("#live")
    stopped = page.evaluate(seen)
    until(page, "document.getElementById('live').textContent === 'Live'")
    assert page.evaluate(seen) > stopped + 0.3, "what was said last is seen, 0.6 s late"
    assert page.is_hidden("#problem")


@pytest.mark.slow
def test_a_recording_is_spoken(page: Any) -> None:
    page.click("#record")
    page.wait_for_timeout(1500)
    page.click("#record")
    until(page, "document.getElementById('name').textContent === 'recording'")
    page.click("#speak")
    until(page, "document.getElementById('video').videoWidth === 128")
    assert page.is_hidden("#problem")


@pytest.mark.slow
@pytest.mark.parametrize("button", ["record", "live"])
def test_a_second_click_opens_no_second_microphone(button: str, page: Any) -> None:
    page.evaluate(
        """() => {
            const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
            const allowed = new Promise(resolve => window.allow = resolve);
            window.asked = 0;
            media.getUserMedia = async wish => {
                window.asked += 1;
                await allowed;
                return window.sound = await real(wish);
            };
        }"""
    )
    for other in (button, button, "record", "live"):
        page.click(f"#{other}")
    assert page.evaluate("window.asked") == 1
    page.evaluate("window.allow()")
    until(page, f"document.getElementById('{button}').textContent === 'Stop'")
    page.click(f"#{button}")
    until(page, "window.sound.getTracks().every(track => track.readyState === 'ended')")
    until(page, f"document.getElementById('{button}').textContent === '{button.capitalize()}'")
    page.click(f"#{button}")
    assert page.evaluate("window.asked") == 2, "it can be asked for again"


@pytest.mark.slow
def test_what_is_refused_is_told_in_a_sentence(page: Any) -> None:
    give(page, "letter.wav", b"this is no sound")
    page.click("#speak")
    page.wait_for_selector("#problem:not([hidden])")
    assert "not a video or sound file" in page.inner_text("#problem")
    shot(page, "refused")
    give(page, "speech.wav", sound(0.5))
    page.click("#speak")
    page.wait_for_selector("#video:not([hidden])")
    assert page.is_hidden("#problem")


@pytest.mark.slow
def test_a_token_is_asked_for(browser: Any, voice: Voice) -> None:
    token = "a token of the house"
    with served(build(service_of(voice, access=Access(token)))) as where:
        for page in opened_page(browser, where):
            page.wait_for_selector("#token:not([hidden])")
            page.fill("#token", token)
            page.keyboard.press("Tab")
            until(page, "document.getElementById('model').children.length > 0")
            page.click("#live")
            until(page, "Number(document.getElementById('canvas').dataset.drawn) > 5")
            page.click("#live")
            assert page.is_hidden("#problem")


@pytest.mark.slow
def test_the_manual_shows_all_endpoints(browser: Any, voice: Voice) -> None:
    with served(build(service_of(voice))) as where:
        for page in opened_page(browser, where):
            page.goto(f"http://{where}/docs")
            page.wait_for_selector("h2")
            told = page.inner_text("body")
            assert "POST /v1/speak" in told and "WS /v1/stream" in told and "?seed=" in told

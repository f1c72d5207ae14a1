"""The page in a real browser: Chromium, headless, driven through Playwright."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from genie_cpp import _C
from genie_cpp.models import Genie

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("starlette")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

HISTORY = 4

READY = "#undo:not([disabled])"
PIXELS = """() => {
  const screen = document.getElementById("screen");
  const data = screen.getContext("2d").getImageData(0, 0, screen.width, screen.height).data;
  return Array.from(data).join();
}"""


class Server:
    """`genie-cpp play` in a process of its own."""

    def __init__(self, run: Path, data: Path) -> None:
        self.run, self.data = run, data
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "genie_cpp.cli", "play", self.run, "--data", self.data]
        command += ["--port", self.port, "--no-browser"]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # Chromium takes the rest
        )
        assert self.process.stdout is not None
        assert "playing" in self.process.stdout.readline()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    _C.write_synthetic_world(str(folder / "world.h5"), 240, 16, 16, 60, 0)
    torch.manual_seed(0)
    config = _C.Config.parse(TINY)
    config.override([f"inference.history={HISTORY}"])
    Genie(config).save_pretrained(folder / "run")
    server = Server(folder / "run", folder / "world.h5")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, address: str, **options: Any) -> Any:
    page = browser.new_page(**options)
    page.set_default_timeout(30000)
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.on("console", lambda line: page.failures.append(line.text) if "Refused to" in line.text else None)
    page.goto(address)
    page.wait_for_selector(READY)
    return page


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    page = open_page(browser, f"http://127.0.0.1:{server.port}/#prompt=10&seed=3")
    yield page
    page.close()
    assert page.failures == []


def at(page: Any, number: int) -> str:
    """The screen once the play is at frame `number`."""
    page.wait_for_function(
        "([n, ready]) => document.querySelector(ready) && document.getElementById('number').value === n",
        arg=[str(number), READY],
    )
    return page.evaluate(PIXELS)


def test_twenty_frames_by_keyboard_and_button_that_differ_by_action(page: Any) -> None:
    frames = [at(page, 0)]
    for number in range(1, 21):
        if number % 2:
            page.keyboard.press(str(1 + number % 4))
        else:
            page.locator("#actions button").nth(number % 4).click()
        frames.append(at(page, number))
    assert len(set(frames)) > 10
    page.keyboard.press("Backspace")
    assert at(page, 19) == frames[19]
    outcomes = set()
    for action in range(1, 5):
        page.keyboard.press(str(action))
        outcomes.add(at(page, 20))
        page.keyboard.press("Backspace")
        at(page, 19)
    assert len(outcomes) > 1


def test_an_open_page_goes_on_after_the_server_restarts(page: Any, server: Server) -> None:
    for number in range(1, 4):
        page.keyboard.press("2")
        before = at(page, number)
    server.stop()
    page.wait_for_selector("#connection[data-state=disconnected]")
    server.start()
    page.wait_for_selector("#connection[data-state=connected]")
    assert at(page, 3) == before
    page.keyboard.press("1")
    at(page, 4)


def test_garbage_on_a_socket_leaves_the_page_playing(page: Any) -> None:
    page.evaluate("""() => new Promise((done) => {
      const socket = new WebSocket(`ws://${location.host}/socket`);
      socket.onopen = () => {
        socket.send("{");
        socket.send(new Uint8Array([255, 0, 255]));
        socket.send("x".repeat(200000));
      };
      socket.onclose = done;
    })""")
    page.keyboard.press("1")
    at(page, 1)


def test_undo_goes_back_further_than_the_session_remembers(page: Any) -> None:
    frames = [at(page, 0)]
    for number in range(1, HISTORY + 4):
        page.keyboard.press(str(1 + number % 4))
        frames.append(at(page, number))
    for number in range(HISTORY + 2, -1, -1):
        page.keyboard.press("Backspace")
        assert at(page, number) == frames[number]


def test_a_shared_link_plays_the_same_again(page: Any, browser: Any) -> None:
    page.locator("#steps").fill("3")
    for number, key in enumerate("1334", start=1):
        page.keyboard.press(key)
        last = at(page, number)
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('0.2x2.3')")  # all four actions
    link = page.evaluate("location.href")
    assert "seed=3" in link and "prompt=10" in link
    other = open_page(browser, link)
    assert at(other, 4) == last and other.locator("#steps").input_value() == "3"
    other.close()


def test_what_was_played_is_saved_to_a_file(page: Any) -> None:
    page.keyboard.press("1")
    at(page, 1)
    with page.expect_download() as download:
        page.locator("#save-gif").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"GIF8"
    assert download.value.suggested_filename == "genie_10_3.gif"


def test_previews_show_each_action_from_here(page: Any) -> None:
    canvases = "#actions canvas[data-stale=false]"
    page.wait_for_function(f"() => document.querySelectorAll('{canvases}').length === 4")
    page.keyboard.press("2")
    at(page, 1)
    page.wait_for_function(f"() => document.querySelectorAll('{canvases}').length === 4")


def test_it_can_be_played_by_keyboard_alone_and_every_control_has_a_name(page: Any) -> None:
    page.locator("#actions button").first.focus()
    page.keyboard.press("Enter")
    at(page, 1)
    page.keyboard.press("Space")
    at(page, 2)
    page.locator("#play-tab").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#watch").is_visible()
    for tab in ("watch", "play"):
        page.locator(f"#{tab}-tab").click()
        unnamed = page.evaluate(
            """(tab) => [...document.getElementById(tab).querySelectorAll("button, input, select")].filter(
                 (one) => !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length)
               ).map((one) => one.outerHTML)""",
            tab,
        )
        assert unnamed == []
    assert "Frame 2" in page.locator("#screen").get_attribute("aria-label")
    page.wait_for_function("() => document.getElementById('said').textContent.includes('Frame 2')")


def test_recordings_show_the_latent_action_beside_the_true_one(page: Any, server: Server) -> None:
    page.locator("#watch-tab").click()
    page.wait_for_function("() => document.getElementById('latent').textContent !== '\u2013'")
    actions = _C.VideoFile(str(server.data)).actions
    assert actions is not None
    page.keyboard.press("ArrowRight")
    assert page.locator("#recorded").inner_text() == str(int(actions[1]))
    assert page.locator("#latent").inner_text() in "1234"
    page.locator("#from-here").click()
    page.wait_for_function("() => document.getElementById('prompt').value === '1'")
    at(page, 0)


def test_a_phone_needs_no_sideways_scrolling(browser: Any, server: Server) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = open_page(browser, f"http://127.0.0.1:{server.port}/#prompt=10&seed=3", **phone)
    for tab in ("play", "watch"):
        page.locator(f"#{tab}-tab").tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#play-tab").tap()
    page.locator("#actions button").nth(2).tap()
    at(page, 1)
    page.close()

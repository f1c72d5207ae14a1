"""The page in a real browser: Chromium, headless, driven through Playwright."""

from __future__ import annotations

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
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
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
    Genie(_C.Config.parse(TINY)).save_pretrained(folder / "run")
    server = Server(folder / "run", folder / "world.h5")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def page(server: Server) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(30000)
        page.goto(f"http://127.0.0.1:{server.port}/#prompt=10&seed=3")
        page.wait_for_selector("#undo:not([disabled])")
        yield page
        browser.close()


def at(page: Any, number: int) -> str:
    """The screen once it shows frame `number`."""
    page.wait_for_function("n => document.getElementById('number').value === String(n)", arg=number)
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
    page.wait_for_selector("#undo:not([disabled])")
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

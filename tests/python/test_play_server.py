"""The server of the page: what it answers, what it refuses, and that nothing a page sends ends it."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, execute

from genie_cpp import _C
from genie_cpp.errors import GenieError
from genie_cpp.inference import Session
from genie_cpp.models import Genie

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from genie_cpp import play
from genie_cpp.play import protocol
from genie_cpp.play.fair_queue import FairQueue
from genie_cpp.play.guard import Guard

SETTINGS = {"steps": 2, "temperature": 1.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that meet in each small operation wait for each other on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> play.World:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("play") / "world.h5"
    _C.write_synthetic_world(str(path), 240, 16, 16, 60, 0)
    return play.World(Genie(_C.Config.parse(TINY)).eval(), path, "tiny")


class Page:
    """What a browser's page would send and see."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    def send(self, **fields: object) -> None:
        self.socket.send_text(json.dumps(fields))

    def start(self, prompt: int = 10, seed: int = 1, tape: list | None = None, **settings: object) -> None:
        self.send(type="start", prompt=prompt, seed=seed, **(SETTINGS | settings), tape=tape or [])

    def take(self) -> Any:
        """The next message: a dictionary, or (kind, action, number, pixels)."""
        event = self.socket.receive()
        if event["type"] == "websocket.close":
            raise WebSocketDisconnect(event["code"], event.get("reason", ""))
        if event.get("text") is not None:
            return json.loads(event["text"])
        kind, action, width, height, count, number, _ = protocol.HEADER.unpack(event["bytes"][:16])
        content = event["bytes"][16:]
        if kind != protocol.FILE:
            content = np.frombuffer(content, np.uint8).reshape(count, height, width, 3)
        return kind, action, number, content

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        for _ in range(2000):
            message = self.take()
            if wanted(message):
                return message
        raise AssertionError("the message did not come")

    def told(self, kind: str) -> dict[str, Any]:
        return self.until(lambda message: isinstance(message, dict) and message["type"] == kind)

    def frame(self, kind: int = protocol.FRAME) -> tuple[int, int, int, Any]:
        return self.until(lambda message: isinstance(message, tuple) and message[0] == kind)

    def step(self, action: int) -> np.ndarray:
        self.send(type="step", action=action)
        return self.frame()[3][0]


@contextmanager
def opened(world: play.World, **limits: Any) -> Iterator[Page]:
    client = TestClient(play.create_app(world, play.Limits(**limits)), base_url="http://localhost:8421")
    with client, client.websocket_connect("/socket", headers={"host": "localhost:8421"}) as socket:
        page = Page(socket)
        assert page.take()["type"] == "hello"
        yield page


def test_a_page_starts_steps_and_undoes(world: play.World) -> None:
    with opened(world) as page:
        page.start()
        first = page.frame()[3][0]
        assert page.told("started")["number"] == 0
        second = page.step(2)
        page.send(type="undo", count=1)
        assert page.told("undone")["number"] == 0
        assert np.array_equal(page.frame()[3][0], first)
        assert np.array_equal(page.step(2), second)


def test_the_same_tape_gives_the_same_play_with_settings_changed_on_the_way(world: play.World) -> None:
    with opened(world) as page:
        page.start()
        page.told("started")
        frames = [page.step(action) for action in (0, 1)]
        page.send(type="configure", steps=3, temperature=0.5)
        frames += [page.step(action) for action in (2, 3)]
    tape = [{**SETTINGS, "actions": [0, 1]}, {"steps": 3, "temperature": 0.5, "actions": [2, 3]}]
    with opened(world) as page:
        page.start(tape=tape, steps=3, temperature=0.5)
        replayed = [page.frame()[3][0] for _ in range(5)][1:]
        assert page.told("started")["number"] == 4
        assert all(np.array_equal(a, b) for a, b in zip(frames, replayed, strict=True))


def test_a_preview_shows_each_action_and_leaves_the_play_alone(world: play.World) -> None:
    with opened(world) as page:
        page.start()
        page.told("started")
        page.send(type="previews", length=1)
        previews = {}
        for _ in range(world.num_actions):
            _, action, number, pixels = page.frame(protocol.PREVIEW)
            assert number == 0
            previews[action] = pixels[0]
        assert sorted(previews) == list(range(world.num_actions))
        assert np.array_equal(page.step(1), previews[1])


def test_previews_of_a_frame_that_is_gone_are_dropped(world: play.World) -> None:
    with opened(world) as page:
        page.start()
        page.told("started")
        page.send(type="previews", length=8)
        page.send(type="step", action=0)
        frame = page.frame()
        page.send(type="step", action=0)
        after = page.until(lambda message: isinstance(message, tuple))
        assert (frame[2], after[0], after[2]) == (1, protocol.FRAME, 2)


def test_a_newer_start_ends_the_replay_of_an_older_one(world: play.World) -> None:
    with opened(world) as page:
        page.start(tape=[{**SETTINGS, "actions": [0] * 3000}])
        page.start(prompt=70)
        numbers = [page.told("started") for _ in range(2)]
        assert numbers[0]["prompt"] == 10 and numbers[0]["number"] < 3000
        assert (numbers[1]["prompt"], numbers[1]["number"]) == (70, 0)


def test_recordings_are_files_of_what_was_played(world: play.World, tmp_path: Path) -> None:
    with opened(world) as page:
        page.send(type="record", format="gif", fps=10)
        assert "nothing to save" in page.told("error")["message"]
        page.start()
        page.told("started")
        for action in (0, 1, 2):
            page.step(action)
        page.send(type="undo", count=1)
        page.told("undone")
        page.send(type="record", format="gif", fps=10)
        assert page.told("file")["frames"] == 3
        (tmp_path / "play.gif").write_bytes(page.frame(protocol.FILE)[3])
        assert Image.open(tmp_path / "play.gif").size == (256, 256)
        page.send(type="record", format="mp4", fps=10)
        page.told("file")
        assert page.frame(protocol.FILE)[3][4:8] == b"ftyp"


def test_a_recording_keeps_the_last_frames_only() -> None:
    from genie_cpp.play.recording import Recording

    recording = Recording(limit=10 * 12)
    for value in range(50):
        recording.add(np.full((2, 2, 3), value, np.uint8))
    assert recording.frames()[:, 0, 0, 0].tolist() == list(range(40, 50))


def test_an_episode_comes_with_latent_and_recorded_actions(world: play.World) -> None:
    file = world.prompts.file
    with opened(world) as page:
        page.send(type="episode", episode=1, begin=32)
        told = page.told("episode")
        _, _, begin, frames = page.frame(protocol.EPISODE)
    assert begin == 32 and len(frames) == 28 == told["count"]
    assert np.array_equal(frames, file.read_frames(60 + 32, 28).numpy())
    assert told["recorded"] == file.actions[60 + 32 : 60 + 59].tolist()
    assert len(told["latent"]) == 27 and all(0 <= action < 4 for action in told["latent"])


def test_an_episodes_parts_join_without_a_gap(world: play.World) -> None:
    parts = [world.episode(0, begin, 32) for begin in (0, 32)]
    assert [len(part.latent) for part in parts] == [32, 27]
    assert sum(len(part.frames) for part in parts) == 60


GARBAGE = [
    "",
    "{",
    "[]",
    "null",
    '"step"',
    "[" * 5000,
    "{}",
    '{"type": []}',
    '{"type": "quit"}',
    '{"type": "step"}',
    '{"type": "step", "action": 4}',
    '{"type": "step", "action": -1}',
    '{"type": "step", "action": true}',
    '{"type": "step", "action": 1e99}',
    '{"type": "step", "action": "1"}',
    '{"type": "undo", "count": 0}',
    '{"type": "configure", "steps": 0, "temperature": 1}',
    '{"type": "configure", "steps": 2, "temperature": NaN}',
    '{"type": "configure", "steps": 2, "temperature": 1e400}',
    '{"type": "configure", "steps": 2, "temperature": 1' + "0" * 400 + "}",
    '{"type": "configure", "steps": 1' + "0" * 4000 + ', "temperature": 1}',
    '{"type": "start", "prompt": 100000, "seed": 0, "steps": 2, "temperature": 1, "tape": []}',
    '{"type": "start", "prompt": 1, "seed": 0, "steps": 2, "temperature": 1, "tape": [3]}',
    '{"type": "start", "prompt": 1, "seed": 0, "steps": 2, "temperature": 1, "tape": {}}',
    '{"type": "start", "prompt": 1, "seed": -1, "steps": 2, "temperature": 1, "tape": []}',
    '{"type": "episode", "episode": 99, "begin": 0}',
    '{"type": "record", "format": "exe", "fps": 10}',
    '{"type": "record", "format": ["gif"], "fps": 10}',
    "\u0000\ud83d\ude00",
    "x" * 70000,
]


def test_garbage_is_answered_in_words_and_the_play_goes_on(world: play.World) -> None:
    with opened(world, messages_per_second=1000) as page:
        page.start()
        page.told("started")
        for text in GARBAGE:
            page.socket.send_text(text)
        words = page.told("error")["message"]  # of a flood, not each one is answered
        assert words and "Traceback" not in words
        page.socket.send_bytes(b"\xff" * 100)
        assert page.step(1).shape == (16, 16, 3)


def test_messages_out_of_turn_are_errors_in_words(world: play.World) -> None:
    with opened(world) as page:
        for fields in ({"type": "step", "action": 0}, {"type": "undo", "count": 1}):
            page.send(**fields)
            assert "nothing is being played" in page.told("error")["message"]
        page.start()
        page.told("started")
        page.send(type="undo", count=5)
        error = page.told("error")
        assert error["about"] == "undo"
        page.step(0)


def test_an_unforeseen_failure_is_told_and_the_play_goes_on(
    world: play.World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("secret detail")

    with opened(world) as page:
        with monkeypatch.context() as patched:
            patched.setattr(type(world), "episode", fail)
            page.send(type="episode", episode=0, begin=0)
            error = page.told("error")
        assert "secret" not in error["message"] and "secret detail" in caplog.text
        page.start()
        page.told("started")


def test_a_flood_is_refused_and_a_lasting_one_ends_the_connection(world: play.World) -> None:
    with opened(world, messages_per_second=5, refusals=50) as page:
        page.start()
        page.told("started")
        with pytest.raises(WebSocketDisconnect) as ending:
            for _ in range(100):
                page.send(type="step", action=0)
            page.until(lambda message: False)
        assert ending.value.code == protocol.CLOSE_RATE


def test_more_messages_than_may_wait_are_left_out_in_words(world: play.World) -> None:
    with opened(world, waiting_messages=2, messages_per_second=1000) as page:
        page.start(tape=[{**SETTINGS, "actions": [0] * 50}])
        for _ in range(5):
            page.send(type="undo", count=1)
        assert "wait for an answer" in page.told("error")["message"]
        page.told("started")


def test_a_start_that_is_left_out_does_not_end_the_replay_under_way(world: play.World) -> None:
    with opened(world, waiting_messages=1, messages_per_second=1000) as page:
        page.start(tape=[{**SETTINGS, "actions": [0] * 40}])
        page.told("starting")
        page.send(type="undo", count=1)
        page.start(prompt=70)
        assert "wait for an answer" in page.told("error")["message"]
        assert page.told("started")["number"] == 40


def test_a_model_with_more_actions_than_a_message_can_name_is_refused(world: play.World) -> None:
    config = _C.Config.parse(TINY)
    config.override(["latent_action.quantizer.num_codes=255"])
    with pytest.raises(GenieError, match="at most 254 actions, this model has 255"):
        play.World(Genie(config), world.prompts.path)


def test_nothing_is_left_of_pages_that_are_gone(world: play.World) -> None:
    def sessions() -> int:
        gc.collect()
        return sum(type(thing) is Session for thing in gc.get_objects())

    before = sessions()
    client = TestClient(play.create_app(world), base_url="http://localhost:8421")
    with client:
        for number in range(5):
            with client.websocket_connect("/socket", headers={"host": "localhost:8421"}) as socket:
                page = Page(socket)
                page.start(seed=number)
                page.told("started")
                page.step(0)
                assert sessions() > before
                page.send(type="previews", length=8)  # under way when the page goes
        end = time.monotonic() + 20
        while sessions() > before and time.monotonic() < end:
            time.sleep(0.1)
        assert sessions() == before


def test_many_pages_at_once_all_get_their_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute with 50 pages, shorter; see benchmarks/play_load.py."""
    pytest.importorskip("websockets")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = Path(__file__).parents[2] / "benchmarks" / "play_load.py"
    result = execute(
        sys.executable, script, "--sessions", 8, "--seconds", 3, "--json", tmp_path / "load.json"
    )
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "load.json").read_text())["rows"]
    assert row["lost"] == 0 and row["sessions"] == 8 and row["fewest"] >= 1
    assert row["late_MiB"] - row["early_MiB"] <= 100


def test_idle_pages_are_dropped(world: play.World) -> None:
    with opened(world, idle_seconds=0.3) as page:
        begin = time.monotonic()
        with pytest.raises(WebSocketDisconnect) as ending:
            page.take()
        assert ending.value.code == protocol.CLOSE_IDLE
        assert 0.2 <= time.monotonic() - begin <= 10


def test_no_more_pages_than_the_limit_play_and_a_place_comes_free(world: play.World) -> None:
    client = TestClient(play.create_app(world, play.Limits(sessions=2)), base_url="http://localhost")

    def connect() -> Any:
        return client.websocket_connect("/socket", headers={"host": "localhost"})

    with client:
        with connect() as one, connect() as two:
            assert one.receive_json()["type"] == two.receive_json()["type"] == "hello"
            with connect() as three, pytest.raises(WebSocketDisconnect) as ending:
                three.receive_json()
            assert ending.value.code == protocol.CLOSE_FULL and "2 pages" in ending.value.reason
        with connect() as four:
            assert four.receive_json()["type"] == "hello"


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"host": "localhost:8421"}, True),
        ({"host": "127.0.0.1:1"}, True),
        ({"host": "[::1]:8421"}, True),
        ({"host": "evil.example:8421"}, False),
        ({"host": "localhost.evil.example"}, False),
        ({"host": "10.0.0.5:8421"}, False),
        ({"host": "localhost@evil.example"}, False),
        ({"host": ""}, False),
        ({"host": "[::1];x"}, False),
        ({"host": "LOCALHOST:8421"}, True),
        ({"host": "localhost:8421", "origin": "http://localhost:8421"}, True),
        ({"host": "localhost:8421", "origin": "http://localhost:3000"}, False),
        ({"host": "localhost:8421", "origin": "http://evil.example"}, False),
        ({"host": "localhost:8421", "origin": "null"}, False),
        ({"host": "localhost:8421", "origin": "file://localhost:8421"}, False),
    ],
)
def test_foreign_hosts_and_origins_are_refused(world: play.World, headers: dict, fine: bool) -> None:
    client = TestClient(play.create_app(world), base_url="http://localhost:8421")
    assert client.get("/", headers=headers).status_code == (200 if fine else 403)
    if fine:
        with client.websocket_connect("/socket", headers=headers) as socket:
            assert socket.receive_json()["type"] == "hello"
    else:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket", headers=headers):
            pass


def test_bound_beyond_this_computer_addresses_and_named_hosts_are_answered() -> None:
    guard = Guard(None, "0.0.0.0", ["Play.Lab"])
    assert guard.refusal(["192.168.0.7:80"], []) is None
    assert guard.refusal(["play.lab:80"], ["http://play.lab:80"]) is None
    assert guard.refusal(["evil.example"], []) is not None
    assert guard.refusal(["localhost", "localhost"], []) is not None
    assert Guard(None, "lab-server").refusal(["lab-server:80"], []) is None


def test_the_page_loads_nothing_from_elsewhere(world: play.World) -> None:
    client = TestClient(play.create_app(world), base_url="http://localhost:8421")
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "ws://localhost:8421" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("main.js", "style.css", "icon.svg"):
        assert client.get(f"/static/{name}").status_code == 200
    assert client.get("/static/../app.py").status_code == 404
    for path in (Path(play.__file__).parent / "static").iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, path
    assert " style=" not in page.text and "<script>" not in page.text


def test_prompt_pictures_are_the_recorded_frames(world: play.World, tmp_path: Path) -> None:
    client = TestClient(play.create_app(world), base_url="http://localhost")
    (tmp_path / "frame.png").write_bytes(client.get("/frames/25.png").content)
    pixels = np.asarray(Image.open(tmp_path / "frame.png"))
    assert np.array_equal(pixels, world.prompts.file.read_frames(25, 1)[0].numpy())
    for name in ("240", "-1", "9" * 5000, "1e3", "x"):
        answer = client.get(f"/frames/{name}.png")
        assert answer.status_code == 404 and answer.text == "the recording has frames 0..239\n"


def test_owners_take_turns_and_background_jobs_wait() -> None:
    done: list[str] = []

    async def work() -> None:
        queue = FairQueue()
        blocked = threading.Event()
        first = asyncio.create_task(queue.run("x", blocked.wait))
        await asyncio.sleep(0.05)
        names = ["b1", "b2", "a1", "a2", "a3", "c1"]
        jobs = []
        for name in names:
            background = name[0] == "b"
            jobs.append(
                asyncio.create_task(queue.run(name[0], lambda n=name: done.append(n), background=background))
            )
        dropped = asyncio.create_task(queue.run("a", lambda: done.append("dropped")))
        await asyncio.sleep(0.05)
        dropped.cancel()
        blocked.set()
        await asyncio.gather(first, *jobs)
        queue.close()

    asyncio.run(work())
    assert done == ["a1", "c1", "a2", "a3", "b1", "b2"]


def test_a_failing_job_fails_its_caller_only() -> None:
    async def work() -> int:
        queue = FairQueue()
        with pytest.raises(ZeroDivisionError):
            await queue.run("a", lambda: 1 // 0)
        return await queue.run("b", lambda: 7)

    assert asyncio.run(work()) == 7

"""Clips are opened one at a time before the model is free, and none twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from omnidrop.clip.clip import Clip, open_clip
from omnidrop.serving import asking, openings
from omnidrop.serving.asking import Opened, open_request
from omnidrop.serving.chat import read_request
from omnidrop.serving.clips import Clips
from omnidrop.serving.openings import Openings
from omnidrop.serving.problems import Refused
from omnidrop.serving.sessions import Sessions
from omnidrop.serving.settings import HttpSettings
from tests.serving.conftest import Place, chat

Open = Callable[[str], Opened]


@pytest.fixture
def opener(root: Path) -> Any:
    """Opens clips below the root by name, as requests do."""
    clips, kept, noted = Clips(HttpSettings(root=root)), Sessions(1 << 30), Openings()

    def opened(name: str) -> Opened:
        return open_request(read_request(chat(name)), clips, kept, noted)

    opened.noted = noted  # type: ignore[attr-defined]
    yield opened
    clips.close()


def slow_opening(seconds: float, seen: list[str], at_once: list[int]) -> Callable[..., Clip]:
    """Return `open_clip` that takes a while, and notes what it is called for and how often."""
    inside, guard = [0], threading.Lock()

    def opening(path: Path, *rest: Any) -> Clip:
        with guard:
            inside[0] += 1
            at_once.append(inside[0])
            seen.append(path.name)
        time.sleep(seconds)
        with guard:
            inside[0] -= 1
        return open_clip(path, *rest)

    return opening


def test_a_clip_is_opened_once_for_all_that_wait(
    opener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    at_once: list[int] = []
    monkeypatch.setattr(asking, "open_clip", slow_opening(0.02, seen, at_once))
    with ThreadPoolExecutor(6) as pool:
        names = ["one.mp4", "inner/two.mp4"] * 3
        found = list(pool.map(opener, names))
    assert len(seen) == 2
    assert max(at_once) == 1
    assert sum(one.clip is not None for one in found) == 2
    assert all(one.path is not None for one in found)
    assert len(opener.noted) == 2
    for one in found:
        one.close()
    assert len(opener.noted) == 0
    again = opener("one.mp4")
    assert again.clip is not None
    again.close()


def test_a_file_that_hangs_holds_nobody_up_for_long(
    opener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "PATIENCE", 0.05)
    entered, let_go = threading.Event(), threading.Event()

    hangs = iter([True])

    def hanging(path: Path, *rest: Any) -> Clip:
        if next(hangs, False):
            entered.set()
            let_go.wait(30)
        return open_clip(path, *rest)

    monkeypatch.setattr(asking, "open_clip", hanging)
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(opener, "one.mp4")
        assert entered.wait(10)
        other = pool.submit(opener, "inner/two.mp4").result(10)
        assert other.clip is not None
        assert not stuck.done()
        monkeypatch.setattr(openings, "PATIENCE", 60)
        other.close()
        again = pool.submit(opener, "inner/two.mp4").result(10)  # the turn is not the stuck one's
        assert again.clip is not None
        let_go.set()
        stuck.result(10).close()
    again.close()


def test_a_file_that_cannot_be_opened_leaves_no_mark(opener: Any) -> None:
    for _ in range(2):
        with pytest.raises(Refused):
            opener("cut.mp4")
    assert len(opener.noted) == 0


def test_whoever_waits_for_anothers_clip_is_answered_if_that_one_leaves(
    serve: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two requests about a clip is gone before its turn; the second opens the clip."""
    place = serve(queue=8)
    alone = place.ask("one.mp4", "What is last?").json()["choices"][0]["message"]["content"]
    place = serve(queue=8)
    entered, let_go = threading.Event(), threading.Event()

    def opening(path: Path, *rest: Any) -> Clip:
        clip = open_clip(path, *rest)
        entered.set()
        let_go.wait(10)
        return clip

    monkeypatch.setattr(asking, "open_clip", opening)
    with ThreadPoolExecutor(2) as pool:
        leaves = pool.submit(
            lambda: place.client.post("/v1/chat/completions", json=chat("one.mp4"), timeout=0.5)
        )
        assert entered.wait(10)
        with pytest.raises(Exception, match="timed out"):
            leaves.result(10)
        let_go.set()
        reply = pool.submit(place.ask, "one.mp4", "What is last?").result(30)
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == alone

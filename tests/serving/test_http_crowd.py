"""Clients that leave, wait, or come in a crowd: no wrong answer, no leak, no stuck place."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from omnidrop.testing import media
from tests.serving.conftest import QUESTION, Place, chat
from tests.serving.test_http_files import OUTSIDE

if TYPE_CHECKING:
    from omnidrop.engine.model import Model

LONG = 100_000


def number(place: Place, name: str) -> float:
    """Return a value of /metrics."""
    lines = place.client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"omnidrop_{name} ")).split()[1])


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def leave(place: Place, body: dict[str, Any], *, read: int = 0) -> None:
    """Send a request, read so many bytes of the reply, and close the connection."""
    address = urlsplit(place.url)
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode()
    with socket.create_connection((address.hostname, address.port), timeout=20) as link:
        link.sendall(head + content)
        if read:
            link.recv(read)
        else:
            wait_until(lambda: number(place, "queue_running") > 0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_when_its_client_leaves(place: Place, stream: bool) -> None:
    before = number(place, "cancelled_total")
    answers = number(place, "answers_total")
    expected = place.ask("one.mp4").json()["choices"]
    leave(place, chat("one.mp4", max_tokens=LONG, stream=stream), read=300 * stream)
    wait_until(lambda: number(place, "queue_running") == 0)
    assert number(place, "cancelled_total") == before + 1
    assert number(place, "answers_total") == answers + 1
    # What was computed for it is of use: the clip need not be encoded again.
    assert place.ask("one.mp4").json()["choices"] == expected


def test_a_prefill_ends_when_its_client_leaves(
    place: Place, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers: list[int] = []
    usual = model.adapter.layer

    def slow(layer: int, *rest: Any) -> Any:
        layers.append(layer)
        time.sleep(0.2)
        return usual(layer, *rest)

    expected = place.ask("inner/two.mp4", "Why?").json()["choices"]
    with monkeypatch.context() as patch:
        patch.setattr(model.adapter, "layer", slow)
        leave(place, chat("inner/two.mp4", "Why?"))
        wait_until(lambda: number(place, "queue_running") == 0)
    assert len(layers) < 2 * model.info.text.layers
    assert place.ask("inner/two.mp4", "Why?").json()["choices"] == expected


@pytest.mark.slow
def test_time_is_limited(
    serve: Callable[..., Place], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = serve(timeout=0.6)
    usual = model.adapter.layer

    def slow(layer: int, *rest: Any) -> Any:
        time.sleep(0.1)  # the model may end its answer within 0.6 s
        return usual(layer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(model.adapter, "layer", slow)
        reply = place.ask("one.mp4", max_tokens=LONG)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        body = chat("one.mp4", max_tokens=LONG, stream=True)
        text = place.client.post("/v1/chat/completions", json=body).text
        last = text.strip().splitlines()[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        assert "[DONE]" not in text
        wait_until(lambda: number(place, "queue_running") == 0)
    wait_until(lambda: place.ask("one.mp4").status_code == 200, 30)  # on a busy machine later


def test_a_full_queue(serve: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    from omnidrop.serving import completions

    place, let_go = serve(queue=1), threading.Event()
    replies: list[int] = []
    usual = completions.ask

    def held(*rest: Any) -> Any:
        let_go.wait(30)
        return usual(*rest)

    def ask() -> None:
        with httpx.Client(base_url=place.url, timeout=60) as client:
            reply = client.post("/v1/chat/completions", json=chat("one.mp4"))
            replies.append(reply.status_code)

    monkeypatch.setattr(completions, "ask", held)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: number(place, "queue_running") == number(place, "queue_waiting") == 1)
    refused = place.ask("one.mp4")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    let_go.set()
    for thread in threads:
        thread.join()
    assert replies == [200, 200]
    assert place.ask("one.mp4").status_code == 200


def test_stopping_ends_answers(model: Model, root: Path) -> None:
    from omnidrop.options import LoadOptions
    from omnidrop.serving.server import http_server
    from omnidrop.serving.settings import HttpSettings
    from omnidrop.serving.warm import WarmModel

    warm = WarmModel(LoadOptions(model="tiny"), None, load=lambda options, progress: model)
    replies: list[Any] = []

    def ask(url: str) -> None:
        try:
            body = chat("one.mp4", max_tokens=LONG)
            replies.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60))
        except httpx.HTTPError as problem:
            replies.append(problem)

    began = time.monotonic()
    with http_server(warm, HttpSettings(port=0, root=root)) as url:
        thread = threading.Thread(target=ask, args=(url,))
        thread.start()
        place = Place(url, root, httpx.Client(base_url=url))
        wait_until(lambda: number(place, "queue_running") > 0)
        place.client.close()
    thread.join(10)
    assert time.monotonic() - began < 10
    (reply,) = replies
    assert reply.status_code == 503
    assert not warm.info().busy


HOSTILE: list[Callable[[Any], Any]] = [
    *[lambda c, url=url: c.post("/v1/chat/completions", json=chat(url)) for url in OUTSIDE],
    lambda c: c.post("/v1/chat/completions", content=b"{" * 5000),
    lambda c: c.post("/v1/chat/completions", json=chat("pipe.mp4")),
    lambda c: c.post("/v1/chat/completions", json=chat("cut.mp4")),
    lambda c: c.post("/v1/chat/completions", json=chat("data:video/mp4;base64,AAAA")),
    lambda c: c.post("/v1/chat/completions", json=chat("http://169.254.169.254/x")),
    lambda c: c.post("/v1/chat/completions", json=chat("one.mp4", max_tokens=-1)),
    lambda c: c.post("/v1/chat/completions", json=chat("one.mp4", omnidrop={"method": "no"})),
    lambda c: c.post("/v1/chat/completions", json=chat("one.mp4", omnidrop={"start": 1e8})),
    lambda c: c.post("/v1/chat/completions", json=chat("one.mp4"), headers={"Host": "evil"}),
    lambda c: c.post("/v1/clips", content=b"\x00\x00\x00\x20ftypisom" + b"\xff" * 3000),
    lambda c: c.get("/v1/clips/clip:file-Li4vc2VjcmV0Lm1wNA/media"),
    lambda c: c.get("/%2e%2e/%2e%2e/etc/passwd"),
]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_a_crowd(serve: Callable[..., Place], root: Path, tmp_path: Path) -> None:
    """200 requests of eight clients, good and hostile, of which half leave before the reply."""
    place = serve(queue=64, cache=4_000_000)
    upload = media.write(tmp_path / "three.mp4", seconds=1, fps=8, size=(64, 48), first=30)
    mine = place.client.post("/v1/clips", content=upload.read_bytes()).json()["id"]
    good = [
        chat(url, question, stream=stream, temperature=temperature, seed=3)
        for url in ("one.mp4", "inner/two.mp4", mine)
        for question in (QUESTION, "Why?")
        for stream, temperature in ((False, 0), (True, 1.0))
    ]
    alone = [_answer(place.client.post("/v1/chat/completions", json=body)) for body in good]
    assert len(set(alone)) > 2
    folder = os.listdir("/proc/self/fd")
    chooser = random.Random(5)
    plan = [
        (chooser.randrange(len(good)), chooser.random() < 0.4, index % 2 == 0, chooser.random())
        for index in range(200)
    ]
    wrong: list[str] = []
    done = {"good": 0, "hostile": 0, "left": 0}

    async def one(
        client: httpx.AsyncClient, which: int, bad: bool, leaves: bool, at: float
    ) -> None:
        async def run() -> None:
            if bad:
                reply = await HOSTILE[which % len(HOSTILE)](client)
                done["hostile"] += 1
                if not 400 <= reply.status_code < 500 or "error" not in reply.json():
                    wrong.append(f"hostile {which}: {reply.status_code}")
                return
            reply = await client.post("/v1/chat/completions", json=good[which])
            done["good"] += 1
            if reply.status_code != 200 or _answer(reply) != alone[which]:
                wrong.append(f"good {which}: {reply.status_code} {reply.text[:200]}")

        if not leaves:
            await run()
            return
        try:
            await asyncio.wait_for(run(), at * 0.08)
        except TimeoutError:
            done["left"] += 1

    async def one_client(mine: list[Any]) -> None:
        async with httpx.AsyncClient(base_url=place.url, timeout=60) as client:
            for request in mine:
                await one(client, *request)

    async def crowd() -> None:
        await asyncio.gather(*(one_client(plan[start::8]) for start in range(8)))

    asyncio.run(crowd())
    assert wrong == []
    assert sum(done.values()) == 200
    assert min(done.values()) > 20
    wait_until(lambda: number(place, "queue_running") + number(place, "queue_waiting") == 0)
    # Nobody waits: a question gets its answer, and the same one.
    again = [_answer(place.client.post("/v1/chat/completions", json=body)) for body in good]
    assert again == alone
    assert number(place, "encodings") <= 3
    assert number(place, "encodings_bytes") <= 4_000_000
    gc.collect()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= len(folder) + 8)


def _answer(reply: Any) -> str:
    """Return the text of a reply, whole or streamed."""
    if "event-stream" not in reply.headers["content-type"]:
        return str(reply.json()["choices"][0]["message"]["content"])
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def test_opening_a_clip_takes_no_longer_than_the_request(
    serve: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that its reader takes long over holds neither the client nor the queue."""
    from omnidrop.serving import asking

    place, let_go = serve(timeout=0.5, queue=0), threading.Event()
    usual = asking.open_clip

    def slow(*rest: Any) -> Any:
        let_go.wait(20)
        return usual(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(asking, "open_clip", slow)
        reply = place.ask("one.mp4")
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    wait_until(lambda: place.ask("inner/two.mp4").status_code == 200, 30)
    let_go.set()
    wait_until(lambda: place.ask("one.mp4").status_code == 200, 30)

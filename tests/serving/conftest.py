"""A server with a tiny model in this process, and a folder of clips that it may read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from omnidrop.options import LoadOptions
from omnidrop.testing import media

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from omnidrop.serving.server import http_server  # noqa: E402
from omnidrop.serving.settings import HttpSettings  # noqa: E402
from omnidrop.serving.warm import WarmModel  # noqa: E402

if TYPE_CHECKING:
    from omnidrop.engine.model import Model

QUESTION = "What happens first?"


@dataclass(frozen=True)
class Place:
    """Where a server is, and what it may read.

    Attributes
    ----------
    url : str
    root : Path
    client : httpx.Client
        Of `url`.
    """

    url: str
    root: Path
    client: Any

    def ask(self, url: str | None = None, question: str = QUESTION, **fields: Any) -> Any:
        """Send a question about a clip."""
        body = chat(url, question, **fields)
        return self.client.post("/v1/chat/completions", json=body)


def chat(url: str | None, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """Return a request's document."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if url is not None:
        parts.insert(0, {"type": "video_url", "video_url": {"url": url}})
    messages = [{"role": "user", "content": parts}]
    return {"messages": messages, "max_tokens": 6, **fields}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, and beside it a file that nobody may read."""
    above = tmp_path_factory.mktemp("served")
    folder = above / "clips"
    (folder / "inner").mkdir(parents=True)
    sound = [{"hertz": 440}]
    media.write(folder / "one.mp4", seconds=2, fps=8, size=(64, 48), sounds=sound)
    media.write(folder / "inner" / "two.mp4", seconds=3, fps=8, size=(64, 48), sounds=sound)
    media.write(above / "secret.mp4", seconds=2, fps=8, size=(64, 48))
    (folder / "notes.txt").write_text("no clip\n" * 50)
    (folder / "cut.mp4").write_bytes((folder / "one.mp4").read_bytes()[:900])
    os.mkfifo(folder / "pipe.mp4")
    (folder / "out.mp4").symlink_to(above / "secret.mp4")
    (folder / "up").symlink_to(above)
    (folder / "again.mp4").symlink_to("inner/two.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    return folder


@pytest.fixture(scope="session")
def serve(model: Model, root: Path) -> Iterator[Callable[..., Place]]:
    """Start servers with settings of one's own; they end with the tests."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Place:
            settings = {"port": 0, "root": root, **settings}
            options = LoadOptions(model="tiny")
            warm = WarmModel(options, None, load=lambda options, progress: model)
            url = stack.enter_context(http_server(warm, HttpSettings(**settings)))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            return Place(url, root, client)

        yield start


@pytest.fixture(scope="session")
def place(serve: Callable[..., Place]) -> Place:
    """A server with the usual settings."""
    return serve()

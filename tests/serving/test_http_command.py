"""`omnidrop serve --http` as a process: its address, its options, its end; and the page of docs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from omnidrop.errors import UsageError
from omnidrop.serving.settings import HttpSettings
from omnidrop_cli.options.serve_http import API_KEY, HttpFlags
from tests.serving.conftest import Place, chat

ROOT = Path(__file__).parents[2]


def test_without_options_the_settings_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY, raising=False)
    assert HttpFlags().settings("127.0.0.1:8000") == HttpSettings()


def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("sesame\n")
    (tmp_path / "link").symlink_to(tmp_path)
    flags = HttpFlags(
        root=tmp_path / "link",
        api_key_file=tmp_path / "key",
        origins=["https://example.org"],
        hosts=["clips"],
        max_upload=8e9,
        queue=3,
        timeout=7.0,
        cache=1e6,
    )
    found = flags.settings("[::1]:9")
    assert (found.host, found.port, found.root) == ("[::1]", 9, tmp_path.resolve())
    assert (found.api_key, found.origins, found.hosts) == (
        "sesame",
        ("https://example.org",),
        ("clips",),
    )
    assert (found.max_upload, found.upload_space) == (8_000_000_000, 8_000_000_000)
    assert (found.queue, found.timeout, found.cache) == (3, 7.0, 1_000_000)
    monkeypatch.setenv(API_KEY, "open")
    assert HttpFlags().settings("localhost:0").api_key == "open"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"root": Path("/nowhere")}, "no folder"),
        ({"origins": ["*"]}, "no origin"),
        ({"queue": -1}, "--queue"),
    ],
)
def test_options_that_are_not_valid(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        HttpFlags(**fields)


@pytest.mark.parametrize("text", [None, "", "two words", "\n"])
def test_keys_that_are_none(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "key"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match="API key"):
        HttpFlags(api_key_file=file).settings("127.0.0.1:0")


@pytest.fixture
def process(folder: Path, root: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "run").mkdir(mode=0o700)
    variables = {
        "OMNIDROP_SOCKET": str(tmp_path / "run" / "s.sock"),
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "OMNIDROP_API_KEY": "sesame",
    }
    command = [sys.executable, "-m", "omnidrop_cli", "serve", "--model", str(folder)]
    command += ["--device", "cpu", "--http", "127.0.0.1:0", "--root", str(root)]
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **variables}
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
def test_the_command(process: subprocess.Popen[str], tmp_path: Path) -> None:
    assert process.stderr is not None
    said = process.stderr.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert address is not None, said
    headers = {"Authorization": "Bearer sesame"}
    with httpx.Client(base_url=address[0], timeout=60, headers=headers) as client:
        reply = client.post("/v1/chat/completions", json=chat("one.mp4"))
        assert reply.status_code == 200
        assert reply.json()["choices"][0]["message"]["content"]
        assert client.get("/v1/models", headers={"Authorization": ""}).status_code == 401
        assert client.get("/health").json()["loaded"] is True
    assert list(tmp_path.glob("omnidrop-serve-*"))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (0, 130)
    assert not list(tmp_path.glob("omnidrop-serve-*"))
    assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_the_examples_of_the_page(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    text = (ROOT / "docs" / "serve.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    shown: list[Any] = []
    code = code.replace("http://127.0.0.1:8000", place.url).replace("duet.mp4", "one.mp4")
    code = code.replace('"budget": 0.3', '"budget": 0.5')
    exec(code, {"print": lambda *words: shown.append(words)})
    assert len(shown) == 2
    (shell, body) = re.findall(r"```bash\ncurl (\S+) .*?-d '(.*?)'\n```", text, re.S)[0]
    address = shell.replace("http://127.0.0.1:8000", place.url)
    body = body.replace("duet.mp4", "one.mp4")
    json = {"Content-Type": "application/json"}
    assert httpx.post(address, content=body, headers=json, timeout=60).status_code == 200

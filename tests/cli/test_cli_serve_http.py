"""`omnidrop serve --http`: one model for commands and for requests."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
from fakes import TEXT
from hosts import Served

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow


def test_commands_and_requests_beside_each_other(tmp_path, clip) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    host = Served(folder, ("--http", "127.0.0.1:0"))
    try:
        line = host.start().said
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None
        assert str(host.socket) in line
        assert host.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"
        with urllib.request.urlopen(f"{found[0]}/health", timeout=30) as reply:
            assert reply.status == 200
        chat = host.start_call("chat", clip)
        host.until(lambda state: state["running"] == "chat")
        with urllib.request.urlopen(f"{found[0]}/v1/models", timeout=30) as reply:
            assert json.loads(reply.read())["object"] == "list"
        assert chat.communicate(b"What?\n", timeout=60)[0].decode() == f"{TEXT}\n"
        assert host.call("serve", "--stop")[0] == 0
        assert host.end() == (0, "")
    finally:
        if host.process is not None and host.process.poll() is None:
            host.process.kill()
            host.process.communicate()


def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    import socket

    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host = Served(folder)
        code, out, err = host.call("serve", "--model", "demo", "--http", f"127.0.0.1:{port}")
    assert (code, out) == (2, b"")
    assert b"cannot be listened on" in err
    assert not host.socket.exists()


def test_what_is_missing_is_named(run, monkeypatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    code, _, err = run("serve", "--http", "127.0.0.1:0")
    assert code == 2
    assert "pip install 'omnidrop[serve]'" in " ".join(err.split())

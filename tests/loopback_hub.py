"""A hub on this machine: the requests that a download makes, and what can go wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMITS = {"main": "a" * 40, "v2": "b" * 40}


@dataclass
class Hub:
    """What the hub holds, and how it behaves; tests change it while it runs.

    Attributes
    ----------
    files : dict
        Name to content, of every revision.
    status : dict
        Path ending to HTTP status: that request is refused.
    refusal : str
        The hub's code for it, like "GatedRepo".
    stall : dict
        File name to the bytes after which nothing more is sent.
    cut : dict
        File name to the bytes after which the connection is closed, once.
    silent : bool
        Answer nothing at all.
    asked : list
        (method, path, Range) of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    refusal: str = ""
    stall: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    silent: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def names(self) -> list[str]:
        """Names of the files that were asked for."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if "/resolve/" in path]


def contents(folder: Path) -> dict[str, bytes]:
    """Return a checkpoint's files, and one that nobody needs."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {**found, "modeling_evil.py": b"raise SystemExit", "pytorch_model.bin": b"x" * 100}


@contextmanager
def running(hub: Hub) -> Iterator[str]:
    """Run a hub; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, hub, body=True)

        def do_HEAD(self) -> None:
            answer(self, hub, body=False)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # It is stopped within an interval; the usual half second would be that of every test.
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()


def answer(request: BaseHTTPRequestHandler, hub: Hub, *, body: bool) -> None:
    path = request.path.partition("?")[0]
    hub.asked.append((request.command, path, request.headers.get("Range")))
    if hub.silent:
        hub.ended.wait(60)
        return
    refused = next((code for end, code in hub.status.items() if path.endswith(end)), None)
    if refused is not None:
        headers = {"X-Error-Code": hub.refusal} if hub.refusal else {}
        send(request, refused, b'{"error": "refused"}', headers, body)
    elif path.startswith("/api/models/"):
        send_list(request, hub, path, body)
    elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
        send_file(request, hub, found[3], body)
    else:
        send(request, 404, b"", {}, body)


def send_list(request: BaseHTTPRequestHandler, hub: Hub, path: str, body: bool) -> None:
    revision = path.partition("/revision/")[2] or "main"
    if revision not in {**COMMITS, **{c: c for c in COMMITS.values()}}:
        send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        return
    siblings = []
    for name, content in hub.files.items():
        entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
        entry["blobId"] = hashlib.sha1(content).hexdigest()
        if name.endswith(".safetensors"):
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
        siblings.append(entry)
    document = {
        "_id": "x",
        "id": path.removeprefix("/api/models/").partition("/revision/")[0],
        "sha": COMMITS.get(revision, revision),
        "siblings": siblings,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
    }
    send(request, 200, json.dumps(document).encode(), {"Content-Type": "application/json"}, body)


def send_file(request: BaseHTTPRequestHandler, hub: Hub, name: str, body: bool) -> None:
    content = hub.files[name]
    first, code = 0, 200
    if found := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or ""):
        first, code = int(found[1]), 206
    part = content[first:]
    request.send_response(code)
    request.send_header("Content-Length", str(len(part)))
    request.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
    if code == 206:
        request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
    request.end_headers()
    if not body:
        return
    if name in hub.stall:
        request.wfile.write(content[first : hub.stall[name]])
        request.wfile.flush()
        hub.ended.wait(60)
    elif name in hub.cut:
        request.wfile.write(content[first : hub.cut.pop(name)])
        request.wfile.flush()
        request.close_connection = True
        request.connection.close()
    else:
        request.wfile.write(part)


def send(
    request: BaseHTTPRequestHandler, code: int, content: bytes, headers: dict[str, str], body: bool
) -> None:
    request.send_response(code)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    if body:
        request.wfile.write(content)


def wait_until(true: Any, seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)

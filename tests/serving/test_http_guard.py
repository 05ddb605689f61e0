"""Who may ask, from where, and how much; and that one bad request harms no other."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from omnidrop.errors import UsageError
from omnidrop.options import LoadOptions
from omnidrop.serving.server import http_server
from omnidrop.serving.settings import HttpSettings
from omnidrop.serving.warm import WarmModel
from tests.serving.conftest import Place, chat

PATHS = ("/v1/models", "/v1/clips", "/metrics")


def raw(place: Place, data: bytes, seconds: float = 5.0) -> bytes:
    """Send bytes, and return what comes back until the connection ends or is silent."""
    address = urlsplit(place.url)
    found = b""
    with socket.create_connection((address.hostname, address.port), timeout=seconds) as link:
        link.sendall(data)
        try:
            while piece := link.recv(65536):
                found += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return found


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_other_names_are_refused(place: Place, host: str) -> None:
    for path in ("/", "/health", *PATHS):
        reply = place.client.get(path, headers={"Host": host})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "unknown_host")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:9", "[::1]:8"])
def test_names_of_this_machine(place: Place, host: str) -> None:
    assert place.client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_a_further_name(serve: Callable[..., Place]) -> None:
    place = serve(hosts=("clips.example",))
    assert place.client.get("/health", headers={"Host": "clips.example:80"}).status_code == 200
    assert place.client.get("/health", headers={"Host": "other.example"}).status_code == 403


def test_pages_of_other_sites_are_refused(place: Place) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        reply = place.client.get("/v1/clips", headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "cross_origin")
        assert "access-control-allow-origin" not in reply.headers
    same = place.client.get("/v1/clips", headers={"Origin": place.url})
    assert same.status_code == 200
    preflight = place.client.options("/v1/clips", headers={"Origin": "https://evil.example"})
    assert preflight.status_code == 403


def test_an_allowed_site(serve: Callable[..., Place]) -> None:
    site = "https://example.org"
    place = serve(origins=(site,), api_key="sesame")
    preflight = place.client.options(
        "/v1/clips", headers={"Origin": site, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == site
    headers = {"Origin": site, "Sec-Fetch-Site": "cross-site", "Authorization": "Bearer sesame"}
    reply = place.client.get("/v1/clips", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == site
    assert reply.headers["vary"] == "Origin"
    other = place.client.get("/v1/clips", headers={**headers, "Origin": "https://other.org"})
    assert other.status_code == 403


def test_the_api_key(serve: Callable[..., Place]) -> None:
    place = serve(api_key="sesame")
    for path in PATHS:
        for given in (None, "Bearer", "Bearer open", "Basic sesame", "sesame", "Bearer sesamé"):
            headers = {"Authorization": given.encode()} if given is not None else {}
            reply = place.client.get(path, headers=headers)
            assert reply.status_code == 401, given
            assert reply.json()["error"]["code"] == "invalid_api_key"
        right = {"Authorization": "bearer sesame"}
        assert place.client.get(path, headers=right).status_code == 200
    assert place.client.get("/health").status_code == 200
    assert place.ask("one.mp4").status_code == 401


def test_media_of_a_server_with_a_key(serve: Callable[..., Place]) -> None:
    """A player sends no key; the address that a listing gives is signed."""
    place = serve(api_key="sesame")
    headers = {"Authorization": "Bearer sesame"}
    one, two, *_ = place.client.get("/v1/clips", headers=headers).json()["data"]
    assert place.client.get(one["media"]).status_code == 200
    bare = one["media"].partition("?")[0]
    assert place.client.get(bare).status_code == 401
    assert place.client.get(bare, headers=headers).status_code == 200
    other = two["media"].partition("?")[2]
    assert place.client.get(f"{bare}?{other}").status_code == 401


def test_what_replies_say(place: Place) -> None:
    for path in ("/health", "/v1/models", "/nothing", "/v1/clips/clip:nothing"):
        headers = place.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_the_page_may_load_its_own_files_alone(
    tmp_path: Path, model: Any, monkeypatch: Any
) -> None:
    from omnidrop.serving import app

    (tmp_path / "index.html").write_text("<!doctype html><title>x</title>")
    (tmp_path / "app.js").write_text("1")
    (tmp_path.parent / "outside.txt").write_text("secret")
    monkeypatch.setattr(app.make_app, "__defaults__", (tmp_path,))
    warm = WarmModel(LoadOptions(model="tiny"), None, load=lambda options, progress: model)
    import httpx

    with http_server(warm, HttpSettings(port=0)) as url, httpx.Client(base_url=url) as client:
        reply = client.get("/")
        assert reply.text.startswith("<!doctype html>")
        policy = reply.headers.get_list("content-security-policy")
        assert len(policy) == 1
        assert "script-src 'self'" in policy[0]
        assert "unsafe" not in policy[0]
        assert client.get("/app.js").headers["content-type"].startswith("text/javascript")
        for path in ("/%2e%2e/outside.txt", "/..%2foutside.txt", "/absent.js"):
            assert client.get(path).status_code == 404
        # Opened from a link elsewhere, the page is shown; its data are not.
        assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/clips/clip:nothing/media", 404),
    ],
)
def test_routes_that_are_not_there(place: Place, method: str, path: str, status: int) -> None:
    reply = place.client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"[" * 200_000, {"Content-Type": "application/json"}, 400),
        (b"\xff\xfe\x00", {"Content-Type": "application/json"}, 400),
    ],
)
def test_bodies_that_are_no_request(
    place: Place, body: bytes, headers: dict[str, str], status: int
) -> None:
    reply = place.client.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == status
    assert place.ask("one.mp4").status_code == 200


def test_a_body_that_is_too_large(serve: Callable[..., Place]) -> None:
    place = serve(max_inline=1000)

    def endless() -> Any:
        for _ in range(200):
            yield b" " * 50_000

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 3_000_000, endless()):
        reply = place.client.post("/v1/chat/completions", content=content, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert place.ask("one.mp4").status_code == 200


def test_bytes_that_are_no_http(place: Place) -> None:
    assert b" 400 " in raw(place, b"\x00\x01\x02\r\n\r\n")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    assert b" 400 " in raw(place, head + b"Content-Length: -5\r\n\r\n")
    assert b" 200 " not in raw(place, head + b"X: " + b"a" * 200_000 + b"\r\n\r\n")
    # A body that ends before its announced length, from a client that has left.
    json = b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    raw(place, head + json, seconds=0.2)
    assert place.ask("one.mp4").status_code == 200


def test_an_internal_error_tells_nothing(
    serve: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnidrop.serving import asking

    log = io.StringIO()
    place = serve(log=log)

    def broken(*_: Any) -> Any:
        raise KeyError("/home/me/secret")

    with monkeypatch.context() as patch:
        patch.setattr(asking, "method_of", broken)
        for stream in (False, True):
            reply = place.client.post("/v1/chat/completions", json=chat("one.mp4", stream=stream))
            assert reply.status_code == 500
            assert "secret" not in reply.text
    assert "secret" in log.getvalue()
    assert place.ask("one.mp4").status_code == 200


def test_an_address_that_is_taken(model: Any) -> None:
    warm = WarmModel(LoadOptions(model="tiny"), None, load=lambda options, progress: model)
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = HttpSettings(port=other.getsockname()[1])
        with pytest.raises(UsageError, match="cannot be listened on"), http_server(warm, settings):
            pass
    absent = HttpSettings(host="no.such.host.invalid", port=0)
    with pytest.raises(UsageError, match="cannot be listened on"), http_server(warm, absent):
        pass


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 70000},
        {"queue": -1},
        {"timeout": 0},
        {"max_upload": 0},
        {"cache": -1},
        {"api_key": ""},
        {"api_key": "two words"},
        {"origins": ("*",)},
        {"origins": ("example.org",)},
        {"origins": ("https://example.org/",)},
        {"root": Path("/nowhere/at/all")},
    ],
)
def test_settings_that_are_not_valid(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HttpSettings(**fields)


def test_a_key_is_not_shown() -> None:
    assert "sesame" not in repr(HttpSettings(api_key="sesame"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert HttpSettings(host=host).loopback is loopback

"""Nothing is read but clips below the folder, uploads, and what stands in the request itself."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from omnidrop.serving.problems import Refused
from omnidrop.serving.sources import Root, file_name
from omnidrop.testing import media
from tests.serving.conftest import Place

OUTSIDE = [
    "../secret.mp4",
    "inner/../../secret.mp4",
    "/etc/passwd",
    "file:///etc/passwd",
    "file:../secret.mp4",
    "file:///proc/self/environ",
    "out.mp4",
    "up/secret.mp4",
    "%2e%2e/secret.mp4",
    "file://localhost/etc/passwd",
]


@pytest.mark.parametrize("url", OUTSIDE)
def test_what_lies_outside_is_not_opened(place: Place, url: str) -> None:
    reply = place.ask(url)
    assert reply.status_code in (403, 404)
    assert reply.json()["error"]["code"] in ("outside_root", "clip_not_found")


def test_what_exists_elsewhere_is_not_told(place: Place) -> None:
    there = place.ask(str(place.root.parent / "secret.mp4"))
    absent = place.ask(str(place.root.parent / "absent.mp4"))
    assert (there.status_code, there.json()["error"]["code"]) == (403, "outside_root")
    assert (absent.status_code, absent.json()["error"]["code"]) == (403, "outside_root")


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("absent.mp4", 404, "clip_not_found"),
        ("loop.mp4", 403, "outside_root"),
        (".", 403, "outside_root"),
        ("", 404, "clip_not_found"),
        ("one.mp4\0", 404, "clip_not_found"),
        ("a" * 5000, 404, "clip_not_found"),
        ("inner", 400, None),
        ("pipe.mp4", 400, None),
        ("notes.txt", 400, "invalid_clip"),
        ("cut.mp4", 400, "invalid_clip"),
        ("http://127.0.0.1:1/a.mp4", 400, "unsupported_url"),
        ("HTTPS://example.org/a.mp4", 400, "unsupported_url"),
        ("rtsp://example.org/a", 400, "unsupported_url"),
        ("concat:one.mp4|inner/two.mp4", 404, "clip_not_found"),
        ("subfile,,start,0,end,9,,:one.mp4", 404, "clip_not_found"),
        ("pipe:0", 404, "clip_not_found"),
        ("file://elsewhere/one.mp4", 400, "unsupported_url"),
        ("file://[/one.mp4", 400, "unsupported_url"),
        ("file:///one.mp4?x=1", 400, "unsupported_url"),
        ("clip:nothing", 404, "clip_not_found"),
        ("clip:file-####", 404, "clip_not_found"),
        ("clip:file-Li4vc2VjcmV0Lm1wNA", 403, "outside_root"),
        ("data:video/mp4;base64,!!!!", 400, "invalid_base64"),
        ("data:video/mp4;base64,AAA", 400, "invalid_base64"),
        ("data:video/mp4;base64,AA AA", 400, "invalid_base64"),
        ("data:video/mp4;base64,", 400, "invalid_clip"),
        ("data:video/mp4,hello", 400, "invalid_url"),
        ("data:text/html;base64,AAAA", 400, "invalid_clip"),
        ("data:video/mp4;base64,AAAA", 400, "invalid_clip"),
        ("data:", 400, "invalid_url"),
    ],
)
def test_what_is_no_clip(place: Place, url: str, status: int, code: str | None) -> None:
    reply = place.ask(url)
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["code"] == code
    assert place.ask("one.mp4").status_code == 200


def test_a_playlist_reads_nothing_else(place: Place, serve: Callable[..., Place]) -> None:
    """Formats that name other files are refused, whatever type the request says they have."""
    secret = place.root.parent / "secret.mp4"
    for text in (f"#EXTM3U\n{secret}\n", f"ffconcat version 1.0\nfile '{secret}'\n"):
        url = f"data:video/mp4;base64,{base64.b64encode(text.encode()).decode()}"
        reply = place.ask(url)
        assert reply.status_code == 400
        assert "refers to other files" in reply.json()["error"]["message"]


def test_without_a_folder_no_file_is_read(serve: Callable[..., Place], root: Path) -> None:
    place = serve(root=None)
    for url in ("one.mp4", str(root / "one.mp4"), "clip:file-b25lLm1wNA"):
        reply = place.ask(url)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "no_root")
    assert place.client.get("/v1/clips").json()["data"] == []


def test_settings_that_name_files(place: Place) -> None:
    for method, name in (("contextguard", "predictor"), ("contextguard+fastv", "entry.predictor")):
        wanted = {"method": method, "settings": {name: str(place.root.parent)}}
        reply = place.ask("one.mp4", omnidrop=wanted)
        assert reply.status_code == 400
        assert "names a file" in reply.json()["error"]["message"]
    reply = place.ask("one.mp4", omnidrop={"preset": str(place.root.parent / "p.json")})
    assert "published preset" in reply.json()["error"]["message"]


def test_inline_clips_have_a_limit(serve: Callable[..., Place], root: Path) -> None:
    size = (root / "one.mp4").stat().st_size
    place = serve(max_inline=size - 1)
    data = base64.b64encode((root / "one.mp4").read_bytes()).decode()
    reply = place.ask(f"data:video/mp4;base64,{data}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert place.ask("one.mp4").status_code == 200


@pytest.fixture
def below(tmp_path: Path) -> Root:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "inner" / "a.bin").write_bytes(b"inside")
    return Root(tmp_path / "root", tmp_path / "links")


def test_an_open_source_stays_what_it_was(below: Root, tmp_path: Path) -> None:
    """What takes a file's place after it was opened is not read."""
    inside = tmp_path / "root" / "inner" / "a.bin"
    with below.open("inner/a.bin") as source:
        inside.rename(tmp_path / "root" / "b.bin")
        inside.symlink_to(tmp_path / "secret")
        assert source.path.read_bytes() == b"inside"
        assert source.path.suffix == ".bin"
    assert not any((tmp_path / "links").iterdir())
    with pytest.raises(Refused, match="outside"):
        below.open("inner/a.bin")


@pytest.mark.slow
def test_a_symlink_in_a_race_is_not_followed(below: Root, tmp_path: Path) -> None:
    """A name that is a file now and a symlink out of the folder a moment later."""
    name, there = tmp_path / "root" / "race", tmp_path / "root" / "inner" / "a.bin"
    stop = threading.Event()

    def swap() -> None:
        with_link, with_file = tmp_path / "root" / "l", tmp_path / "root" / "f"
        while not stop.is_set():
            with_link.symlink_to(tmp_path / "secret")
            os.replace(with_link, name)
            os.link(there, with_file)
            os.replace(with_file, name)

    thread = threading.Thread(target=swap)
    thread.start()
    read: set[bytes] = set()
    try:
        for _ in range(3000):
            try:
                with below.open("race") as source:
                    read.add(source.path.read_bytes())
            except Refused as refused:
                read.add(str(refused.code).encode())
    finally:
        stop.set()
        thread.join()
    assert b"inside" in read
    assert b"outside_root" in read
    assert read <= {b"inside", b"outside_root", b"clip_not_found"}


@pytest.mark.slow
def test_nothing_stays_open(serve: Callable[..., Place], tmp_path: Path) -> None:
    """Requests that fail close what they opened; a session that was closed closes its files."""
    for index in range(3):
        media.write(tmp_path / f"{index}.mp4", seconds=1, fps=8, size=(64, 48))
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 500)
    place = serve(root=tmp_path, cache=0)
    place.ask("0.mp4")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for index in range(3):
        assert place.ask(f"{index}.mp4").status_code == 200
    for _ in range(5):
        assert place.ask("bad.mp4").status_code == 400
        assert place.ask("0.mp4", omnidrop={"start": 50}).status_code == 400
        assert place.ask("0.mp4", omnidrop={"method": "nothing"}).status_code == 400
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("a b.mp4", "a b.mp4"),
        ("file:///x/a%20b.mp4", "/x/a b.mp4"),
        ("file:a.mp4", "a.mp4"),
        ("a%20b.mp4", "a%20b.mp4"),
        ("/x/y.mp4", "/x/y.mp4"),
    ],
)
def test_the_path_of_a_url(url: str, path: str) -> None:
    assert file_name(url) == path

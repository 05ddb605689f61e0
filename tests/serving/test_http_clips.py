"""Clips that are uploaded, listed, played and estimated."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from omnidrop.serving.media import Part, asked_part
from omnidrop.serving.problems import Refused
from omnidrop.serving.uploads import PREFIX, Uploads, remove_left_over
from omnidrop.testing import media
from tests.serving.conftest import Place


def upload(place: Place, path: Path, name: str = "clip.mp4") -> Any:
    headers = {"X-File-Name": quote(name)}
    return place.client.post("/v1/clips", content=path.read_bytes(), headers=headers)


def test_an_uploaded_clip_can_be_asked_about(serve: Callable[..., Place], root: Path) -> None:
    place = serve(root=None)
    reply = upload(place, root / "one.mp4", "Früh am Morgen.mp4")
    assert reply.status_code == 201
    clip = reply.json()
    assert clip["name"] == "Früh am Morgen.mp4"
    assert (clip["width"], clip["height"], clip["fps"], clip["audio"]) == (64, 48, 8.0, True)
    assert clip["duration"] == pytest.approx(2.0, abs=0.1)
    assert place.client.get(f"/v1/clips/{clip['id']}").json() == clip
    (listed,) = place.client.get("/v1/clips").json()["data"]
    assert (listed["id"], listed["from"]) == (clip["id"], "upload")
    answer = place.ask(clip["id"], omnidrop={"report": True}).json()
    assert answer["choices"][0]["message"]["content"]
    assert answer["omnidrop"]["report"]["trace"]["clip"]["path"] == "Früh am Morgen.mp4"
    assert place.client.delete(f"/v1/clips/{clip['id']}").status_code == 200
    assert place.ask(clip["id"]).status_code == 404
    assert place.client.get("/v1/clips").json()["data"] == []


def test_a_form(serve: Callable[..., Place], root: Path) -> None:
    place = serve(root=None)
    content = (root / "one.mp4").read_bytes()
    files = {"note": (None, "hello"), "file": ("a.mp4", content, "video/mp4")}
    reply = place.client.post("/v1/clips", files=files)
    assert reply.status_code == 201
    assert reply.json()["name"] == "a.mp4"
    assert place.client.get(reply.json()["media"]).content == content
    # Sent twice, it is one clip.
    assert upload(place, root / "one.mp4", "b.mp4").json()["id"] == reply.json()["id"]


def test_forms_that_are_none(place: Place) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    two = (
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="b"; filename="b"\r\n\r\n2\r\n--x--\r\n'
    )
    bodies = [
        (b"nothing", kind),
        (b"--x\r\n", kind),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nhello\r\n--x--\r\n', kind),
        (b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\nhel', kind),
        (two, kind),
        (b"", {"Content-Type": "multipart/form-data"}),
    ]
    for body, headers in bodies:
        assert place.client.post("/v1/clips", content=body, headers=headers).status_code == 400


def test_what_is_no_clip_is_not_kept(serve: Callable[..., Place]) -> None:
    place = serve(root=None)
    for content in (b"", b"hello", b"<html><script>alert(1)</script></html>", b"\0" * 5000):
        reply = place.client.post("/v1/clips", content=content)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_clip")
    assert place.client.get("/v1/clips").json()["data"] == []
    assert "omnidrop_uploads_bytes 0\n" in place.client.get("/metrics").text


def test_an_upload_that_is_too_large(serve: Callable[..., Place], root: Path) -> None:
    content = (root / "one.mp4").read_bytes()
    place = serve(root=None, max_upload=len(content) - 1)

    def pieces() -> Any:
        yield content[:1000]
        yield content[1000:]

    for body in (content, pieces()):
        reply = place.client.post("/v1/clips", content=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    form = {"file": ("a.mp4", content, "video/mp4")}
    assert place.client.post("/v1/clips", files=form).status_code == 413
    assert place.client.get("/v1/clips").json()["data"] == []


def test_the_longest_unused_makes_room(
    serve: Callable[..., Place], root: Path, tmp_path: Path
) -> None:
    other = media.write(tmp_path / "b.mp4", seconds=2, fps=8, size=(64, 48), first=9)
    sizes = [(root / "one.mp4").stat().st_size, other.stat().st_size]
    place = serve(root=None, upload_space=max(sizes) + 10)
    first = upload(place, root / "one.mp4").json()["id"]
    second = upload(place, other).json()["id"]
    assert [one["id"] for one in place.client.get("/v1/clips").json()["data"]] == [second]
    assert place.ask(first).status_code == 404


def test_unused_clips_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uploads = Uploads(1000, 0.05)
    with uploads.draft(100) as draft:
        draft.write(b"hello")
        kept = uploads.keep(draft, "../../a b\n.mp4")
    assert kept.name == "a b.mp4"
    assert kept.path.read_bytes() == b"hello"
    assert (kept.path.stat().st_mode | uploads.folder.stat().st_mode) & 0o077 == 0
    with uploads.open(kept) as source:
        time.sleep(0.1)
        assert uploads.listed() == []
        assert not kept.path.exists()
        assert source.path.read_bytes() == b"hello"  # it is open still
    with pytest.raises(Refused):
        uploads.find(kept.id)
    uploads.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_received_counts_as_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uploads = Uploads(10, 60)
    with uploads.draft(8) as one:
        one.write(b"1234567")
        with pytest.raises(Refused) as caught, uploads.draft(8) as two:
            two.write(b"1234567")
        assert caught.value.status == 429
    with uploads.draft(8) as three:
        three.write(b"1234567")
    uploads.close()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uploads = Uploads(1000, 60)
    with uploads.draft(100) as draft, full.open("wb", buffering=0) as file:
        draft._handle = file  # type: ignore[assignment]
        with pytest.raises(Refused) as caught:
            draft.write(b"hello")
    assert caught.value.status == 507
    uploads.close()


def test_folders_of_servers_that_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "clip").write_bytes(b"x")
    (tmp_path / f"{PREFIX}link").symlink_to("/etc")
    uploads = Uploads(1000, 60)
    assert not dead.exists()
    remove_left_over()
    assert uploads.folder.is_dir()
    uploads.close()


def test_files_of_the_folder_are_listed(place: Place) -> None:
    found = place.client.get("/v1/clips").json()
    names = [one["name"] for one in found["data"] if one["from"] == "root"]
    # Neither what leads out of the folder, nor a pipe, nor what is no media file by its name.
    assert names == ["cut.mp4", "one.mp4", "inner/two.mp4"]
    assert found["has_more"] is False
    one = next(one for one in found["data"] if one["name"] == "inner/two.mp4")
    assert place.client.get(f"/v1/clips/{one['id']}").json()["duration"] == pytest.approx(
        3, abs=0.1
    )
    assert place.ask(one["id"]).status_code == 200
    assert place.client.delete(f"/v1/clips/{one['id']}").status_code == 403


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", None),
        ("bytes=0-", Part(0, 100)),
        ("bytes=10-19", Part(10, 20)),
        ("bytes=90-900", Part(90, 100)),
        ("bytes=-10", Part(90, 100)),
        ("bytes=-900", Part(0, 100)),
        ("bytes=20-10", None),
        ("bytes=1-2,5-6", None),
        ("bytes=-", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_the_part_that_is_asked_for(text: str, part: Part | None) -> None:
    assert asked_part(text, 100) == part


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=-0", "bytes=500-600"])
def test_a_part_behind_the_end(text: str) -> None:
    with pytest.raises(ValueError, match="behind the end"):
        asked_part(text, 100)


def test_a_player_reads_parts(place: Place, root: Path) -> None:
    clips = place.client.get("/v1/clips").json()["data"]
    address = next(one["media"] for one in clips if one["name"] == "one.mp4")
    content = (root / "one.mp4").read_bytes()
    whole = place.client.get(address)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    part = place.client.get(address, headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, content[5:15])
    assert part.headers["content-range"] == f"bytes 5-14/{len(content)}"
    end = place.client.get(
        address, headers={"Range": "bytes=-7", "If-Range": whole.headers["etag"]}
    )
    assert end.content == content[-7:]
    changed = place.client.get(address, headers={"Range": "bytes=-7", "If-Range": '"other"'})
    assert changed.content == content
    assert place.client.get(address, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    head = place.client.head(address)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))


def test_what_is_sent_is_never_a_page(serve: Callable[..., Place], root: Path) -> None:
    place = serve(root=None)
    clip = upload(place, root / "one.mp4", "page.html").json()
    reply = place.client.get(clip["media"])
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_an_estimate_is_that_of_the_answer(serve: Callable[..., Place], folder: Path) -> None:
    import httpx

    from omnidrop.options import LoadOptions
    from omnidrop.serving.server import http_server
    from omnidrop.serving.settings import HttpSettings
    from omnidrop.serving.warm import WarmModel

    options = LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True)
    root = serve().root
    settings = HttpSettings(port=0, root=root)
    with (
        http_server(WarmModel(options, None), settings) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        place = Place(url, root, client)
        listed = client.get("/v1/clips").json()["data"]
        clip = next(one["id"] for one in listed if one["name"] == "one.mp4")
        wanted = {"budget": 0.5, "method": "fastv"}
        told = client.post(
            f"/v1/clips/{clip}/estimate", json={**wanted, "question": "What happens first?"}
        ).json()
        answer = place.ask("one.mp4", omnidrop={**wanted, "report": True}).json()
        trace = answer["omnidrop"]["report"]["trace"]
        # Exact but for what the header does not say: AAC pads the audio's end.
        assert told["tokens"]["text"] == trace["text_tokens"]
        assert told["tokens"]["video"] == trace["video_tokens"]
        assert told["tokens"]["audio"] == pytest.approx(trace["audio_tokens"], abs=1)
        assert told["kept_in_layers"] == pytest.approx(trace["planned"], abs=1)
        assert told["prefill_tflops"] * 1e12 == pytest.approx(trace["flops_prefill"], rel=0.01)
        assert told["share"] == pytest.approx(trace["realised_budget"], abs=0.01)
        assert told["seconds"] < told["unpruned"]["seconds"]
        assert client.post(f"/v1/clips/{clip}/estimate", json={}).status_code == 200
        for wrong in ({"budget": 2}, {"method": "nothing"}, {"choices": ["a"]}, {"nothing": 1}):
            assert client.post(f"/v1/clips/{clip}/estimate", json=wrong).status_code == 400

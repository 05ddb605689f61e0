"""Saved answers: JSON, HTML, SVG and text; whole, escaped, and loading nothing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import fakes
import pytest
from pages import Page

NASTY = '<script>alert("x")</script> & </pre> [red]?'


def save(run, clip, path, question=NASTY, *more: str) -> str:
    code, _, err = run("ask", clip, question, "--save", path, *more)
    assert (code, err) == (0, "")
    return path.read_text("utf-8")


def test_json(run, fake, clip, tmp_path) -> None:
    found = json.loads(save(run, clip, tmp_path / "r.json"))
    assert found["schema"] == "omnidrop.answer/1"
    assert found["question"] == NASTY


def test_text(run, fake, clip, tmp_path) -> None:
    text = save(run, clip, tmp_path / "r.txt")
    assert "\x1b" not in text
    assert fakes.TEXT in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_svg_is_well_formed_and_refers_to_nothing(run, fake, clip, tmp_path) -> None:
    text = save(run, clip, tmp_path / "r.svg")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    said = " ".join(e.text or "" for e in root.iter() if e.tag.endswith("text"))
    assert "Tokens entering each layer" in said
    assert fakes.TEXT in said
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in text


def test_html_is_escaped_and_self_contained(run, fake, clip, tmp_path) -> None:
    text = save(run, clip, tmp_path / "r.html")
    page = Page.read(tmp_path / "r.html")
    assert page.tags.count("script") == 2  # the data, and the jumps of the player
    assert "@import" not in text
    assert page.value()["question"] == NASTY
    assert "&lt;script&gt;" in text
    assert "<script>alert" not in text


def test_several_answers_and_failures_in_one_file(run, fake, clip, tmp_path) -> None:
    for suffix in ("html", "svg", "txt", "json"):
        path = tmp_path / f"all.{suffix}"
        code, _, _ = run("ask", clip, "-q", "One?", "-q", "memory?", "--save", path)
        text = path.read_text("utf-8")
        assert code == 6
        assert "One?" in text
        assert "Not enough memory." in text


def test_several_files_of_one_call(run, fake, clip, tmp_path, monkeypatch) -> None:
    paths = [tmp_path / f"r.{suffix}" for suffix in ("json", "html", "txt")]
    words = [word for path in (*paths, paths[0]) for word in ("--save", path)]
    assert run("ask", clip, "What?", *words)[0] == 0
    assert json.loads(paths[0].read_text("utf-8"))["question"] == "What?"
    assert fakes.TEXT in paths[1].read_text("utf-8")
    assert fakes.TEXT in paths[2].read_text("utf-8")
    paths[0].unlink()
    code, _, err = run("ask", clip, "What?", *words)
    assert code == 2
    assert "r.html: The file exists." in err
    assert not paths[0].exists()  # all are checked before anything is asked
    monkeypatch.setenv("OMNIDROP_SAVE", f"{tmp_path}/a.json\n{tmp_path}/b.svg")
    assert run("ask", clip, "What?")[0] == 0
    assert (tmp_path / "a.json").exists()
    assert (tmp_path / "b.svg").exists()


def test_nothing_is_saved_when_nothing_was_answered(run, fake, clip, tmp_path) -> None:
    path = tmp_path / "r.html"
    assert run("ask", clip, "memory?", "--save", path)[0] == 5
    assert not path.exists()


def test_a_failed_write_leaves_no_trace(monkeypatch, tmp_path) -> None:
    import os

    from omnidrop import files as saving
    from omnidrop.errors import UsageError

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UsageError, match="No space left"):
        saving.write_whole(tmp_path / "r.txt", "text", force=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path) -> None:
    from omnidrop import files as saving
    from omnidrop.errors import UsageError

    path = tmp_path / "r.txt"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        saving.write_whole(path, "text", force=False)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["r.txt"]


def test_drawn_blocks_stay_within_the_drawing(run, fake, clip, tmp_path) -> None:
    root = ElementTree.fromstring(save(run, clip, tmp_path / "r.svg"))
    width, height = (float(root.get(k) or 0) for k in ("width", "height"))
    boxes = [e for e in root.iter() if e.tag.endswith("rect") and e.get("x")]
    assert len(boxes) > 500
    for box in boxes:
        x, y, w, h = (float(box.get(k) or 0) for k in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        assert re.fullmatch(r"#[0-9a-f]{6}", box.get("fill") or "#000000")

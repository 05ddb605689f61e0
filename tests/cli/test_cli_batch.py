"""`omnidrop batch`: manifests, resuming, failures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnidrop_cli.files.manifest import done_before, read_manifest


@pytest.fixture
def manifest(clip: Path) -> Path:
    path = clip.with_name("questions.jsonl")
    rows = [
        {"id": "a", "clip": clip.name, "question": "What plays?"},
        {"id": "b", "clip": "none.mp4", "question": "What?"},
        {"id": "c", "clip": clip.name, "question": "Which?", "choices": ["red, white", "blue"]},
        {"id": "d", "clip": clip.name, "question": "Then?", "start": "0:10", "end": 20},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    return path


def written(path: Path) -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}


def test_batch(run, fake, manifest, tmp_path) -> None:
    out = tmp_path / "answers.jsonl"
    code, stdout, err = run("batch", manifest, "--out", out)
    found = written(out)
    assert (code, stdout) == (6, "")
    assert "3 answered, 1 failed" in err
    assert "omnidrop: error: b: " in err
    assert found["a"]["schema"] == "omnidrop.answer/1"
    assert found["b"]["schema"] == "omnidrop.error/1"
    assert found["b"]["exit_code"] == 3
    assert found["c"]["text"] == "red, white"
    assert [e for e in fake.log if e.startswith("open")] == ["open concert.mp4"] * 2


def test_batch_tells_of_an_answer_without_a_word(run, fake, clip, tmp_path, monkeypatch) -> None:
    import fakes

    monkeypatch.setattr(fakes, "TEXT", "")
    path = clip.with_name("one.jsonl")
    path.write_text(json.dumps({"id": "a", "clip": clip.name, "question": "What?"}), "utf-8")
    code, _, err = run("batch", path, "--out", tmp_path / "answers.jsonl")
    assert code == 0
    assert "omnidrop: notice: a: The model answered with nothing." in err


def test_batch_goes_on_where_it_was(run, fake, manifest, tmp_path) -> None:
    out = tmp_path / "answers.jsonl"
    run("batch", manifest, "--out", out)
    before = out.read_bytes()
    fake.log.clear()
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 6
    assert "4 done before" in err
    assert (fake.log, out.read_bytes()) == ([], before)
    manifest.with_name("none.mp4").write_bytes(b"x")
    code, _, err = run("batch", manifest, "--out", out, "--retry")
    assert code == 0
    assert "1 answered, 0 failed, 3 done before" in err
    assert run("batch", manifest, "--out", out)[0] == 0


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(run, fake, clip, tmp_path) -> None:
    rows = [{"id": q, "clip": clip.name, "question": q} for q in ("One?", "interrupt?", "Three?")]
    manifest = clip.with_name("q.jsonl")
    manifest.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    out = tmp_path / "answers.jsonl"
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 130
    assert set(written(out)) == {"One?"}
    said = f"omnidrop: interrupted: 1 of 3 rows are in {out}. The same command goes on"
    assert said in err
    manifest.write_text(manifest.read_text("utf-8").replace('"interrupt?"', '"Two?"'), "utf-8")
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 0
    assert "2 answered, 0 failed, 1 done before" in err


def test_a_line_cut_off_by_a_kill_is_asked_again(run, fake, manifest, tmp_path) -> None:
    out = tmp_path / "answers.jsonl"
    run("batch", manifest, "--out", out, "--quiet")
    whole = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(whole[:2]) + whole[2][: len(whole[2]) // 2])
    fake.log.clear()
    run("batch", manifest, "--out", out, "--quiet")
    assert set(written(out)) == {"a", "b", "c", "d"}
    assert [e for e in fake.log if e.startswith("ask")] == ["ask concert.mp4 Then?"]


ABORT = """
import os, sys
from pathlib import Path
from omnidrop.begun import Begun
with Begun(Path(sys.argv[1]), sys.argv[2]) as begun, begun.reading(Path(sys.argv[3]), None, None):
    os.abort()
"""


def crash(folder: Path, prefix: str, clip: Path) -> None:
    """Let a process end while it reads a clip."""
    subprocess.run([sys.executable, "-c", ABORT, folder, prefix, clip], check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_clip_that_ended_the_process_costs_its_rows_alone(run, fake, clip, tmp_path) -> None:
    other = clip.with_name("other.mp4")
    other.write_bytes(b"another clip")
    rows = [{"id": name, "clip": name, "question": "What?"} for name in (clip.name, other.name)]
    manifest, out = clip.with_name("q.jsonl"), tmp_path / "answers.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    crash(tmp_path, ".answers.jsonl.begun", clip)
    code, _, err = run("batch", manifest, "--out", out)
    found = written(out)
    assert code == 6
    assert "ended the whole process in an earlier call (Aborted)" in err
    assert found[clip.name]["exit_code"] == 3
    assert found[other.name]["schema"] == "omnidrop.answer/1"
    assert run("batch", manifest, "--out", out, "--retry")[0] == 0
    assert not list(tmp_path.glob(".answers*"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ask_goes_on_after_a_clip_that_ended_the_process(run, fake, clip) -> None:
    from omnidrop.begun import state_folder

    other = clip.with_name("other.mp4")
    shutil.copy(clip, other)
    os.utime(other, ns=(1, 1))
    crash(state_folder(), "ask", clip)
    for _ in range(2):
        code, stdout, err = run("ask", clip, other, "What?")
        assert code == 6
        assert "ended the whole process" in err
        assert "other.mp4" in stdout
    assert run("ask", other, clip.with_name("concert.mp4"), "-q", "What?")[0] == 6
    assert run("ask", clip, "What?")[0] == 0


def test_csv(run, fake, clip, tmp_path) -> None:
    path = clip.with_name("q.csv")
    path.write_text(
        'clip,question,choices,start\nconcert.mp4,"What, then?","a,b",\nconcert.mp4,Two?,,1:05\n',
        "utf-8-sig",
    )
    items = read_manifest(path)
    assert [i.text for i in items] == ["What, then?", "Two?"]
    assert [i.choices for i in items] == [("a", "b"), ()]
    assert [i.span.start for i in items] == [None, 65.0]
    assert items[0].clip == clip
    assert len({i.id for i in items}) == 2
    assert run("batch", path, "--out", tmp_path / "o.jsonl")[0] == 0


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1e"])
def test_unusual_line_separators_are_text(clip, mark) -> None:
    path = clip.with_name("q.csv")
    path.write_bytes(f"clip,question\r\na.mp4,One{mark}two?\r\nb.mp4,Three?\n".encode())
    assert [i.text for i in read_manifest(path)] == [f"One{mark}two?", "Three?"]
    path = clip.with_name("q.jsonl")
    row = {"clip": "a.mp4", "question": f"One{mark}two?"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    assert [i.text for i in read_manifest(path)] == [f"One{mark}two?"]


def test_ids_do_not_depend_on_the_row(clip) -> None:
    path = clip.with_name("q.jsonl")
    rows = [{"clip": "a.mp4", "question": f"{i}?"} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    first = [i.id for i in read_manifest(path)]
    path.write_text("\n".join(map(json.dumps, reversed([*rows, rows[0]]))))
    assert [i.id for i in read_manifest(path)] == [first[0], first[2], first[1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no question"),
        ("{", "Line 1 is not JSON"),
        ("[1]", "Line 1 is not a JSON object"),
        ('{"clip": "a.mp4"}', "Line 1: question is missing"),
        ('{"clip": "a", "question": " "}', "Line 1: question is missing"),
        ('\n{"clip": "a", "question": "b", "x": 1}', "Line 2: unknown column 'x'"),
        ('{"clip": "a", "question": "b", "start": "x"}', "Line 1: 'x' is not a time"),
        ('{"clip": "a", "question": "b", "end": 0}', "must come after"),
        ('{"clip": "a", "question": "b", "choices": "one"}', "two or more"),
        ('{"clip":"a","question":"b","id":1}\n{"clip":"a","question":"c","id":1}', "used twice"),
    ],
)
def test_bad_manifests(run, fake, tmp_path, text, said) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    code, _, err = run("batch", path, "--out", tmp_path / "o.jsonl")
    assert code == 2
    assert said in err
    assert fake.log == []
    assert not (tmp_path / "o.jsonl").exists()


def test_bad_files(run, fake, manifest, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    assert run("batch", tmp_path / "none.jsonl", "--out", out)[0] == 3
    assert run("batch", manifest, "--out", tmp_path / "no" / "o.jsonl")[0] == 2
    out.write_text("my notes\nand more\n")
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 2
    assert "Line 1 of the output is not an answer" in err
    assert out.read_text() == "my notes\nand more\n"
    (tmp_path / "q.csv").write_text("clip,question\na,b,c\n")
    assert "more or fewer cells" in run("batch", tmp_path / "q.csv", "--out", "x.jsonl")[2]
    (tmp_path / "q.jsonl").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in run("batch", tmp_path / "q.jsonl", "--out", "x.jsonl")[2]


def test_done_before_takes_the_last_word(tmp_path) -> None:
    path = tmp_path / "o.jsonl"
    assert done_before(path) == {}
    rows = [{"schema": f"omnidrop.{kind}/1", "id": "a"} for kind in ("error", "answer")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert done_before(path) == {"a": True}

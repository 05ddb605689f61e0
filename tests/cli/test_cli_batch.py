"""`omnidrop batch`: what it is given, resuming, failures, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fakes
import pytest

from omnidrop.batch.rows import read_rows


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
    assert "omnidrop: 1 × There is no such file" in err
    assert {row["schema"] for row in found.values()} == {"omnidrop.batch/1"}
    assert found["a"]["answer"] == fakes.TEXT
    assert found["a"]["error"] is None
    assert (found["b"]["answer"], found["b"]["cause"]) == (None, "There is no such file")
    assert found["c"]["answer"] == "red, white"
    assert [e for e in fake.log if e.startswith("open")] == ["open concert.mp4"] * 2


def test_batch_tells_of_an_answer_without_a_word(run, fake, clip, tmp_path, monkeypatch) -> None:
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
    assert "4 done before (1 of them failed)" in err
    assert (fake.log, out.read_bytes()) == ([], before)
    manifest.with_name("none.mp4").write_bytes(b"x")
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 0
    assert "1 answered, 0 failed, 3 done before" in err
    assert len(out.read_text("utf-8").splitlines()) == 4
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
    assert found[clip.name]["error"]
    assert found[other.name]["answer"]
    assert run("batch", manifest, "--out", out, "--retry", 1)[0] == 0
    assert [row["error"] for row in written(out).values()] == [None, None]
    assert len(out.read_text("utf-8").splitlines()) == 2
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
    items = read_rows(path)
    assert [i.question for i in items] == ["What, then?", "Two?"]
    assert [i.choices for i in items] == [("a", "b"), ()]
    assert [i.start for i in items] == [None, 65.0]
    assert items[0].clip == clip
    assert len({i.id for i in items}) == 2
    assert run("batch", path, "--out", tmp_path / "o.jsonl")[0] == 0


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1e"])
def test_unusual_line_separators_are_text(clip, mark) -> None:
    path = clip.with_name("q.csv")
    path.write_bytes(f"clip,question\r\na.mp4,One{mark}two?\r\nb.mp4,Three?\n".encode())
    assert [i.question for i in read_rows(path)] == [f"One{mark}two?", "Three?"]
    path = clip.with_name("q.jsonl")
    row = {"clip": "a.mp4", "question": f"One{mark}two?"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    assert [i.question for i in read_rows(path)] == [f"One{mark}two?"]


def test_ids_do_not_depend_on_the_row(clip) -> None:
    path = clip.with_name("q.jsonl")
    rows = [{"clip": "a.mp4", "question": f"{i}?"} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    first = [i.id for i in read_rows(path)]
    path.write_text("\n".join(map(json.dumps, reversed([*rows, rows[0]]))))
    assert [i.id for i in read_rows(path)] == [first[0], first[2], first[1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no question"),
        ("{", "Line 1 is not JSON"),
        ("[1]", "Line 1 is not a JSON object"),
        ('{"clip": "a.mp4"}', "Line 1: question is missing"),
        ('{"clip": "a", "question": " "}', "Line 1: question is not a text"),
        ('{"clip": "a", "video": "a", "question": "b"}', "Line 1: video and clip are both given"),
        ('\n{"clip": "a", "qestion": "b"}', "Line 2: unknown field 'qestion'. Did you mean"),
        (
            '{"clip": "a", "question": "b", "strat": 1}',
            "Did you mean start?",
        ),
        ('{"clip": "a", "question": "b", "start": "x"}', "Line 1: start 'x' is not a time"),
        ('{"clip": "a", "question": "b", "end": 0}', "Line 1: end is not after start"),
        ('{"clip": "a", "question": "b", "choices": "one"}', "Line 1: choices holds 1"),
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


def test_answers_of_an_earlier_version_are_continued(run, fake, manifest, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    kinds = [("a", "error"), ("a", "answer"), ("b", "error")]
    rows = [{"schema": f"omnidrop.{kind}/1", "id": name, kind: "x"} for name, kind in kinds]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 6
    assert "2 answered, 0 failed, 2 done before (1 of them failed)" in err
    assert "2 answers in" in err
    assert "are of an earlier version" in " ".join(err.split())
    found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["id"] for row in found] == ["a", "b", "c", "d"]
    assert found[0]["schema"] == "omnidrop.answer/1"


def test_a_renamed_clip_is_known_and_other_settings_are_refused(run, fake, clip, tmp_path) -> None:
    other, out = clip.with_name("renamed.mp4"), tmp_path / "o.jsonl"
    assert run("batch", clip, "-q", "What?", "-q", "Who?", "--out", out)[0] == 0
    clip.rename(other)
    fake.log.clear()
    code, _, err = run("batch", other, "-q", "What?", "-q", "Who?", "--out", out)
    assert (code, fake.log) == (0, [])
    assert "2 done before" in err
    code, _, err = run("batch", other, "-q", "What?", "--out", out, "--max-new-tokens", 5)
    assert code == 2
    assert "generate.max_new_tokens is 5, but 128 in this file's answers" in " ".join(err.split())
    assert len(out.read_text("utf-8").splitlines()) == 2


def test_a_folder_and_a_glob_with_questions(run, fake, clip, tmp_path) -> None:
    shutil.copy(clip, clip.with_name("duet.mp4"))
    code, out, _ = run("batch", clip.parent, "-q", "What?", "--out", "-", "--quiet")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [Path(row["clip"]).name for row in rows] == ["concert.mp4", "duet.mp4"]
    _, out, _ = run("batch", clip.parent / "d*.mp4", "-q", "A?", "-q", "B?", "--out", "-")
    assert [json.loads(line)["question"] for line in out.splitlines()] == ["A?", "B?"]
    assert run("batch", clip.parent / "x*.mp4", "-q", "A?", "--out", "-")[0] == 3
    code, _, err = run("batch", clip.parent, "--out", "-")
    assert code == 2
    assert "-q" in err


def test_columns_are_carried_through(run, fake, clip, tmp_path) -> None:
    path, out = clip.with_name("q.jsonl"), tmp_path / "o.jsonl"
    row = {"video": clip.name, "question": "What?", "topic": [1, "a"], "answer": "B", "tokens": 3}
    path.write_text(json.dumps(row))
    table = tmp_path / "o.csv"
    assert run("batch", path, "--out", out, "--copy", table)[0] == 0
    (found,) = written(out).values()
    assert (found["topic"], found["expected"], found["input_tokens"]) == ([1, "a"], "B", 3)
    assert found["tokens"] > 3
    import csv

    (line,) = csv.DictReader(table.open(encoding="utf-8"))
    assert line["answer"] == fakes.TEXT
    assert json.loads(line["topic"]) == [1, "a"]
    assert "key" not in line


def test_fields_are_chosen(run, fake, clip, tmp_path) -> None:
    def fields(*words: object) -> set[str]:
        code, out, _ = run("batch", clip, "-q", "What?", "--out", "-", "--quiet", *words)
        assert code == 0
        return set(json.loads(out))

    always = {"schema", "id", "key", "setup", "error", "cause"}
    assert fields("--fields", "answer,ttft,moments") == always | {"answer", "ttft", "moments"}
    assert {"trace", "text", "token_ids"} < fields("--fields", "all")
    assert run("batch", clip, "-q", "A?", "--out", "-", "--fields", "anwser")[0] == 2


def test_a_parquet_file_and_a_parquet_copy(run, fake, clip, tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path, copy = clip.with_name("q.parquet"), tmp_path / "o.parquet"
    columns = {"clip": [clip.name] * 2, "question": ["A?", "B?"], "start": [0.5, float("nan")]}
    parquet.write_table(pyarrow.table(columns), path)
    assert run("batch", path, "--out", tmp_path / "o.jsonl", "--copy", copy)[0] == 0
    found = parquet.read_table(copy).to_pylist()
    assert [row["question"] for row in found] == ["A?", "B?"]
    assert [row["start"] for row in found] == [0.5, None]
    path.write_bytes(b"no table")
    assert "not Parquet" in run("batch", path, "--out", tmp_path / "o.jsonl")[2]


def test_without_pyarrow_the_extra_is_named(run, fake, clip, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    code, _, err = run("batch", clip.with_name("q.parquet"), "--out", "-")
    assert code == 2
    assert "omnidrop[parquet]" in err


def test_a_table_is_no_output_and_stdout_has_no_copy(run, fake, clip, tmp_path) -> None:
    code, _, err = run("batch", clip, "-q", "A?", "--out", tmp_path / "o.csv")
    assert code == 2
    assert "--copy" in err
    assert run("batch", clip, "-q", "A?", "--out", "-", "--copy", tmp_path / "o.csv")[0] == 2
    assert run("batch", clip, "-q", "A?", "--out", "o.jsonl", "--copy", "o.xls")[0] == 2


def test_limit_fail_fast_and_shards(run, fake, clip, tmp_path) -> None:
    names = ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    for name in names:
        clip.with_name(name).write_bytes(name.encode())
    rows = [{"id": f"{n}{i}", "clip": n, "question": f"{i}?"} for n in names for i in range(2)]
    manifest = clip.with_name("q.jsonl")
    manifest.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "o.jsonl"
    assert run("batch", manifest, "--out", out, "--limit", 3)[0] == 0
    assert list(written(out)) == ["a.mp40", "a.mp41", "b.mp40"]
    for part in ("1/2", "2/2"):
        assert run("batch", manifest, "--out", out, "--shard", part)[0] == 0
    parts = [written(tmp_path / f"o.{i}of2.jsonl") for i in (1, 2)]
    assert list(parts[0]) == ["c.mp40", "c.mp41"]
    assert list(parts[1]) == ["b.mp41", "d.mp40", "d.mp41"]
    code, _, err = run("batch", manifest, "--out", out)
    assert code == 0
    assert "0 answered, 0 failed, 8 done before" in err
    manifest.write_text(manifest.read_text().replace('"0?"', '"bug?"'))
    code, _, err = run("batch", manifest, "--out", tmp_path / "p.jsonl", "--fail-fast")
    assert code == 6
    assert list(written(tmp_path / "p.jsonl")) == ["a.mp40"]
    assert run("batch", manifest, "--out", out, "--shard", "3/2")[0] == 2


def test_a_row_is_asked_again_where_that_may_help(run, fake, clip, tmp_path) -> None:
    out = tmp_path / "o.jsonl"
    rows = [{"id": q, "clip": clip.name, "question": q} for q in ("memory?", "What?")]
    rows.append({"id": "none", "clip": "none.mp4", "question": "What?"})
    manifest = clip.with_name("q.jsonl")
    manifest.write_text("\n".join(map(json.dumps, rows)))
    assert run("batch", manifest, "--out", out, "--retry", 2)[0] == 6
    assert [e for e in fake.log if "memory" in e] == ["ask concert.mp4 memory?"] * 3
    lines = [json.loads(line)["id"] for line in out.read_text("utf-8").splitlines()]
    assert lines == ["What?", "none", "memory?"]


def test_a_second_process_is_told_who_writes(run, fake, clip, tmp_path) -> None:
    from omnidrop.batch.output import AnswersFile, Shard

    out = tmp_path / "o.jsonl"
    with AnswersFile(out):
        code, _, err = run("batch", clip, "-q", "A?", "--out", out)
        assert code == 2
        assert f"process {os.getpid()} on" in " ".join(err.split())
        assert "--shard" in err
        assert run("batch", clip, "-q", "A?", "--out", out, "--shard", "1/2")[0] == 2
    with AnswersFile(out, (), Shard(1, 2)):
        assert run("batch", clip, "-q", "A?", "--out", out)[0] == 2
        assert run("batch", clip, "-q", "A?", "--out", out, "--shard", "2/2")[0] == 0
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sigterm_is_as_clean_as_ctrl_c(child, clip, tmp_path) -> None:
    import signal
    import time

    out = tmp_path / "o.jsonl"
    words = ["batch", clip, "--out", out, *(w for i in range(20) for w in ("-q", f"{i}?"))]
    process = subprocess.Popen(
        [sys.executable, str(fakes.HERE / "fakes.py"), *map(str, words)],
        stderr=subprocess.PIPE,
        env=fakes.environment(FAKE_PAUSE="0.3"),
        cwd=fakes.ROOT,
    )
    while not out.exists() or out.read_bytes().count(b"\n") < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143
    rows = out.read_bytes()
    assert f"omnidrop: interrupted: {rows.count(b'}' + bytes([10]))} of 20 rows are in" in said
    assert rows.endswith(b"}\n")
    assert not list(tmp_path.glob(".*"))

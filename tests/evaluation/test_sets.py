"""Question sets: what a line may say, and how exactly a wrong one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnidrop.errors import MediaError, UsageError
from omnidrop.evaluation.sets import read_set

LINE = {"id": "1", "video": "a.mp4", "question": "What plays?", "answer": "flute"}


def write(folder: Path, *rows: object, name: str = "set.jsonl") -> Path:
    (folder / "a.mp4").write_bytes(b"clip")
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_line_becomes_an_item(tmp_path: Path) -> None:
    row = LINE | {
        "choices": ["piano", "flute"],
        "category": "sound",
        "start": 1,
        "end": 2.5,
        "groups": {"evidence": "sparse"},
        "url": "somewhere",
    }
    (item,) = read_set(write(tmp_path, row)).items
    assert item.video == tmp_path / "a.mp4"
    assert (item.id, item.question, item.answer) == ("1", "What plays?", "flute")
    assert (item.choices, item.category) == (("piano", "flute"), "sound")
    assert (item.start, item.end) == (1.0, 2.5)
    assert (item.groups, item.extra) == ({"evidence": "sparse"}, {"url": "somewhere"})


def test_empty_lines_and_a_byte_order_mark_are_no_questions(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + json.dumps(LINE), "", LINE | {"id": 2})
    assert [item.id for item in read_set(path).items] == ["1", "2"]


def test_the_answer_may_be_the_letter_of_a_choice(tmp_path: Path) -> None:
    row = LINE | {"choices": ["piano", "flute"], "answer": "B"}
    assert read_set(write(tmp_path, row)).items[0].answer == "flute"


def test_a_choice_that_is_a_letter_wins_over_a_letter_that_names_one(tmp_path: Path) -> None:
    row = LINE | {"choices": ["B", "A"], "answer": "A"}
    assert read_set(write(tmp_path, row)).items[0].answer == "A"


def test_clips_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "b.mp4").write_bytes(b"clip")
    path = write(tmp_path, LINE | {"video": "b.mp4"})
    assert read_set(path, videos=videos).items[0].video == videos / "b.mp4"
    with pytest.raises(MediaError, match="None of the 1 clips"):
        read_set(path)
    with pytest.raises(MediaError, match="no such folder"):
        read_set(path, videos=tmp_path / "elsewhere")


def test_a_limit_takes_the_first_questions(tmp_path: Path) -> None:
    path = write(tmp_path, *(LINE | {"id": str(i)} for i in range(5)))
    assert [item.id for item in read_set(path, limit=2).items] == ["0", "1"]
    with pytest.raises(UsageError, match="leaves no question"):
        read_set(path, limit=0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "Line 2 is not JSON"),
        ("[]", "Line 2 is not a JSON object"),
        (LINE | {"id": " "}, "Line 2: id is not a text"),
        (LINE | {"video": 3}, "Line 2: video is not a text"),
        (LINE | {"question": " "}, "Line 2: question is not a text"),
        (LINE | {"id": "2", "answer": None}, "Line 2: answer is missing"),
        (LINE | {"choices": {"a": "b"}}, "Line 2: choices is not a list"),
        (LINE | {"choices": "flute"}, "Line 2: choices holds 1"),
        (LINE | {"choices": ["flute"]}, "Line 2: choices holds 1"),
        (LINE | {"choices": ["flute", "flute"]}, "Line 2: choices holds an empty or a repeated"),
        (LINE | {"choices": ["a", "b"]}, "Line 2: answer 'flute' is none of the choices"),
        (LINE | {"choices": ["a", "b"], "answer": "C"}, "Line 2: answer 'C' is none"),
        (LINE | {"start": "1:75"}, "Line 2: start '1:75' is not a time"),
        (LINE | {"start": [1]}, "Line 2: start is not a number"),
        (LINE | {"clip": "b.mp4"}, "Line 2: video and clip are both given"),
        (LINE | {"start": -1}, "Line 2: start is not a time"),
        (LINE | {"start": 2, "end": 2}, "Line 2: end is not after start"),
        (LINE | {"groups": {"a": 1}}, "Line 2: groups is not an object of texts"),
        (LINE | {"choice": ["a", "b"]}, "unknown field 'choice'. Did you mean choices?"),
        (LINE, "id '1' is used twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        read_set(write(tmp_path, LINE, row))


def test_no_question_and_no_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no question"):
        read_set(write(tmp_path, ""))
    with pytest.raises(MediaError, match=r"cannot be read .*avsynth"):
        read_set(tmp_path / "none.jsonl")


@pytest.mark.slow
def test_avsynth_is_built_in_and_tells_sparse_evidence_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"make_clips\.py --out"):
        read_set("avsynth", videos=tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "avs_000.mp4").write_bytes(b"clip")
    found = read_set("avsynth", videos=tmp_path)
    assert len(found.items) == 600
    assert found.style == "plain"
    assert {item.category for item in found.items} == {"picture", "sound", "both"}
    sparse = [item for item in found.items if item.groups["evidence"] == "sparse"]
    assert len(sparse) == 328
    assert all(item.extra["sparse"] for item in sparse)
    assert all(item.answer in item.choices for item in found.items if item.choices)


def test_avsynth_finds_clips_without_their_folder(tmp_path: Path) -> None:
    (tmp_path / "avs_000.mp4").write_bytes(b"clip")
    found = read_set(f"avsynth:{tmp_path}", limit=1)
    assert found.items[0].video == tmp_path / "avs_000.mp4"


def test_avsynth_of_other_seeds_brings_its_own_questions(tmp_path: Path) -> None:
    row = LINE | {"family": "sound", "sparse": False, "category": "s_first"}
    write(tmp_path, row, name="test.jsonl")
    found = read_set(f"avsynth:{tmp_path}")
    assert found.name == f"avsynth-{tmp_path.name}"
    (item,) = found.items
    assert (item.category, item.groups["evidence"]) == ("sound", "long")

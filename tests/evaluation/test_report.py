"""Rows of batches and evaluations: read as a stream, chosen, ordered, and never mixed."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from omnidrop.errors import MediaError, UsageError
from omnidrop.evaluation.report.collection import read
from omnidrop.evaluation.report.conditions import Condition, Selection
from omnidrop.evaluation.report.overview import Spread, differences, overview
from omnidrop.evaluation.report.rows import PARTS, cause_of, read_row, value_of


def flat(number: int, **other: Any) -> dict[str, Any]:
    """A line of `omnidrop batch` as it writes them by default."""
    found = {
        "schema": "omnidrop.batch/1",
        "id": str(number),
        "key": f"key-{number}",
        "setup": "one",
        "clip": f"/clips/{number // 5}.mp4",
        "question": f"What plays in part {number % 5}?",
        "answer": "piano",
        "probability": 0.9,
        "budget": 0.3,
        "kept": 0.29,
        "tokens": 395,
        "seconds": 1.0 + number,
        "error": None,
        "cause": None,
    }
    return found | other


def failed(number: int, **other: Any) -> dict[str, Any]:
    error = f"/clips/{number // 5}.mp4: Line {number} of the clip is damaged. Take another."
    nothing = {"answer": None, "probability": None, "budget": None, "kept": None, "tokens": None}
    return flat(number, **nothing, error=error, cause="Line … of the clip is damaged", **other)


def whole(number: int, budget: float = 0.3, **settings: Any) -> dict[str, Any]:
    """A whole document with two chunks of the clip, of which the second keeps all."""
    chunks = [
        {"start": 0.0, "end": 2.0, "audio": [10, 0], "video": [10, 0], "audio_total": 20,
         "video_total": 20},
        {"start": 2.0, "end": 4.0, "audio": [20, 20], "video": [20, 20], "audio_total": 20,
         "video_total": 20},
    ]  # fmt: skip
    trace = {
        "method": {"name": "omnidrop", "budget": budget, "plan": {"p": number}},
        "model": {"name": "demo", "dtype": "float32", "text": {"layers": 2}},
        "clip": {"path": "a.mp4", "sampling": {"fps": 2.0, "start": number, "end": None}},
        "settings": {"question": "?", "max_new_tokens": 16, "seed": 0, **settings},
        "asked_budget": budget,
        "realised_budget": 0.62,
        "chunks": chunks,
        "ttft": 0.5,
        "tokens_per_second": 10.0,
        "memory": {"host": 1000 + number},
    }
    return {"schema": "omnidrop.answer/1", "id": str(number), "clip": "a.mp4", "question": "?",
            "text": "yes", "token_ids": [1, 2, 3], "probability": 0.8, "trace": trace}  # fmt: skip


def record(number: int, label: str, *, right: bool = True, status: str = "answered"):
    return {"schema": "omnidrop.eval/1", "key": f"{label}-{number}", "status": status,
            "set": "set", "id": str(number), "video": "a.mp4", "category": "sound",
            "question": "?", "label": label, "asked": 0.5, "method": {"name": label, "budget": 0.5},
            "seed": number, "reply": "yes", "answer": "yes", "right": right, "realised": 0.49,
            "probability": None, "message": "The budget 0.5 cannot be reached.",
            "seconds": {"first_token": 0.25}}  # fmt: skip


def write(path: Path, rows: Sequence[Any], end: str = "\n") -> Path:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(texts) + end, encoding="utf-8")
    return path


def test_each_kind_of_line_is_a_row() -> None:
    row = read_row(flat(7))
    assert row is not None
    assert (row.clip, row.answer, row.status, row.asked, row.kept, row.seconds) == (
        "/clips/1.mp4", "piano", "answered", 0.3, 0.29, 8.0)  # fmt: skip
    row = read_row(whole(1))
    assert row is not None
    assert (row.answer, row.asked, row.kept, row.method, row.model) == (
        "yes", 0.3, 0.62, "omnidrop", "demo")  # fmt: skip
    assert row.seconds == pytest.approx(0.5 + 2 / 10)
    assert row.along == (0.25,) * (PARTS // 2) + (1.0,) * (PARTS // 2)
    row = read_row(record(1, "fastv", right=False))
    assert row is not None
    assert (row.answer, row.expected, row.right, row.method) == ("yes", "yes", False, "fastv")
    error = read_row({"schema": "omnidrop.error/1", "id": "1", "clip": "a.mp4", "error": "No."})
    assert error is not None
    assert (error.status, error.answer, error.cause) == ("failed", "", "No.")
    for strange in ({}, {"schema": "other/1"}, {"clip": "a.mp4", "answer": "yes"}):
        assert read_row(strange) is None


def test_chunks_longer_than_a_part_fill_every_part() -> None:
    document = whole(1)
    document["trace"]["chunks"] = document["trace"]["chunks"][:1]
    row = read_row(document)
    assert row is not None
    assert row.along == (0.25,) * PARTS


def test_rows_of_other_settings_are_other_groups(tmp_path: Path) -> None:
    rows = [whole(1), whole(2), whole(3, 0.5), whole(4, max_new_tokens=32)]
    rows += [record(1, "fastv"), record(2, "seats"), record(3, "seats")]
    found = read([write(tmp_path / "a.jsonl", rows)])
    told = overview(found)
    assert [group.rows for group in told.groups] == [2, 2, 1, 1, 1]
    assert {group.name for group in told.groups} == {
        "omnidrop 30 %, demo", "omnidrop 50 %, demo", "fastv 50 %", "seats 50 %"}  # fmt: skip
    same = [group for group in told.groups if group.name == "omnidrop 30 %, demo"]
    assert [group.other for group in same] == [
        {"settings.max_new_tokens": 16}, {"settings.max_new_tokens": 32}]  # fmt: skip
    # Seed, plan and span are the row's own and no setting.
    assert differences([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {}]) == ("b",)


def test_a_failure_belongs_to_the_setup_that_it_names(tmp_path: Path) -> None:
    rows = [failed(1), flat(2), flat(3, setup="two", budget=0.5)]
    told = overview(read([write(tmp_path / "a.jsonl", rows)]))
    assert [(g.name, g.rows, g.failed) for g in told.groups] == [("30 %", 2, 1), ("50 %", 1, 0)]


def test_damaged_lines_and_a_cut_last_line_are_counted(tmp_path: Path) -> None:
    cut = json.dumps(flat(9))[:40]
    path = write(tmp_path / "a.jsonl", [flat(1), "{broken", "[1]", "", flat(2), cut], end="")
    found = read([path])
    damage = found.damage[0]
    assert (damage.lines, damage.first, damage.cut, len(found.chosen)) == (2, 2, True, 2)
    # A last line that is whole but for its end is a row.
    found = read([write(path, [flat(1), flat(2)], end="")])
    assert (found.damage[0].cut, len(found.chosen)) == (False, 2)


def test_of_several_rows_for_one_question_the_last_counts(tmp_path: Path) -> None:
    rows = [failed(1), flat(2), flat(1), flat(1, setup="two")]
    path = write(tmp_path / "a.jsonl", rows)
    found = read([path])
    assert [found.row(i).status for i in found.chosen] == ["answered"] * 3
    assert found.damage[0].replaced == 1
    # A row that was asked again is no failure any more, whatever is chosen.
    assert read([path], Selection(failed=True)).chosen == []
    assert overview(found).left_out == 0
    assert overview(read([path], Selection(clip="0.mp4", question="part 2"))).left_out == 2


def test_the_same_id_in_two_files_is_two_rows(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, [flat(1)]) for name in ("a.jsonl", "b.jsonl")]
    assert len(read(paths).chosen) == 2
    assert len(read([paths[0], paths[0]]).chosen) == 1


def test_a_folder_of_an_evaluation_has_its_setup(tmp_path: Path) -> None:
    setup = {"schema": "omnidrop.eval-setup/1", "set": "set", "score": "text",
             "model": {"name": "demo", "dtype": "float32", "weights": "1"}}  # fmt: skip
    (tmp_path / "setup.json").write_text(json.dumps(setup))
    rows = [record(1, "fastv"), record(2, "fastv", right=False)]
    rows += [record(3, "fastv", status="refused"), record(4, "fastv", status="error")]
    write(tmp_path / "records.jsonl", rows)
    told = overview(read([tmp_path]))
    group = told.groups[0]
    assert (group.name, group.right, group.judged) == ("fastv 50 %, demo", 3, 4)
    assert (told.answered, told.failed, told.refused) == (2, 1, 1)
    assert [cause.text[:9] for cause in told.causes] == ["The budge", "refused: "]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("seconds>3", [3, 4]),
        ("seconds <= 2", [0, 1]),
        ("probability<50%", [4]),
        ("answer~PIA", [0, 1, 2, 3]),
        ("answer!=piano", [4]),
        ("id=3", [3]),
        ("tokens>=395", [0, 1, 2, 3]),
        ("note=x y", [2]),
        ("nested.value>1", [1]),
        ("status=failed", []),
    ],
)
def test_conditions(tmp_path: Path, text: str, kept: list[int]) -> None:
    rows = [flat(0), flat(1, nested={"value": 2}), flat(2, note="X Y"), flat(3)]
    rows.append(flat(4, answer="drums", probability=0.4, tokens=1))
    path = write(tmp_path / "a.jsonl", rows)
    found = read([path], Selection((Condition.parse(text),)))
    assert found.chosen == kept


def test_conditions_that_are_none_are_refused(tmp_path: Path) -> None:
    for text in ("seconds", ">3", "seconds>soon", ""):
        with pytest.raises(UsageError, match=r"condition|number"):
            Condition.parse(text)
    path = write(tmp_path / "a.jsonl", [flat(1)])
    with pytest.raises(UsageError, match="'tokesn'") as problem:
        read([path], Selection((Condition.parse("tokesn>1"),)))
    assert "Did you mean tokens" in str(problem.value)


def test_order(tmp_path: Path) -> None:
    rows = [flat(1, score=2), flat(2), flat(3, score=1), flat(4, score="high"), flat(5, score=-1)]
    found = read([write(tmp_path / "a.jsonl", rows)], order="score")
    assert [found.row(i).id for i in found.ordered(found.chosen)] == ["5", "3", "1", "4", "2"]
    falling = found.ordered(found.chosen, falling=True)
    assert [found.row(i).id for i in falling] == ["4", "1", "3", "5", "2"]
    assert [found.row(i).id for i in found.slowest(found.chosen, 2)] == ["5", "4"]
    rows = [flat(1, probability=None), flat(2, probability=0.1), failed(3), flat(4)]
    found = read([write(tmp_path / "b.jsonl", rows)])
    assert [found.row(i).id for i in found.least_sure(found.chosen, 9)] == ["2", "4"]


def test_what_is_no_file_of_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no answers"):
        read([write(tmp_path / "a.jsonl", ["text", "{}"])])
    with pytest.raises(UsageError, match="empty"):
        read([write(tmp_path / "b.jsonl", [], end="")])
    with pytest.raises(MediaError, match="cannot be read"):
        read([tmp_path / "none.jsonl"])
    with pytest.raises(UsageError, match=r"no records\.jsonl"):
        read([tmp_path])


def test_a_cause_is_the_same_for_rows_that_differ_in_names_and_numbers() -> None:
    one = cause_of("/a/b.mp4: Stream 3 of 'b.mp4' ends at 1.5 s. Take another.", "/a/b.mp4")
    other = cause_of("/c/d e.mp4: Stream 14 of 'x' ends at 2 s. Take another.", "/c/d e.mp4")
    assert one == other == "Stream N of … ends at N s."
    assert cause_of("It does not know “Who”, “he” and “is”. Ask.") == "It does not know …."
    assert cause_of("") == "no reason given"


def test_spreads() -> None:
    found = Spread.of([3.0, float("-inf"), 1.0, 2.0])
    assert found is not None
    assert (found.count, found.least, found.median, found.most, found.mean) == (3, 1, 2, 3, 2)
    assert sum(found.bars) == 3
    assert Spread.of([float("-inf")]) is None
    same = Spread.of([2.0, 2.0])
    assert same is not None
    assert same.bars == (2,)


def test_values_by_dotted_names() -> None:
    assert value_of({"a": {"b": 1}, "a.b": 2}, "a.b") == 2
    assert value_of({"a": {"b": 1}}, "a.b") == 1
    assert value_of({"a": 1}, "a.b") is None


@pytest.mark.slow
def test_rows_stay_out_of_memory(tmp_path: Path) -> None:
    draw = random.Random(1)
    path = tmp_path / "a.jsonl"
    padding = "x" * 300
    with path.open("w", encoding="utf-8") as stream:
        for number in range(20_000):
            row = failed(number) if number % 10 == 9 else flat(number, note=padding)
            row["seconds"] = draw.random()
            stream.write(json.dumps(row) + "\n")
    tracemalloc.start()
    found = read([path])
    told = overview(found)
    slowest = found.slowest(found.chosen, 3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (told.rows, told.failed, told.clips) == (20_000, 2_000, 4_000)
    times = [found.seconds[i] for i in slowest]
    assert times == sorted(found.seconds, reverse=True)[:3]
    assert most < 450 * 20_000 < 0.8 * path.stat().st_size

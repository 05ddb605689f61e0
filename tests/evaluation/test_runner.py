"""The runner: every cell on every question, once; nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stub import StubModel

import omnidrop
from omnidrop.clip.options import ClipOptions
from omnidrop.errors import UsageError
from omnidrop.evaluation.items import QuestionSet
from omnidrop.evaluation.records import RECORDS, SCHEMA, read_records
from omnidrop.evaluation.runner import UNPRUNED, Cell, RunOptions, cells, run, setup_of
from omnidrop.evaluation.scoring import INSTRUCTION
from omnidrop.pruning.method import Method

CELLS = cells(["random", "uniform"], [0.5, 0.2])


def records(out: Path) -> list[dict]:
    return read_records(out)[0]


def test_cells_are_the_control_then_every_method_at_every_budget() -> None:
    found = [(cell.label, cell.budget) for cell in cells(["none", "random"], [0.5, 0.2])]
    assert found == [(UNPRUNED, 1.0), ("random", 0.5), ("random", 0.2)]


def test_settings_and_variants_make_cells_of_their_own() -> None:
    made = cells(
        ["omnidrop"],
        [0.3],
        settings={"omnidrop": {"diversity": 0}},
        variants=[("even", "uniform+omnidrop", {}), ("low", "random", {"budget": 0.1})],
    )
    assert [(c.label, c.budget) for c in made[1:]] == [
        ("omnidrop", 0.3),
        ("even", 0.3),
        ("low", 0.1),
    ]
    assert made[1].settings["diversity"] == 0
    assert made[2].settings["name"] == "uniform+omnidrop"
    assert made[3].settings["name"] == "random"


def test_one_label_may_have_settings_of_its_own_at_each_budget() -> None:
    variants = [("fit", "fastv", {"after": n, "budget": b}) for n, b in ((1, 0.2), (4, 0.5))]
    made = cells([], [0.3], variants=variants)
    assert [(c.label, c.budget, c.settings["after"]) for c in made[1:]] == [
        ("fit", 0.2, 1),
        ("fit", 0.5, 4),
    ]
    with pytest.raises(UsageError, match=r"label 'fit' is taken at 0\.2"):
        cells([], [0.2], variants=[variants[0], ("fit", "random", {})])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"methods": ["nothing"]}, "no method 'nothing'"),
        ({"methods": ["random"], "settings": {"random": {"nothing": 1}}}, "no setting 'nothing'"),
        ({"methods": ["random"], "settings": {"fastv": {"after": 1}}}, "'fastv', which does not"),
        (
            {"methods": ["random"], "variants": [("random", "random", {})]},
            "label 'random' is taken",
        ),
        ({"methods": [], "variants": [(UNPRUNED, "random", {})]}, "label 'unpruned' is taken"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_loaded(arguments, said) -> None:
    with pytest.raises(UsageError, match=said):
        cells(**{"budgets": [0.3], **arguments})


def test_each_clip_is_opened_and_encoded_once(questions: QuestionSet, tmp_path: Path) -> None:
    model = StubModel()
    tally = run(model, questions, CELLS, tmp_path / "out")
    assert (model.count("open"), model.count("encode"), model.count("close")) == (2, 2, 2)
    assert tally.answered == len(records(tmp_path / "out")) == 6 * 5
    assert ("encode", "clip0.mp4", False) in model.log


def test_a_method_that_wants_video_attention_has_it_from_the_start(
    questions: QuestionSet, tmp_path: Path
) -> None:
    class Wanting(Method):
        wants = frozenset({"video attention"})

    model = StubModel()
    run(model, questions, [Cell("w", Wanting())], tmp_path / "out")
    assert next(entry for entry in model.log if entry[0] == "encode") == (
        "encode",
        "clip0.mp4",
        True,
    )


def test_a_record_says_everything(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    record = next(r for r in records(tmp_path / "out") if r["label"] == "random")
    assert record["schema"] == SCHEMA
    assert (record["status"], record["id"], record["set"]) == ("answered", "q0", "set")
    assert (record["reply"], record["said"], record["answer"], record["right"]) == (
        ("yes", "yes", "yes", True)
    )
    assert (record["asked"], record["realised"]) == (0.5, 0.5)
    assert record["method"]["name"] == "random"
    assert record["method"].keys() >= set(omnidrop.Random().settings())
    assert (record["category"], record["groups"]) == ("sound", {"evidence": "long"})
    assert (record["flops"], record["flops_unpruned"]) == (5e5, 1e6)
    assert record["seconds"]["prefill"] == 0.25
    assert record["seconds"]["selection"] == 0.01
    assert record["seconds"]["first_token"] == 0.6
    assert record["seconds"]["clip"] > 0
    assert (record["kv_bytes"], record["kv_bytes_unpruned"]) == (400, 800)
    assert record["peak_bytes"] == {"host": 1000, "device": None}
    assert record["versions"] == {"omnidrop": "0"}
    assert record["model"] == "stub"


def test_all_methods_draw_from_the_same_seed_of_a_question(
    questions: QuestionSet, tmp_path: Path
) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "a")
    by_id: dict[str, set[int]] = {}
    for record in records(tmp_path / "a"):
        by_id.setdefault(record["id"], set()).add(record["seed"])
    assert all(len(seeds) == 1 for seeds in by_id.values())
    assert len({min(seeds) for seeds in by_id.values()}) == 6
    run(StubModel(), questions, CELLS, tmp_path / "b", RunOptions(seed=1))
    assert {r["seed"] for r in records(tmp_path / "b")} == {min(s) + 1 for s in by_id.values()}


def test_a_second_run_asks_nothing(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    model = StubModel()
    tally = run(model, questions, CELLS, tmp_path / "out")
    assert (tally.before, tally.answered) == (30, 0)
    assert model.count("ask") == model.count("encode") == 0


def test_more_methods_and_questions_ask_only_what_is_new(
    questions: QuestionSet, tmp_path: Path
) -> None:
    run(StubModel(), questions.part(questions.items[:2]), CELLS[:2], tmp_path / "out")
    model = StubModel()
    run(model, questions, CELLS, tmp_path / "out")
    assert model.count("ask") == 30 - 4
    assert len(records(tmp_path / "out")) == 30


def test_a_stopped_run_goes_on_where_it_was(questions: QuestionSet, tmp_path: Path) -> None:
    def stop(question: str, method, seed: int) -> str:
        if question.startswith("Is it 4?") and method.name == "random":
            raise KeyboardInterrupt
        return "yes"

    with pytest.raises(KeyboardInterrupt):
        run(StubModel(stop), questions, CELLS, tmp_path / "out")
    done = len(records(tmp_path / "out"))
    assert 0 < done < 30
    model = StubModel()
    assert (
        run(model, questions, CELLS, tmp_path / "out").answered == 30 - done == model.count("ask")
    )


def test_a_line_that_was_cut_short_is_asked_again(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    path = tmp_path / "out" / RECORDS
    path.write_bytes(path.read_bytes()[:-40])
    tally = run(StubModel(), questions, CELLS, tmp_path / "out")
    assert (tally.before, tally.answered) == (29, 1)
    assert len(records(tmp_path / "out")) == 30
    assert all(line.endswith("}") for line in path.read_text().splitlines() if '"q5"' not in line)


def test_another_clip_under_the_same_name_is_asked_again(
    questions: QuestionSet, tmp_path: Path
) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    (tmp_path / "clip1.mp4").write_text("another clip")
    assert run(StubModel(), questions, CELLS, tmp_path / "out").answered == 15


def test_another_answer_or_question_is_asked_again(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    items = list(questions.items)
    items[0] = replace(items[0], answer="no")
    items[1] = replace(items[1], question="Is it 1, or not?")
    assert run(StubModel(), questions.part(items), CELLS, tmp_path / "out").answered == 10


def test_an_exception_is_an_error_and_is_tried_again(
    questions: QuestionSet, tmp_path: Path
) -> None:
    def fail(question: str, method, seed: int) -> str:
        if "2" in question:
            raise RuntimeError("tensor of the wrong shape")
        return "yes"

    told = []
    tally = run(
        StubModel(fail), questions, CELLS, tmp_path / "out", on_problem=lambda: told.append(1)
    )
    assert (tally.answered, tally.failed, len(told)) == (25, 5, 5)
    failed = [r for r in records(tmp_path / "out") if r["status"] == "error"]
    assert {r["id"] for r in failed} == {"q2"}
    assert failed[0]["error"] == "RuntimeError"
    assert failed[0]["message"] == "tensor of the wrong shape"
    assert "right" not in failed[0]
    tally = run(StubModel(), questions, CELLS, tmp_path / "out")
    assert (tally.before, tally.answered) == (25, 5)
    assert {r["status"] for r in records(tmp_path / "out")} == {"answered"}


def test_a_clip_that_cannot_be_read_fails_alone(questions: QuestionSet, tmp_path: Path) -> None:
    (tmp_path / "clip0.mp4").unlink()
    tally = run(StubModel(), questions, CELLS, tmp_path / "out")
    assert (tally.answered, tally.failed) == (15, 15)
    found = next(r for r in records(tmp_path / "out") if r["status"] == "error")
    assert (found["error"], found["exit_code"]) == ("MediaError", 3)
    items = [replace(i, video=tmp_path / "unreadable.mp4") for i in questions.items]
    (tmp_path / "unreadable.mp4").write_text("x")
    tally = run(StubModel(), questions.part(items), CELLS, tmp_path / "other")
    assert (tally.answered, tally.failed) == (0, 30)


def test_a_clip_that_ended_the_process_fails_alone(questions: QuestionSet, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from omnidrop.begun import Begun\n"
        "with Begun(Path(sys.argv[1]), '.begun') as begun:\n"
        "    with begun.reading(Path(sys.argv[2]), None, None): os.abort()\n"
    )
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", code, str(out), str(tmp_path / "clip0.mp4")]
    subprocess.run(arguments, check=False)
    for _ in range(2):
        tally = run(StubModel(), questions, CELLS, out)
        assert (tally.answered + tally.before, tally.failed) == (15, 15)
    message = next(r for r in records(out) if r["status"] == "error")["message"]
    assert "ended the whole process" in message
    (tmp_path / "clip0.mp4").write_bytes(b"written anew")
    assert run(StubModel(), questions, CELLS, out).failed == 0


def test_a_budget_out_of_reach_is_refused_once_per_clip(
    questions: QuestionSet, tmp_path: Path
) -> None:
    model = StubModel(lowest=0.3)
    tally = run(model, questions, CELLS, tmp_path / "out")
    assert (tally.answered, tally.refused, tally.failed) == (18, 12, 0)
    assert model.count("ask") == 18 + 4
    refused = [r for r in records(tmp_path / "out") if r["status"] == "refused"]
    assert {tuple(r["reachable"]) for r in refused} == {(0.3, 1.0)}
    again = run(StubModel(lowest=0.3), questions, CELLS, tmp_path / "out")
    assert again.before == 30


def test_another_model_set_or_way_of_asking_needs_another_folder(
    questions: QuestionSet, tmp_path: Path
) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    other = StubModel()
    other.weights = other.weights + 1
    with pytest.raises(UsageError, match=r"model\.weights is .*another folder"):
        run(other, questions, CELLS, tmp_path / "out")
    with pytest.raises(UsageError, match="seed is 3, but 0 in"):
        run(StubModel(), questions, CELLS, tmp_path / "out", RunOptions(seed=3))
    with pytest.raises(UsageError, match="set is"):
        run(StubModel(), replace(questions, name="b"), CELLS, tmp_path / "out")


def test_the_clip_option_that_differs_is_named(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    finer = RunOptions(clip=ClipOptions(max_pixels=50_000))
    with pytest.raises(UsageError, match=r"clip\.max_pixels is 50000, but null in"):
        run(StubModel(), questions, CELLS, tmp_path / "out", finer)


def test_clip_options_of_later_days_do_not_part_an_evaluation_from_its_beginning(
    questions: QuestionSet, tmp_path: Path
) -> None:
    usual = setup_of(questions, StubModel(), RunOptions())
    assert sorted(usual["clip"]) == [
        "audio", "audio_file", "audio_track", "end", "fps", "max_frames", "max_pixels",
        "min_frames", "min_pixels", "start", "still", "video",
    ]  # fmt: skip
    squared = setup_of(questions, StubModel(), RunOptions(clip=ClipOptions(square_pixels=True)))
    assert squared["clip"]["square_pixels"] is True


def test_one_label_stands_for_one_setting(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    changed = cells([], [0.5], variants=[("random", "random+random@omnidrop", {})])
    with pytest.raises(
        UsageError, match=r"'random' at 0\.5 was run with name=random before.*--variant"
    ):
        run(StubModel(), questions, changed, tmp_path / "out")


def test_questions_are_put_in_the_style_asked_for(questions: QuestionSet, tmp_path: Path) -> None:
    model = StubModel(lambda question, method, seed: "A" if INSTRUCTION in question else "yes")
    run(model, questions, CELLS[:1], tmp_path / "letters")
    run(model, questions, CELLS[:1], tmp_path / "plain", RunOptions(style="plain"))
    for name in ("letters", "plain"):
        assert sum(r["right"] for r in records(tmp_path / name)) == 3


def test_logits_weigh_the_letters_or_the_words(questions: QuestionSet, tmp_path: Path) -> None:
    for style, replies in (("letters", {"A"}), ("plain", {"yes"})):
        options = RunOptions(score="logits", style=style)
        run(StubModel(), questions, CELLS[:1], tmp_path / style, options)
        found = records(tmp_path / style)
        assert {r["reply"] for r in found} == replies
        assert {r["said"] for r in found} == {"yes"}
        assert {r["probability"] for r in found} == {0.5}


def test_spans_of_one_clip_are_opened_apart(questions: QuestionSet, tmp_path: Path) -> None:
    items = [replace(i, start=float(n % 2), end=3.0) for n, i in enumerate(questions.items)]
    model = StubModel()
    run(model, questions.part(items), CELLS[:1], tmp_path / "out")
    opened = [entry for entry in model.log if entry[0] == "open"]
    assert len(opened) == 4
    assert ("open", "clip0.mp4", 1.0, 3.0) in opened


def test_two_writers_leave_whole_lines(questions: QuestionSet, tmp_path: Path) -> None:
    inner = StubModel()

    def nested(question: str, method, seed: int) -> str:
        if not inner.log:
            run(inner, questions, CELLS[3:], tmp_path / "out")
        return "yes"

    run(StubModel(nested), questions, CELLS[:3], tmp_path / "out")
    lines = (tmp_path / "out" / RECORDS).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == 30


def test_a_folder_that_cannot_be_written_is_named(questions: QuestionSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="cannot be used"):
        run(StubModel(), questions, CELLS, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"

"""Summaries, tables and figures of records whose numbers are known."""

from __future__ import annotations

import ast
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from stub import StubModel

from omnidrop.errors import UsageError
from omnidrop.evaluation import figures, tables
from omnidrop.evaluation.items import QuestionSet
from omnidrop.evaluation.runner import UNPRUNED, cells, run
from omnidrop.evaluation.stats import wilson
from omnidrop.evaluation.summary import ALL, Summary, summarise

#: Which questions each cell gets right.
RIGHT = {
    ("none", 1.0): "012345",
    ("random", 0.5): "02345",
    ("random", 0.2): "02",
    ("omnidrop", 0.5): "012345",
    ("omnidrop", 0.2): "01245",
}
CELLS = cells(["random", "omnidrop"], [0.5, 0.2])


def rule(question: str, method, seed: int) -> str:
    number = question[6]
    right = "no" if int(number) % 2 else "yes"
    wrong = "yes" if right == "no" else "no"
    return right if number in RIGHT[method.name, method.budget] else wrong


@pytest.fixture
def out(questions: QuestionSet, tmp_path: Path) -> Path:
    found = replace(questions, apart=(("evidence", "sparse"),))
    run(StubModel(rule), found, CELLS, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def summary(out: Path) -> Summary:
    return summarise(out)


def test_accuracy_has_wilsons_interval(summary: Summary) -> None:
    row = summary.row("omnidrop", 0.2)
    assert (row.answered, row.right, row.accuracy) == (6, 5, 5 / 6)
    assert (row.low, row.high) == wilson(5, 6)


def test_groups_are_counted_apart(summary: Summary) -> None:
    assert summary.row("random", 0.2, ("evidence", "sparse")).accuracy == 0.0
    assert summary.row("random", 0.2, ("evidence", "long")).accuracy == pytest.approx(2 / 3)
    assert summary.row("random", 0.2, ("category", "sound")).answered == 3
    assert {(c.axis, c.group) for c in summary.cells} == {
        ALL,
        ("category", "sound"),
        ("category", "picture"),
        ("evidence", "sparse"),
        ("evidence", "long"),
    }


def test_cost_is_that_of_the_records(summary: Summary) -> None:
    row = summary.row("random", 0.2)
    assert (row.realised, row.flops, row.kv) == pytest.approx((0.2, 0.2, 0.2))
    assert row.prefill_seconds == pytest.approx(0.1)
    assert summary.row(UNPRUNED, 1.0).flops == 1.0


def pair(summary: Summary, label: str, budget: float, baseline: str, group=ALL):
    return next(
        p
        for p in summary.pairs
        if (p.label, p.budget, p.baseline, (p.axis, p.group)) == (label, budget, baseline, group)
    )


def test_pairs_are_compared_question_by_question(summary: Summary) -> None:
    found = pair(summary, "omnidrop", 0.2, "random")
    assert (found.baseline_budget, found.matched) == (0.2, "budget")
    assert (found.questions, found.clips) == (6, 2)
    assert (found.only_first, found.only_second) == (3, 0)
    assert found.difference == pytest.approx(0.5)
    assert found.p == 0.25
    sparse = pair(summary, "omnidrop", 0.2, "random", ("evidence", "sparse"))
    assert (sparse.only_first, sparse.questions) == (2, 3)
    assert pair(summary, "omnidrop", 0.2, UNPRUNED).matched == "unpruned"


def test_spans_of_a_file_are_one_clip(questions: QuestionSet, tmp_path: Path) -> None:
    items = [replace(i, start=float(n), end=9.0) for n, i in enumerate(questions.items)]
    run(StubModel(rule), questions.part(items), CELLS, tmp_path / "out")
    assert pair(summarise(tmp_path / "out"), "omnidrop", 0.2, "random").clips == 2


def test_p_values_are_corrected_for_all_pairs_of_a_group(summary: Summary) -> None:
    pairs = [p for p in summary.pairs if (p.axis, p.group) == ALL]
    assert len(pairs) == 4 + 2
    smallest = min(p.p for p in pairs)
    assert min(p.p_holm for p in pairs) == pytest.approx(min(1.0, len(pairs) * smallest))


def test_baselines_can_be_chosen(out: Path) -> None:
    found = summarise(out, baselines=["omnidrop"])
    assert {p.baseline for p in found.pairs} == {"omnidrop"}
    assert {p.label for p in found.pairs} == {"random"}
    with pytest.raises(UsageError, match="baseline 'fastv' did not run"):
        summarise(out, baselines=["fastv"])


def test_a_cell_alone_at_its_budget_meets_a_baseline_that_costs_no_less(
    questions: QuestionSet, tmp_path: Path
) -> None:
    made = cells(["random"], [0.5, 0.2], variants=[("mine", "omnidrop", {"budget": 0.3})])
    always = StubModel()
    run(always, questions, made, tmp_path / "out")
    found = pair(summarise(tmp_path / "out"), "mine", 0.3, "random")
    assert (found.baseline_budget, found.matched) == (0.5, "flops")
    dear = cells([], [], variants=[("dear", "omnidrop", {"budget": 0.9})])
    run(always, questions, dear, tmp_path / "out")
    found = summarise(tmp_path / "out")
    assert not [p for p in found.pairs if (p.label, p.baseline) == ("dear", "random")]


def test_errors_and_refusals_are_neither_right_nor_wrong(
    questions: QuestionSet, tmp_path: Path
) -> None:
    def fail(question: str, method, seed: int) -> str:
        if "4" in question and method.name == "random":
            raise RuntimeError("tensor of the wrong shape")
        return rule(question, method, seed)

    run(StubModel(fail, lowest=0.3), questions, CELLS, tmp_path / "out")
    found = summarise(tmp_path / "out")
    assert found.failed == 1
    assert found.errors == (("RuntimeError: tensor of the wrong shape", 1),)
    row = found.row("random", 0.5)
    assert (row.answered, row.failed, row.right) == (5, 1, 4)
    refused = found.row("random", 0.2)
    assert (refused.accuracy, refused.refused, refused.reachable) == (None, 6, (0.3, 1.0))
    assert not [p for p in found.pairs if p.budget == 0.2]
    assert pair(found, "omnidrop", 0.5, "random").questions == 5
    table = tables.overview(found)
    assert [r[2] for r in table.rows if r[:2] == ("random", "20")] == ["– (≥ 30)"]
    assert "1 errors, not counted as answers" in table.note
    assert "RuntimeError" in tables.to_markdown(found)


def test_folders_are_added_up(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(rule), questions, CELLS[:3], tmp_path / "a")
    run(StubModel(rule), questions, (CELLS[0], *CELLS[3:]), tmp_path / "b")
    run(StubModel(rule), questions, CELLS, tmp_path / "both")
    together = summarise([tmp_path / "a", tmp_path / "b"])
    assert together.cells == summarise(tmp_path / "both").cells
    assert together.pairs == summarise(tmp_path / "both").pairs


def test_folders_that_do_not_belong_together_are_refused(
    questions: QuestionSet, tmp_path: Path
) -> None:
    run(StubModel(rule), questions, CELLS, tmp_path / "a")
    run(StubModel(rule), replace(questions, name="other"), CELLS, tmp_path / "b")
    with pytest.raises(UsageError, match=r"set is .*other.* in those in"):
        summarise([tmp_path / "a", tmp_path / "b"])
    run(
        StubModel(rule),
        questions,
        cells([], [0.5], variants=[("random", "random+random@omnidrop", {})]),
        tmp_path / "c",
    )
    with pytest.raises(UsageError, match=r"'random' at 0\.5 stands for different settings"):
        summarise([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(UsageError, match="holds no evaluation"):
        summarise(tmp_path)


def test_an_error_in_one_folder_does_not_undo_an_answer_in_another(
    questions: QuestionSet, tmp_path: Path
) -> None:
    def fail(question: str, method, seed: int) -> str:
        raise RuntimeError("no")

    run(StubModel(rule), questions, CELLS[:1], tmp_path / "a")
    run(StubModel(fail), questions, CELLS[:1], tmp_path / "b")
    for folders in (["a", "b"], ["b", "a"]):
        assert summarise([tmp_path / name for name in folders]).failed == 0


def test_questions_can_be_chosen(out: Path) -> None:
    found = summarise(out, only=["q0", "q1"])
    assert found.row("random", 0.2).answered == 2
    with pytest.raises(UsageError, match="no records"):
        summarise(out, only=[])


def test_damaged_lines_are_counted(out: Path) -> None:
    with (out / "records.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"schema": "omnidrop.eval/1", "key\n')
    assert summarise(out).damaged == 1
    with (out / "records.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"schema": "omnidrop.eval/9", "key": "x"}\n')
    with pytest.raises(UsageError, match=r"schema 'omnidrop\.eval/9'"):
        summarise(out)


def test_the_document_is_plain_json(summary: Summary) -> None:
    found = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert found["schema"] == "omnidrop.eval-summary/1"
    assert found["setup"]["model"]["name"] == "stub"
    assert len(found["cells"]) == 5 * 5


def test_tables_are_as_wide_as_their_headers(summary: Summary) -> None:
    for table in tables.all_tables(summary):
        assert {len(row) for row in table.rows} == {len(table.header)}
    overview = tables.overview(summary)
    assert overview.header[5] == "sparse, %"
    assert overview.rows[0][:2] == ("unpruned", "100")
    assert overview.rows[1][1] == "50"
    assert [table.title for table in tables.all_tables(summary)][2:] == [
        "Paired differences, all questions",
        "Paired differences, evidence: sparse",
    ]


def test_markdown_cells_stay_cells(questions: QuestionSet, tmp_path: Path) -> None:
    label = "a|b <i>*"
    run(
        StubModel(rule),
        questions,
        cells([], [0.5], variants=[(label, "random", {})]),
        tmp_path / "out",
    )
    text = tables.to_markdown(summarise(tmp_path / "out"))
    assert "| a\\|b \\<i\\>\\* | 50 |" in text


def test_csv_holds_the_numbers_in_full(summary: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(summary))))
    assert len(rows) == len(summary.cells)
    first = next(
        r for r in rows if (r["label"], r["budget"], r["axis"]) == ("omnidrop", "0.2", "all")
    )
    assert float(first["accuracy"]) == 5 / 6
    pairs = list(csv.DictReader(io.StringIO(tables.pairs_csv(summary))))
    assert len(pairs) == len(summary.pairs)


def test_the_figure_shows_every_method(summary: Summary, tmp_path: Path) -> None:
    png, svg = figures.save(summary, tmp_path / "accuracy", title="set <b>")
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = svg.read_text(encoding="utf-8")
    for part in (">random<", ">omnidrop<", "unpruned 100.0", "evidence: sparse", "set &lt;b&gt;"):
        assert part in text
    figure = figures.draw(summary)
    left, right = figure.axes
    assert left.get_xscale() == "log"
    drawn = [
        line for line in left.lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"
    ]
    assert sorted(drawn[0].get_xdata()) == pytest.approx([20, 50])
    assert sorted(drawn[0].get_ydata()) == pytest.approx([200 / 6, 500 / 6])
    assert left.get_ylim() == right.get_ylim()


def test_a_name_with_dollars_is_drawn_as_it_is(questions: QuestionSet, tmp_path: Path) -> None:
    label = r"a$\nonsense$b"
    run(StubModel(rule), questions, cells([], [0.5], variants=[(label, "random", {})]), tmp_path)
    svg = figures.save(summarise(tmp_path), tmp_path / "drawn", title="$x")[1]
    assert label in svg.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_figure_is_the_same_for_the_same_numbers(summary: Summary, tmp_path: Path) -> None:
    one = figures.save(summary, tmp_path / "one")[1].read_text(encoding="utf-8")
    assert one == figures.save(summary, tmp_path / "two")[1].read_text(encoding="utf-8")


def test_no_two_lines_look_alike() -> None:
    labels = [f"m{i}" for i in range(40)]
    looks = {tuple(map(str, figures.line_style(labels, label).values())) for label in labels}
    assert len(looks) == 40


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([2.0, 8.0], [2.0, 8.0]),
        ([5.0, 5.0], [4.5, 5.5]),
        ([5.0, 5.0, 5.0], [4.0, 5.0, 6.0]),
        ([1.0, 5.0, 5.2], [1.0, 4.6, 5.6]),
        ([0.0, 0.0], [0.0, 1.0]),
        ([10.0, 10.0], [9.0, 10.0]),
    ],
)
def test_names_are_put_apart_and_stay_inside(wanted: list[float], placed: list[float]) -> None:
    assert figures.spread(wanted, 1.0, 0.0, 10.0) == pytest.approx(placed)


def test_matplotlib_is_imported_when_something_is_drawn_and_not_before() -> None:
    tree = ast.parse(Path(figures.__file__).read_text(encoding="utf-8"))
    always = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert always
    assert not any("matplotlib" in ast.unparse(node) for node in always)

"""`omnidrop eval`: from words to folders of results, on a stub and once on the demo model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import ROOT, environment

sys.path.insert(0, str(ROOT / "tests" / "evaluation"))

from stub import StubModel

import omnidrop
from omnidrop.errors import ModelError, UsageError
from omnidrop_cli.options.eval import EntrantFlags
from omnidrop_cli.options.parsing import parse_value, split_values

FILES = {
    "records.jsonl",
    "setup.json",
    "summary.json",
    "summary.md",
    "summary.tex",
    "summary.csv",
    "pairs.csv",
    "changed.csv",
    "kept.csv",
    "accuracy.png",
    "accuracy.svg",
}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    (tmp_path / "a.mp4").write_text("a clip")
    (tmp_path / "b.mp4").write_text("another clip")
    path = tmp_path / "set.jsonl"
    rows = [
        {
            "id": f"q{i}",
            "video": "ab"[i % 2] + ".mp4",
            "question": f"Is it {i}?",
            "choices": ["yes", "no"],
            "answer": "yes" if i < 3 else "no",
        }
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StubModel:
    stub = StubModel()
    monkeypatch.setattr(omnidrop, "load", lambda options, progress=None: stub)
    return stub


Run = Callable[..., tuple[int, str, str]]


def test_everything_is_written_and_shown(run: Run, model, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, err = run(
        "eval", questions, "--out", out, "--method", "random,omnidrop", "--budget", ".5,.2"
    )
    assert code == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert "Accuracy and cost" in said
    assert "Paired differences, all questions" in said
    assert "75.0 [30.1, 95.4]" in said
    assert "omnidrop: 20 answered" in err
    assert json.loads((out / "summary.json").read_text())["schema"] == "omnidrop.eval-summary/1"
    report = (out / "summary.md").read_text()
    assert report.startswith("# set\n")
    assert "](accuracy.svg)" in report


@pytest.mark.slow
def test_a_second_call_asks_nothing_and_shows_the_same(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    words = ("eval", questions, "--out", tmp_path / "out", "--method", "random", "--budget", "0.5")
    first = run(*words)
    asked = model.count("ask")
    code, said, err = run(*words)
    assert (code, said) == (first[0], first[1])
    assert model.count("ask") == asked
    assert "0 answered, 8 done before" in err


def test_json_is_the_summary_alone(run: Run, model, questions: Path, tmp_path: Path) -> None:
    code, said, err = run(
        "eval", questions, "-o", tmp_path / "out", "--method", "random", "-b", "1", "--json",
        "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(said) == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_errors_end_in_six_and_are_counted(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "b.mp4").unlink()
    words = ("eval", questions, "--out", tmp_path / "out", "--method", "random", "-b", ".5")
    code, said, err = run(*words)
    assert code == 6
    assert "4 errors, not counted as answers" in said
    assert err.count("There is no such file") == 1
    assert "4 answered, 4 failed" in err
    (tmp_path / "b.mp4").write_text("another clip")
    assert run(*words)[0] == 0


def test_a_budget_out_of_reach_is_a_dash(run: Run, model, questions: Path, tmp_path: Path) -> None:
    model.lowest = 0.3
    code, said, err = run(
        "eval", questions, "--out", tmp_path / "out", "--method", "random", "-b", ".5,.1"
    )
    assert code == 0
    assert "– (≥ 30)" in said
    assert "4 refused (budget out of reach)" in err


def test_methods_settings_variants_and_baseline(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    code, said, _ = run(
        "eval", questions, "--out", tmp_path / "out", "--json",
        "--method", "omnidrop,none", "--budget", ".5", "--set", "omnidrop.diversity=0",
        "--variant", "even=uniform+omnidrop:diversity=.1",
        "--variant", "low=random:budget=.1", "--baseline", "even",
    )  # fmt: skip
    assert code == 0
    found = json.loads(said)
    cells = {(c["label"], c["budget"]) for c in found["cells"]}
    assert cells == {("unpruned", 1.0), ("omnidrop", 0.5), ("even", 0.5), ("low", 0.1)}
    assert {p["baseline"] for p in found["pairs"]} == {"even"}
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    methods = {r["label"]: r["method"] for r in map(json.loads, lines)}
    assert methods["omnidrop"]["diversity"] == 0
    assert methods["even"]["name"] == "uniform+omnidrop"
    assert methods["even"]["layers.diversity"] == 0.1


def test_two_methods_joined_and_one_whose_budget_is_split(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    code, _, err = run(
        "eval", questions, "--out", tmp_path / "out",
        "--method", "omnidrop,uniform+omnidrop,random@omnidelta", "-b", ".5",
        "--set", "uniform+omnidrop.layers.diversity=0", "--set", "random@omnidelta.shift=0.2",
        "--quiet",
    )  # fmt: skip
    assert code == 0, err
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    methods = {r["label"]: r["method"] for r in map(json.loads, lines)}
    assert methods["uniform+omnidrop"]["layers.diversity"] == 0
    assert methods["random@omnidelta"]["shift"] == 0.2
    assert methods["omnidrop"]["diversity"] == 0.2


def test_presets_from_calibrate_run_beside_the_defaults(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    preset = tmp_path / "mine.json"
    made = {"method": "fastv", "budgets": [0.5], "fields": {"after": 1}}
    preset.write_text(json.dumps({"schema": "omnidrop.preset/1", **made}))
    code, _said, err = run(
        "eval", questions, "--out", tmp_path / "out", "--json", "--method", "fastv", "-b", ".5",
        "--preset", preset, "--variant", f"own={preset}:budget=.3,cache=cut",
    )  # fmt: skip
    assert code == 0, err
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    found = {(r["label"], r["asked"]): r["method"] for r in map(json.loads, lines)}
    assert found["fastv", 0.5]["after"] == 2
    assert found["mine", 0.5]["after"] == found["own", 0.3]["after"] == 1
    assert found["own", 0.3]["cache"] == "cut"


@pytest.mark.slow
def test_all_runs_every_method(run: Run, model, questions: Path, tmp_path: Path) -> None:
    from omnidrop.pruning.registry import method_names

    out = tmp_path / "out"
    run("eval", questions, "--out", out, "--method", "all", "-b", ".5", "--limit", "1")
    found = {json.loads(line)["label"] for line in (out / "records.jsonl").read_text().splitlines()}
    assert found == {"unpruned", *method_names()} - {"none"}


@pytest.mark.slow
def test_all_leaves_out_what_was_not_trained_for_the_model(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    """With a notice; what is named is asked all the same."""
    untrained = ("contextguard", "omnisift")
    model.lacks = lambda method: (
        ModelError("There is none.", hint="Train one.") if method.name in untrained else None
    )
    words = ("eval", questions, "-b", ".5", "--limit", "1", "--method")

    def labels(out: Path) -> set[str]:
        return {json.loads(line)["label"] for line in (out / "records.jsonl").open()}

    code, _, err = run(*words, "all", "--out", tmp_path / "all")
    assert code == 0
    assert not labels(tmp_path / "all") & set(untrained)
    for name in untrained:
        assert f"notice: {name} is left out. There is none. Train one." in " ".join(err.split())
    run(*words, "all,omnisift", "--set", "contextguard.merge=0", "--out", tmp_path / "named")
    assert labels(tmp_path / "named") > set(untrained)
    code, _, err = run(*words, "all", "--baseline", "omnisift", "--out", tmp_path / "baseline")
    assert code == 2
    assert "'omnisift' does not run" in err


@pytest.mark.slow
def test_folders_are_added_up_without_a_model(
    run: Run, model, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "uniform"):
        run("eval", questions, "--out", tmp_path / name, "--method", name, "--budget", ".5")
    monkeypatch.setattr(omnidrop, "load", None)
    words = ("eval", "--summary", tmp_path / "random", tmp_path / "uniform")
    code, said, err = run(*words, "--json")
    assert (code, err) == (0, "")
    assert {c["label"] for c in json.loads(said)["cells"]} == {"unpruned", "random", "uniform"}
    assert run(*words, "--out", tmp_path / "both")[0] == 0
    assert {p.name for p in (tmp_path / "both").iterdir()} == FILES - {
        "records.jsonl",
        "setup.json",
    }
    assert run(*words, "--out", tmp_path / "both")[0] == 0


def test_a_file_of_somebody_elses_is_not_replaced(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "summary.md").write_text("my own")
    code, _, err = run("eval", questions, "--out", out)
    assert code == 2
    assert "summary.md is there, and is not from an evaluation" in err
    assert (out / "summary.md").read_text() == "my own"


@pytest.mark.parametrize("name", ["summary.json", "records.jsonl"])
def test_nor_is_one_with_a_common_name(
    run: Run, model, questions: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text('{"mine": 1}\n')
    code, _, err = run("eval", questions, "--out", tmp_path)
    assert (code, f"{name} is there" in err) == (2, True)
    assert (tmp_path / name).read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "A question set is missing"),
        (("--summary",), "A folder is missing"),
        (("{set}",), "--out is missing"),
        (("{set}", "{set}", "--out", "o"), "One question set at a time"),
        (("none.jsonl", "--out", "o"), "The question set cannot be read"),
        (("{set}", "--out", "o", "--method", "nothing"), "no method 'nothing'"),
        (("{set}", "--out", "o", "--budget", "2"), "--budget 2 is not valid"),
        (("{set}", "--out", "o", "--budget", "half"), "is not a list of budgets"),
        (("{set}", "--out", "o", "--set", "diversity=0"), "is not METHOD.NAME=VALUE"),
        (("{set}", "--out", "o", "--set", "omnidrop.budget=0.1"), "Use --budget"),
        (("{set}", "--out", "o", "--set", "fastv.after=1"), "'fastv', which does not run"),
        (("{set}", "--out", "o", "--variant", "x"), "is not LABEL=METHOD"),
        (("{set}", "--out", "o", "--variant", "x=omnidrop:diversity"), "is not NAME=VALUE"),
        (("{set}", "--out", "o", "--variant", "omnidrop=random"), "label 'omnidrop' is taken"),
        (("{set}", "--out", "o", "--baseline", "fastv"), "baseline 'fastv' does not run"),
        (("{set}", "--out", "o", "--limit", "0"), "--limit must be 1 or more"),
        (("{set}", "--out", "o", "--score", "luck"), "Unknown --score 'luck'"),
        (("{set}", "--out", "o", "--style", "odd"), "Unknown --style 'odd'"),
        (("{set}", "--out", "o", "--seed", "-1"), "--seed must be 0 or more"),
        (("avsynth", "--out", "o", "--videos", "{dir}"), "make_clips.py"),
        (("--summary", "{dir}"), "holds no evaluation"),
    ],
)
def test_what_cannot_be_meant_is_said_before_a_model_is_loaded(
    run: Run, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, said
) -> None:
    monkeypatch.setattr(omnidrop, "load", None)
    monkeypatch.chdir(tmp_path)
    named = [w.format(set=questions, dir=tmp_path) for w in words]
    code, out, err = run("eval", *named)
    assert (code, out) == (3 if "none.jsonl" in words else 2, "")
    assert said in err
    assert not (tmp_path / "o").exists()


def test_another_model_in_the_same_folder_is_refused(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    words = ("eval", questions, "--out", tmp_path / "out", "--method", "random", "-b", ".5")
    run(*words)
    model.weights = model.weights + 1
    code, _, err = run(*words)
    assert code == 2
    assert "give --out another folder" in err


def test_values_are_numbers_lists_or_words() -> None:
    assert [parse_value(t) for t in (".5", "-.5", "3", "1e-3", "True", "none", "null", "own")] == [
        0.5, -0.5, 3, 0.001, True, None, None, "own",
    ]  # fmt: skip
    assert split_values('a=1,b=[1,2],c="x,y",d={"e": 1, "f": 2},') == [
        "a=1", "b=[1,2]", 'c="x,y"', 'd={"e": 1, "f": 2}',
    ]  # fmt: skip
    with pytest.raises(UsageError, match="names no method"):
        _ = EntrantFlags(methods=",").names


def test_what_the_numbers_cannot_say_is_on_the_screen(
    run: Run, model, questions: Path, tmp_path: Path
) -> None:
    model.rule = lambda question, method, seed: "A" if method.name == "none" else "well"
    code, said, _ = run("eval", questions, "--out", tmp_path / "out", "--method", "uniform", "-b.5")
    words = " ".join(said.split())
    assert code == 0
    assert "! THE UNPRUNED MODEL IS NOT ABOVE CHANCE: 75.0 % right" in words
    assert "! 4 replies named none of the choices and count as wrong: “well” (4)." in words
    assert "Changed answers" in said
    assert "4 answers differ: 3 are wrong only pruned, 0 only unpruned." in words
    assert words.index("CHANCE") < words.index("Accuracy and cost")


def test_questions_outside_are_named_and_then_counted(
    run: Run, model, tmp_path: Path, questions: Path
) -> None:
    from omnidrop.models.world import World

    rows = [json.loads(line) for line in questions.read_text("utf-8").splitlines()]
    rows += [rows[0] | {"id": f"w{n}", "question": f"Who{n * 'o'} is it?"} for n in range(5)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = frozenset(["is", "it", "0", "1", "2", "3", "yes", "no"])
    model.world = model.adapter.world = World({"numbers": ("0",)}, words, (5, 10), 20, "plain")
    code, said, err = run(
        "eval", questions, "--out", tmp_path / "out", "--method", "uniform", "-b.5"
    )
    assert code == 6
    assert [f"“Who{n * 'o'}”" in err for n in range(5)] == [True] * 3 + [False] * 2
    assert "5 questions are outside of what the model knows and counted as errors." in err
    assert "10 errors, not counted as answers." in " ".join(said.split())


def test_seeds_and_latex(run: Run, model, questions: Path, tmp_path: Path) -> None:
    model.rule = lambda question, method, seed: "AB"[seed % 2]
    words = ("eval", questions, "--out", tmp_path / "out", "--method", "random", "-b", ".5")
    table = tmp_path / "table.tex"
    code, said, err = run(*words, "--seeds", "3", "--latex", table)
    assert code == 0
    assert "16 answered" in err, "four questions, unpruned and with three seeds"
    assert "± seeds" in said
    assert table.read_text("utf-8") == (tmp_path / "out" / "summary.tex").read_text("utf-8")
    assert "\\toprule" in table.read_text("utf-8")
    asked = model.count("ask")
    code, _, err = run(*words, "--latex", table)
    assert code == 2
    assert "table.tex" in err
    assert model.count("ask") == asked, "the file is looked at first"
    assert run(*words, "--latex", table, "--force")[0] == 0
    assert run(*words, "--seeds", "0")[0] == 2


@pytest.mark.slow
def test_the_demo_model_answers_and_can_be_interrupted(run: Run, tmp_path: Path) -> None:
    """On a real clip: Ctrl-C leaves a folder that the next call goes on with."""
    rows = [
        {
            "id": f"{i}",
            "video": "duet.mp4",
            "question": "What instrument plays first?",
            "answer": "piano",
        }
        for i in range(40)
    ]
    path, out = tmp_path / "q.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [
        "eval", str(path), "--videos", str(ROOT / "samples"), "--model", "demo", "--device", "cpu",
        "--method", "random", "--budget", ".5", "--out", str(out),
    ]  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "omnidrop_cli", *words],
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    records = out / "records.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (records.exists() and records.stat().st_size > 2000):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=30) == 130
    done = records.read_bytes().count(b"\n")
    assert 0 < done < 80
    code, _, err = run(*words, "--limit", "1")
    assert code == 0
    assert "done before" in err
    lines = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    assert len({line["key"] for line in lines}) == len(lines)
    assert {line["right"] for line in lines if line["label"] == "unpruned"} == {True}


def test_ctrl_c_says_what_is_kept(run, fake, tmp_path, monkeypatch) -> None:
    from omnidrop.evaluation import runner

    (tmp_path / "q.jsonl").write_text(
        '{"id": "a", "video": "a.mp4", "question": "What?", "answer": "x", "choices": ["x", "y"]}\n'
    )
    (tmp_path / "a.mp4").write_bytes(b"x")

    def stopped(*given, on_record, **more):
        on_record(runner.Tally(answered=3), None)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", stopped)
    words = ("eval", tmp_path / "q.jsonl", "--out", tmp_path / "r")
    code, _, err = run(*words)
    assert code == 130
    said = (
        f"omnidrop: interrupted: 3 of 13 answers are in {tmp_path / 'r'}. The same command goes on"
    )
    assert said in err
    assert "interrupted" not in run(*words, "--quiet")[2]

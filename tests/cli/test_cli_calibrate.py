"""`omnidrop calibrate` and what its preset files do in the other commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import ROOT

sys.path.insert(0, str(ROOT / "tests" / "evaluation"))

from stub import StubModel

import omnidrop
from omnidrop.errors import UsageError
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.recommended import SAFE
from omnidrop_cli.options.eval import EntrantFlags
from omnidrop_cli.options.profile import CompareFlags
from omnidrop_cli.options.pruning import DropFlags


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = []
    for clip in "abcd":
        (tmp_path / f"{clip}.mp4").write_text(clip)
        row = {"video": f"{clip}.mp4", "choices": ["yes", "no"], "answer": "yes"}
        rows += [row | {"id": f"{clip}{i}", "question": f"Is it {i}?"} for i in range(3)]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StubModel:
    stub = StubModel()
    stub.info.text = SimpleNamespace(vocab=4, layers=16)
    monkeypatch.setattr(omnidrop, "load", lambda options, progress=None: stub)
    return stub


WORDS = ("--budget", "0.3", "--try", "beta=10,20,40", "--only", "--candidates", "3", "--style")


def test_a_preset_is_written_and_used(run, model, questions, tmp_path) -> None:
    out = tmp_path / "mine.json"
    words = (*WORDS, "plain", "--method", "omnidrop")
    code, said, err = run("calibrate", questions, *words, "--out", out)
    assert (code, model.count("ask") > 0) == (0, True)
    assert "held out" in said
    assert "omnidrop: wrote" in err
    assert "at most" in err
    found = json.loads(out.read_text("utf-8"))
    assert (found["schema"], found["method"]) == ("omnidrop.preset/1", "omnidrop")
    assert found["budgets"] == [0.3]
    assert found["made"]["held_out"]["clips"] == 2
    assert DropFlags(preset=str(out)).pruning() == OmniDrop(budget=0.3, **found["fields"])
    asked = model.count("ask")
    code, said, _ = run(
        "calibrate",
        questions,
        *WORDS,
        "plain",
        "--method",
        "omnidrop",
        "--out",
        out,
        "--force",
        "--json",
    )
    assert (code, json.loads(said)) == (0, found)
    assert model.count("ask") == asked  # all of it was known


def test_nothing_is_asked_in_a_dry_run(run, model, questions) -> None:
    code, said, err = run("calibrate", questions, "--dry-run", "--try", "lead=1,7")
    assert (code, said, model.log) == (0, "", [])
    for part in ("lead", "1 7", "power", "at most", "held out"):
        assert part in err


def test_two_methods_joined(run, model, questions, tmp_path) -> None:
    out = tmp_path / "joined.json"
    words = ("--budget", "0.3", "--try", "layers.beta=10,40", "--only", "--candidates", "2")
    code, _, err = run(
        "calibrate", questions, "--method", "uniform+omnidrop", *words, "--style", "plain",
        "--out", out,
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out.read_text("utf-8"))["method"] == "uniform+omnidrop"
    assert DropFlags(preset=str(out)).pruning().name == "uniform+omnidrop"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--out is missing"),
        (("--out", "x.txt"), "A preset is a .json file"),
        (("--out", "no/such/x.json"), "does not exist"),
        (("--dry-run", "--only"), "leaves nothing to try"),
        (("--dry-run", "--try", "beta"), "is not NAME=VALUE"),
        (("--dry-run", "--try", "betta=1"), "'betta' of omnidrop-auto cannot be tuned"),
        (("--dry-run", "--budget", "2"), "--budget 2 is not valid"),
        (("--dry-run", "--held-out", "1"), "leaves one side empty"),
        (("--dry-run", "--candidates", "1"), "no search"),
        (("--dry-run", "--method", "omnidrp"), "Did you mean omnidrop"),
        (("--dry-run", "--method", "uniform"), "uniform declares nothing to tune"),
        (("--dry-run", "--limit", "3"), "two clips"),
    ],
)
def test_mistakes(run, model, questions, words, message) -> None:
    code, said, err = run("calibrate", questions, *words)
    assert (code, said, model.log) == (2, "", [])
    assert message in " ".join(err.split())


def test_a_preset_that_exists_is_kept(run, model, questions, tmp_path) -> None:
    out = tmp_path / "mine.json"
    out.write_text("mine")
    assert run("calibrate", questions, *WORDS, "plain", "--out", out)[0] == 2
    assert out.read_text() == "mine"


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.json"
    fields = {"t_mid": 0.4, "diversity": 0.1}
    document = {"schema": "omnidrop.preset/1", "method": "omnidrop", "budgets": [0.2]}
    path.write_text(json.dumps(document | {"fields": fields}), encoding="utf-8")
    return path


def test_preset_and_budget(preset) -> None:
    tuned = OmniDrop(budget=0.2, t_mid=0.4, diversity=0.1)
    assert DropFlags(preset=str(preset)).pruning() == tuned
    made = DropFlags(preset=str(preset), budget=0.5, settings=["diversity=0"]).pruning()
    assert made == OmniDrop(budget=0.5, t_mid=0.4, diversity=0)
    for wrong in ({"preset": "paper-7b-30", "budget": 0.5}, {"preset": "x", "method": "fastv"}):
        with pytest.raises(UsageError, match="preset"):
            DropFlags(**wrong)
    with pytest.raises(UsageError, match="cannot be read"):
        DropFlags(preset="missing.json").pruning()


def test_presets_in_eval(preset) -> None:
    flags = EntrantFlags(presets=[str(preset)], methods="")
    assert flags.names == ()
    assert flags.labelled() == [("tuned", "omnidrop", {"t_mid": 0.4, "diversity": 0.1})]


def test_presets_in_profile(preset) -> None:
    flags = CompareFlags(presets=[str(preset), "paper-7b-30"], budgets=(0.5, 0.2))
    made = [drop.pruning() for drop in flags.drops(SAFE)]
    assert [(m.name, m.budget, m.t_mid) for m in made] == [
        ("omnidrop", 0.5, 0.4),
        ("omnidrop", 0.2, 0.4),
        ("omnidrop", 0.3, 0.5),
    ]
    both = CompareFlags(methods="fastv", presets=[str(preset)]).drops(SAFE)
    assert [drop.pruning().name for drop in both] == ["fastv", "omnidrop"]


def test_a_preset_in_ask(run, preset) -> None:
    clip = ROOT / "samples" / "duet.mp4"
    words = ("--model", "demo", "--preset", preset, "--budget", "0.4", "--json")
    code, said, _ = run("ask", clip, "Which instrument plays first?", *words)
    assert code == 0
    method = json.loads(said)["trace"]["method"]
    assert (method["name"], method["budget"], method["t_mid"]) == ("omnidrop", 0.4, 0.4)


def test_too_few_questions_are_said_before_and_after(run, model, questions, tmp_path) -> None:
    """The stub is always right; 6 questions about 2 clips are held out."""
    asked = (*WORDS, "plain", "--method", "omnidrop", "--out", tmp_path / "p.json")
    code, said, err = run("calibrate", questions, *asked)
    words = " ".join(said.split())
    assert code == 0
    assert "6 questions about 2 clips are held out, and fewer than 20" in " ".join(err.split())
    assert "Nothing tried was better than the defaults; the preset holds them." in words
    assert json.loads((tmp_path / "p.json").read_text("utf-8"))["fields"] == {}


def test_the_verdict_names_the_questions_it_would_take() -> None:
    from omnidrop.evaluation.calibrate.search import Gain, Side, standing
    from omnidrop.evaluation.calibrate.trials import Mark
    from omnidrop_cli.commands.calibrate import _verdict

    some = standing([Mark(0.6, True, 0.3, 0.3)])
    gain = Gain(0.05, -0.1, 0.2, 0.5, 0.02, -0.04, 0.08, 0.02, -0.04, 0.08)

    def said(questions: int, clips: int, found: Gain = gain) -> str:
        side = Side(questions, clips, some, some, found)
        return _verdict(SimpleNamespace(best={"beta": 10}, better=False, held_out=side))

    assert "the interval holds 0; a gain of this size needs about 360 held-out" in said(40, 10)
    few = said(10, 2)
    assert "Too few questions to prefer anything (10 questions about 2 clips" in few
    assert "needs about 90 held-out questions" in few
    assert "The preset holds the defaults." in few
    worse = Gain(-0.05, -0.1, 0.0, 0.5, -0.02, -0.04, 0.0, -0.02, -0.04, 0.0)
    assert said(40, 10, worse).startswith(
        "Held out, it is no better than the defaults: -5.0 points"
    )

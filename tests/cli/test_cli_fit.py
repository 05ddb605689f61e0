"""Limits and `--budget auto` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnidrop.errors import UsageError
from omnidrop_cli.options.parsing import parse_duration, parse_size
from omnidrop_cli.options.pruning import DropFlags


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2.0), ("500ms", 0.5), ("500 ms", 0.5), (".5 s", 0.5), ("3", 3.0)]
)
def test_durations(text, seconds) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("12GB", 12e9), ("12 GiB", 12 * 2**30), ("800MB", 8e8), ("1.5gb", 1.5e9), (" 1TB ", 1e12)],
)
def test_sizes(text, count) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "s", "-2s", "0s", "2 seconds", "1e3s", "2  s", "nan", "٢s"])
def test_what_is_no_duration(text) -> None:
    with pytest.raises(UsageError, match=r"is not a duration\. Write it like 2s or 500ms"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["12", "GB", "0GB", "12 G", "12GBs", "-1GB", "1,5GB"])
def test_what_is_no_size(text) -> None:
    with pytest.raises(UsageError, match=r"is not an amount of memory\. Write it like 12GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fit-latency", "soon"), "'soon' is not a duration."),
        (("--fit-memory", "12"), "'12' is not an amount of memory."),
        (("--fit-latency", "2s", "--budget", "0.3"), "Limits find the budget."),
        (("--fit-latency", "2s", "--preset", "seats-7b"), "A preset sets the budget"),
        (("--fit-latency", "2s", "--method", "none"), "--method none keeps every token"),
        (("--fit-pixels",), "--fit-pixels and --fit-fps need a limit."),
        (("--budget", "auto", "--method", "fastv"), "--budget auto is the method omnidrop-auto"),
        (("--budget", "auto", "--preset", "p"), "--budget auto is the method omnidrop-auto"),
        (("--keep-mass", "0.5"), "--keep-mass goes with --budget auto."),
        (("--budget", "auto", "--method", "uniform+omnidrop"), "joined like uniform+omnidrop-auto"),
        (("--keep-mass", "0.5", "--method", "fastv"), "--keep-mass goes with --budget auto."),
        (("--budget", "auto", "--keep-mass", "1"), "--keep-mass 1 is not valid (0 < P < 1)"),
    ],
)
def test_mistakes(run, fake, clip, words, said) -> None:
    code, out, err = run("ask", clip, "What?", *words)
    assert (code, out, fake.log) == (2, "", [])
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "budget", "mass"),
    [
        (DropFlags(budget="auto"), 0.3, 0.85),
        (DropFlags(budget="auto", keep_mass=0.6), 0.3, 0.6),
        (DropFlags(budget="auto", settings=["keep_mass=0.7"]), 0.3, 0.7),
        (DropFlags(budget=0.2, method="omnidrop-auto", keep_mass=0.6), 0.2, 0.6),
        (DropFlags(budget=0.2, method="omnidrop-auto"), 0.2, None),
        (DropFlags(budget="auto", method="omnidrop-auto", keep_mass=0.6), 0.3, 0.6),
    ],
)
def test_budget_auto_is_a_method(flags, budget, mass) -> None:
    method = flags.pruning()
    assert (method.name, method.budget, method.keep_mass) == ("omnidrop-auto", budget, mass)


def test_budget_auto_of_a_composition() -> None:
    method = DropFlags(budget="auto", method="uniform+omnidrop-auto", keep_mass=0.6).pruning()
    assert (method.name, method.budget) == ("uniform+omnidrop-auto", 0.3)
    assert method.layers.keep_mass == 0.6


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from omnidrop.testing import media

    return media.mp4(tmp_path_factory.mktemp("fit") / "film.mp4", seconds=3.0)


@pytest.mark.slow
def test_limits_on_a_real_model(run, film, tmp_path) -> None:
    from omnidrop.models.qwen2_5_omni import tiny as checkpoints

    folder = checkpoints.tiny_thinker(tmp_path / "model", layers=4)
    asked = ("-m", folder, "--device", "cpu", "--dtype", "float32", "--max-new-tokens", "2")
    flags = ("--fit-latency", "900s", "--fit-memory", "900GB", "--fit-pixels")
    code, out, err = run("ask", film, "What plays?", *asked, *flags, "--json")
    trace = json.loads(out)["trace"]
    assert code == 0
    assert trace["asked_budget"] == 1.0
    assert trace["notices"][-1].startswith("--fit-latency 900 s --fit-memory 900 GB: budget 1, exp")
    assert err == ""

    code, out, err = run("ask", film, "What plays?", *asked, "--fit-latency", "1ms")
    assert (code, out) == (2, "")
    assert "--fit-latency 1 ms cannot be met: even a budget of 0.01 is expected to take" in err

    rows = tmp_path / "questions.jsonl"
    rows.write_text(json.dumps({"clip": str(film), "question": "What plays?"}) + "\n")
    made = tmp_path / "answers.jsonl"
    fields = ("--fields", "answer,notices")
    code, _, _ = run("batch", rows, "--out", made, *asked, "--fit-memory", "900GB", *fields)
    assert code == 0
    found = json.loads(made.read_text())
    assert "--fit-memory 900 GB: budget 1" in json.dumps(found)

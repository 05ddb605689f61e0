"""`omnidrop models`, `doctor` and `chunks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import ROOT

from omnidrop.errors import UsageError
from omnidrop.models.locations import KnownModel, demo_folder, known_models
from omnidrop.testing import media
from omnidrop_cli.commands import doctor_checks as checkup
from omnidrop_cli.commands.models import model_rows
from omnidrop_cli.options.pruning import DropFlags
from omnidrop_cli.terminal import columns as tables
from omnidrop_cli.terminal.columns import table


def test_models(run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    for part in ("demo", "Qwen/Qwen2.5-Omni-3B", "omnidrop", "fastv", "paper-7b-30", "budget=0.3"):
        assert part in out
    found = json.loads(run("models", "--json")[1])
    assert {m["alias"] for m in found["models"]} >= {"demo", "3b", "7b"}
    assert {m["name"] for m in found["methods"]} >= {"none", "omnidrop", "random"}
    assert "METHOD@omnidelta" in out
    (split,) = found["wrappers"]
    assert split["name"] == "METHOD@omnidelta"
    assert "method" not in split["settings"]
    assert len(found["presets"]) >= 4


def test_doctor(run) -> None:
    code, out, err = run("doctor", "--json")
    found = json.loads(out)["findings"]
    names = {f["name"] for f in found}
    assert {"omnidrop", "python", "torch", "cpu", "memory", "codecs", "cache"} <= names
    assert code == (4 if any(f["mark"] == "wrong" for f in found) else 0)
    assert err == ""


def test_doctor_names_what_is_wrong(run, monkeypatch) -> None:
    def broken():
        raise OSError("libcuda.so: no such file")

    findings = [checkup.Finding("ok", "a", "fine"), checkup.Finding("wrong", "b", "bad", "fix b")]
    monkeypatch.setattr(checkup, "checkup", lambda: findings)
    code, out, _ = run("doctor")
    assert code == 4
    assert "→ fix b" in out
    assert "1 thing wrong." in out
    monkeypatch.undo()
    for name in ("_versions", "_model_code", "_processor", "_devices", "_memory", "_quantising",
                 "_codecs", "_cache", "_screen"):  # fmt: skip
        monkeypatch.setattr(checkup, name, broken)
    assert all(f.mark == "wrong" for f in checkup.checkup())


def test_table_wraps_the_last_column() -> None:
    text = tables.table([("a", "one two three four"), ("bcd", "x")], indent=2, room=26)
    assert text == "  a    one two three four\n  bcd  x"
    text = tables.table([("a", "one two three four five")], room=24)
    assert text == "a  one two three four\n   five"
    assert tables.table([]) == ""


def test_chunks(run, clip, tmp_path) -> None:
    silent = media.silent_mp4(tmp_path / "silent.mp4", seconds=1.0)
    out = tmp_path / "c"
    code, stdout, err = run("chunks", silent, "--out", out)
    written = [Path(line) for line in stdout.splitlines()]
    assert code == 0
    assert written
    assert sorted(written) == sorted(out.rglob("*.*"))
    assert err == "omnidrop: notice: The clip has no audio.\n"
    assert run("chunks", silent, "--out", tmp_path / "d", "--quiet")[2] == ""
    assert run("chunks", clip, "--out", clip)[0] == 2
    assert run("chunks", "none.mp4", "--out", out)[0] == 3
    assert run("chunks", clip)[0] == 2


def test_methods_from_flags() -> None:
    made = DropFlags().pruning()
    assert (made.name, made.budget) == ("omnidrop", 0.3)
    assert DropFlags(method="none").pruning().budget == 1.0
    assert DropFlags(method="random", budget=0.5).pruning().name == "random"
    made = DropFlags(preset="paper-7b-20", settings=["diversity=0"]).pruning()
    assert (made.budget, made.diversity, made.solve) == (0.2, 0, False)
    for wrong in (
        {"method": "nothing"},
        {"preset": "nothing"},
        {"method": "none", "budget": 0.5},
        {"settings": ["no_such=1"]},
        {"settings": ["rows=everything"]},
        {"settings": ["rows"]},
    ):
        with pytest.raises(UsageError):
            DropFlags(**wrong).pruning()


def test_models_shows_each_default_and_its_source(run) -> None:
    out = run("models")[1]
    rows = [" ".join(line.split()) for line in out.splitlines()]
    first = rows.index("Defaults (without --method and --budget)")
    demo, small, large = rows[first + 1 : first + 4]
    others = next(row for row in rows[first:] if row.startswith("others "))
    assert demo.startswith("demo omnidrop-auto at 30 % measured on AVSynth: 95.7 % right")
    assert small.startswith("3b omnidrop at 30 % the paper's schedule (arXiv 2605.14458)")
    assert large.startswith("7b omnidrop at 30 % the paper's schedule (arXiv 2605.14458)")
    assert others.startswith("others dash at 50 % this model was not measured")
    found = json.loads(run("models", "--json")[1])
    by_alias = {model["alias"]: model["recommended"] for model in found["models"]}
    assert (by_alias["demo"]["method"], by_alias["demo"]["budget"]) == ("omnidrop-auto", 0.3)
    assert by_alias["7b"]["presets"] == {"0.3": "paper-7b-30", "0.2": "paper-7b-20"}
    assert found["other_models"]["recommended"]["method"] == "dash"


def test_the_demos_default_states_what_was_measured() -> None:
    """The source's figures are those of the comparison."""
    from omnidrop.models.locations import recommended_by_name

    rows = (ROOT / "benchmarks/comparison/methods/summary.csv").read_text("utf-8").splitlines()
    table = [dict(zip(rows[0].split(","), row.split(","), strict=False)) for row in rows[1:]]
    found = recommended_by_name("demo")
    right = {
        row["label"]: 100 * float(row["accuracy"])
        for row in table
        if row["axis"] == "all" and (row["label"], row["budget"]) in
        {("unpruned", "1.0"), (found.method, str(found.budget))}
    }  # fmt: skip
    assert f"{right[found.method]:.1f} % right, {right['unpruned']:.1f} % unpruned" in found.source


def test_models_shows_sizes_and_what_the_demo_knows(run) -> None:
    lines = run("models")[1].splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  demo"))
    size = sum(p.stat().st_size for p in demo_folder().rglob("*") if p.is_file())
    assert lines[at].endswith(f"on this machine, {size / 1e6:.1f} MB")
    assert lines[at + 1].strip() == "only instruments, shapes, colours"


def test_models_fit_80_columns() -> None:
    rows = [row for model in known_models() for row in model_rows(model)]
    assert max(map(len, table(rows, indent=2, room=80).splitlines())) <= 80


@pytest.mark.parametrize(
    ("size", "about"),
    [("22.4 GB", "on this machine, 22.4 GB"), (None, "not on this machine")],
)
def test_the_row_of_a_model(size, about) -> None:
    state = about.split(",")[0]
    model = KnownModel("7b", "Qwen/Qwen2.5-Omni-7B", state, size, "/cache" if size else None)
    assert list(model_rows(model)) == [("7b", "Qwen/Qwen2.5-Omni-7B", about)]

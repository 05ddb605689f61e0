"""The papers' tables: their figures and settings, and each run on a stub in publishers' layouts."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.papers import measured, table
from benchmarks.papers.published import TABLES
from benchmarks.papers.rows import Figures, Row, Table
from omnidrop.evaluation.sets import formats
from omnidrop.evaluation.summary import CellRow, PairRow, Summary
from omnidrop.pruning.registry import get_method
from omnidrop_cli.options.eval import EntrantFlags

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ROOT / "benchmarks" / "papers"
FIXTURES = ROOT / "tests" / "evaluation" / "fixtures"
EVERY = sorted(TABLES)


# Figures and settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_means_are_those_of_the_rows(name: str) -> None:
    """A mistyped figure moves a mean, or the share of the unpruned model's mean."""
    found = TABLES[name]
    full = found.rows[0].published
    for row in found.rows:
        own = row.published
        assert set(own.right) <= {column.set for column in found.columns}
        if own.mean is None:
            continue
        assert statistics.fmean(own.right.values()) == pytest.approx(own.mean, abs=0.051)
        assert full.mean is not None
        assert own.of_full == pytest.approx(100 * own.mean / full.mean, abs=0.25)


@pytest.mark.parametrize("name", EVERY)
def test_rows_reach_eval_with_their_settings(name: str) -> None:
    """What `--variant` is given becomes the very method of the row."""
    rows = [row for row in TABLES[name].rows if row.runs and not row.full]
    assert rows
    flags = EntrantFlags(methods="none", variants=[table.variant(row) for row in rows])
    for row, (label, method, fields) in zip(rows, flags.labelled(), strict=True):
        assert label == row.key
        assert get_method(method, **fields) == row.made()


def test_rows_have_the_published_settings() -> None:
    seats = {row.key: row.made() for row in TABLES["seats"].rows}
    assert seats["seats-10"].settings()["ratios"] == (0.06, 0.35)
    assert seats["seats-10"].settings()["scale"] == 1.4
    large = {row.key: row.made() for row in TABLES["seats-30b"].rows}
    assert large["seats-25"].settings()["ratios"] == (0.22, 0.60)
    own = {row.key: row.made().settings() for row in TABLES["omnidrop"].rows if row.runs}
    assert (own["omnidrop-20"]["p_init"], own["omnidrop-20"]["p_final"]) == (0.02, 0.5)
    assert (own["omnidrop-20"]["diversity"], own["sigmoid-20"]["diversity"]) == (0.2, 0.0)
    assert own["entry-45"]["p_final"] == 0.0
    small = {row.key: row.made().settings() for row in TABLES["omnidrop-3b"].rows}
    assert (small["omnidrop-20"]["t_mid"], small["omnidrop-20"]["diversity_from"]) == (0.55, 19)


def test_sets_are_asked_as_published() -> None:
    asked = TABLES["seats"].column("video-mme").asked
    assert asked.words()[:6] == ["--fps", "2", "--max-frames", "768", "--max-pixels", "112896"]
    assert asked.words()[-2:] == ["--max-new-tokens", "16"]
    assert asked.words()[6:8] == ["--system", ""]
    assert "analyze the video" in str(TABLES["seats"].column("daily-omni").asked.system)
    assert TABLES["seats-30b"].column("omnivideobench").asked.max_frames == 196
    assert TABLES["contextguard"].column("worldsense").asked.words() == []


@pytest.mark.parametrize("name", EVERY)
def test_every_table_says_what_it_rests_on(name: str) -> None:
    found = TABLES[name]
    assert found.sources
    assert found.rows[0].full
    assert {column.set for column in found.columns} <= set(formats())
    for row in found.rows:
        assert row.full or row.left_out or row.preset or row.method
    unprinted = [row for row in found.rows if row.published == Figures()]
    assert not unprinted or found.unknown


def test_show_prints_figures_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["omnidrop", "--show", "avut=/data/AV UT"]) == 0
    said = capsys.readouterr().out
    assert "| OmniDrop 30 % | 66.52 | 46.6 | 64.01 | – |" in said
    assert "| Before the LLM only, 30 % * | not known | 44.33 | 59.34 | – |" in said
    assert "omnidrop eval 'avut:/data/AV UT' --out OUT/avut --model 7b --fps 2" in said
    assert "entry-30" not in said


def test_wrong_usage_names_the_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, said in (
        (["seats"], "--out is missing"),
        (["seats", "--out", "x", "avut=y"], "worldsense, daily-omni"),
        (["omnidrop", "--out", "x", "--rows", "entry-30"], "this table runs"),
    ):
        with pytest.raises(SystemExit) as caught:
            table.main(words)
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    assert table.main(["seats", "--out", str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


# Measured beside published ------------------------------------------------------------------------


def cell(label: str, budget: float, right: int, of: int, low: float, high: float) -> CellRow:
    return CellRow(
        label, "m", budget, "all", "all", of, right, 1, 0, 0, right / of, low, high,
        0.3, 0.4, 0.5, None, None, None, None,
    )  # fmt: skip


def summary(full: int, pruned: int) -> Summary:
    pair = PairRow(
        "row", 0.3, "unpruned", 1.0, "unpruned", "all", "all", 100, 10, 5, 3, 0.02, -0.01, 0.05, 0.7
    )
    setup = {"model": {"name": "x/y", "dtype": "bfloat16", "quantization": None, "device": "cuda"}}
    cells = (
        cell("unpruned", 1.0, full, 100, full / 100 - 0.05, full / 100 + 0.05),
        cell("row", 0.3, pruned, 100, pruned / 100 - 0.05, pruned / 100 + 0.05),
    )
    return Summary(setup, cells, (pair,), (), 1, (), 0, (), (), (), ())


def small_table() -> Table:
    rows = (
        Row("unpruned", "Full", Figures({"avut": 60.0, "worldsense": 40.0}, 50.0, 100.0, 1.0)),
        Row("row", "Ours", Figures({"avut": 58.0}, None, 99.0, 0.35), "apack-35", differs="Much."),
        Row("gone", "Gone", left_out="No settings."),
    )
    columns = (TABLES["apack"].column("avut"), TABLES["apack"].column("worldsense"))
    return Table("t", "T", "https://t", "7b", columns, rows, ("D.",), ("U.",), ("S.",))


def test_measured_stands_beside_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Row, "made", lambda self, predictor=None: get_method("random", budget=0.3)
                        if not self.full else get_method("none"))  # fmt: skip
    own = small_table()
    found = measured.Measured(own, {"avut": summary(60, 50), "worldsense": summary(40, 39)})
    text = measured.markdown(found)
    assert (
        "| Ours * | 58 | 50.0 (45.0 to 55.0) | no | -2.00 | +2.0 (-1.0 to +5.0) | 0.350 / 0.400 "
        "| 0.300 | 100 (1 failed) |"
    ) in text
    assert "| Full | 60 | 60.0 (55.0 to 65.0) | yes | – | – |" in text
    assert "| Ours * | not known | 39.0 (34.0 to 44.0) | – |" in text
    assert "| Gone * | not known | left out | – |" in text
    assert "`x/y` (bfloat16, cuda)" in text
    assert "| Ours * | not known | 44.5 | 99 % | 89.0 % |" in text
    for said in ("- Ours: Much.", "- Gone: No settings.", "- D.", "- U.", "- S."):
        assert said in text
    made = measured.document(found)
    assert [row["of_full"] for row in made["rows"]] == [1.0, pytest.approx(0.89), None]
    avut = made["rows"][1]["measured"]["avut"]
    assert avut["published_inside"] is False
    assert avut["change"] == {
        "difference": 0.02, "low": -0.01, "high": 0.05, "published_percent": -2.0
    }  # fmt: skip
    half = measured.Measured(own, {"avut": summary(60, 50)})
    assert half.of_full(own.rows[1]) is None
    assert "Not measured without WorldSense." in measured.markdown(half)


def test_other_settings_than_published_are_said() -> None:
    own = TABLES["seats"]
    column = own.column("daily-omni")
    asked = column.asked
    clip = {"fps": 2.0, "max_frames": 64, "max_pixels": asked.max_pixels}
    setup = {
        **summary(60, 50).setup,
        "system": asked.system,
        "max_new_tokens": 32,
        "score": "logits",
        "clip": clip,
    }
    found = replace(summary(60, 50), setup=setup)
    said = measured.otherwise(column, found)
    assert said == [
        "max_frames 64 instead of 128",
        "choices ranked by their logits instead of written replies",
    ]
    text = measured.markdown(measured.Measured(own, {"daily-omni": found}))
    assert f"Not asked as published: {'; '.join(said)}." in text
    as_published = {**setup, "score": "text", "clip": {**clip, "max_frames": 128}}
    assert measured.otherwise(column, replace(found, setup=as_published)) == []


def test_contextguard_is_refused_without_its_predictor(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["contextguard", "--out", str(tmp_path / "out"), f"avut={tmp_path}"]
    for more, said in (
        ([], "omnidrop train-a2v CLIPS --model 7b --out DIR"),
        (["--predictor", str(tmp_path / "none")], "no folder"),
    ):
        with pytest.raises(SystemExit) as caught:
            table.main([*words, *more])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# On a stub of each set ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local copy of every set in its publisher's layout: a few questions, clips of `samples/`."""
    place = tmp_path_factory.mktemp("sets")
    for name, read in formats().items():
        if name == "avsynth":
            continue
        shutil.copytree(FIXTURES / name, place / name)
        for number, video in enumerate(read(place / name, None).videos):
            video.parent.mkdir(parents=True, exist_ok=True)
            sample = ("pause.mp4", "portrait.mp4")[number % 2]
            shutil.copyfile(ROOT / "samples" / sample, video)
    return place


@pytest.fixture(scope="module")
def predictor(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ContextGuard's predictor for the tiny checkpoint, trained for a moment."""
    from omnidrop_cli.main import run

    out = tmp_path_factory.mktemp("a2v") / "predictor"
    clips = [str(ROOT / "samples" / name) for name in ("pause.mp4", "portrait.mp4")]
    words = ["train-a2v", *clips, "--out", str(out), "--model", str(folder), "--device", "cpu"]
    assert run([*words, "--dtype", "float32", "--offline", "--steps", "2", "--hidden", "8"]) == 0
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, loaded: dict[str, Any]) -> None:
    """Load the tiny checkpoint once, and draw no figures."""
    from omnidrop.evaluation import figures
    from omnidrop_cli import loading

    load = loading.load_model

    def once(flags: Any, *rest: Any, **more: Any) -> Any:
        if flags.model not in loaded:
            loaded[flags.model] = load(flags, *rest, **more)
        return loaded[flags.model]

    monkeypatch.setattr(loading, "load_model", once)
    monkeypatch.setattr(figures, "save", lambda *_, **__: [])


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """Models that are loaded, by name."""
    return {}


def words_of(name: str, copies: Path, folder: Path, out: Path, named: list[str]) -> list[str]:
    words = [name, "--out", str(out), "--model", str(folder), "--limit", "2"]
    words += [f"{one}={copies / one}" for one in named]
    return [*words, "--", "--device", "cpu", "--dtype", "float32", "--offline", "--score", "logits"]


def lines(out: Path, name: str) -> list[dict[str, Any]]:
    text = (out / name / "records.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


#: Sets that a table runs on here: every layout once at least, and all of two tables.
STUBS = {
    "omnidrop": ["video-mme", "worldsense", "avut"],
    "omnidrop-3b": ["avut"],
    "seats": ["worldsense", "daily-omni", "omnivideobench", "video-mme", "lvomnibench"],
    "seats-30b": ["daily-omni"],
    "contextguard": ["music-avqa"],
    "apack": ["avut"],
    "apack-3b": ["daily-omni"],
}


def test_every_layout_has_a_stub() -> None:
    assert set(STUBS) == set(TABLES)
    assert {one for ran in STUBS.values() for one in ran} == set(formats()) - {"avsynth"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", list(STUBS))
def test_a_table_runs_on_stubs_of_its_sets(
    name: str,
    copies: Path,
    folder: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(name, copies, folder, tmp_path, ran := STUBS[name])
    if name == "contextguard":
        words[1:1] = ["--predictor", str(request.getfixturevalue("predictor"))]
    capsys.readouterr()
    assert table.main(words) == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "table.md").read_text(encoding="utf-8") + "\n"
    found = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    own = TABLES[name]
    assert list(found["sets"]) == ran
    for one, about in found["sets"].items():
        assert about["system"] == own.column(one).asked.system
        assert about["otherwise"] == ["choices ranked by their logits instead of written replies"]
    for row, made in zip(own.rows, found["rows"], strict=True):
        for one in ran:
            records = [r for r in lines(tmp_path, one) if r["label"] == row.key]
            if not row.runs:
                assert not records
                assert made["measured"][one] is None
                continue
            assert {r["status"] for r in records} == {"answered"}
            cell = made["measured"][one]
            assert 0 < cell["answered"] == len(records) <= 2
            assert cell["accuracy"] == sum(r["right"] for r in records) / len(records)
            assert cell["low"] <= cell["accuracy"] <= cell["high"]
            assert (cell["realised"] == 1) == row.full
    whole = len(ran) == len(own.columns)
    assert all(
        (row["mean"] is not None) == (whole and not row["left_out"]) for row in found["rows"]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_script_goes_on_where_it_was(copies: Path, folder: Path, tmp_path: Path) -> None:
    """As it is typed, in a process of its own: one set first, then two."""
    words = [
        "bash",
        str(PAPERS / "apack.sh"),
        *words_of("apack", copies, folder, tmp_path, ["avut"])[1:],
    ]
    environment = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "# A-PACK on Qwen2.5-Omni-7B" in done.stdout
    before = (tmp_path / "avut" / "records.jsonl").read_bytes()
    both = words_of("apack", copies, folder, tmp_path, ["avut", "daily-omni"])
    assert table.main(both) == 0
    assert (tmp_path / "avut" / "records.jsonl").read_bytes() == before
    found = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert list(found["sets"]) == ["avut", "daily-omni"]


@pytest.mark.parametrize("name", EVERY)
def test_every_table_has_its_script(name: str) -> None:
    text = (PAPERS / f"{name}.sh").read_text(encoding="utf-8")
    last = 'exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/table.py" ' + name + ' "$@"'
    assert text.rstrip().endswith(last)
    assert "set -euo pipefail" in text
    assert len(list(PAPERS.glob("*.sh"))) == len(TABLES)

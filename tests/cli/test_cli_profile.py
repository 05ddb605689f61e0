"""`omnidrop profile` and `estimate`: reports at every width, files, mistakes; and one real run."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ROOT, make_trace
from pages import Page
from rich.cells import cell_len

from omnidrop.models.locations import demo_folder
from omnidrop.models.world import read_world
from omnidrop.profiling import measure, replay
from omnidrop.profiling.estimate import Estimate, Sizes, Tokens, encoder_flops, run_estimate
from omnidrop.profiling.result import (
    PREFILL,
    SELECTION,
    UNACCOUNTED,
    Profile,
    RunProfile,
    StageStat,
    Timing,
    compared,
    unique_labels,
)
from omnidrop.profiling.survivors import Replay, ReplayedChunk
from omnidrop.pruning.method import Method
from omnidrop.recommended import SAFE
from omnidrop_cli.options.profile import CompareFlags, labels_of

sys.path.insert(0, str(ROOT))
from omnidrop.testing import media

NASTY = '<script>alert("x")</script> & [red]?'


def make_run(label: str, budget: float, control: RunProfile | None = None) -> RunProfile:
    """Return a run whose prefill takes as long as its share of tokens."""
    trace = make_trace(NASTY, budget=budget, chunks=6, layers=8)

    def timing(seconds: float) -> Timing:
        return Timing.of([seconds * f for f in (1.0, 0.9, 1.2)])

    stages = [
        StageStat("open", timing(0.03), host_peak=10**9),
        StageStat("seek and decode", timing(1.6), overlapped=True, host_peak=10**9),
        StageStat("vision tower", timing(0.9), flops=4e12, host_peak=3 * 10**9),
        StageStat(PREFILL, timing(0.5 * budget), flops=9e12 * budget, host_peak=2 * 10**9),
        StageStat(SELECTION, timing(0.02), within=PREFILL),
        StageStat(UNACCOUNTED, timing(0.01)),
    ]
    total = timing(0.94 + 0.5 * budget)
    return RunProfile(
        label=label,
        method=label.split()[0],
        budget=budget,
        realised=trace.realised_budget,
        stages=tuple(compared(s, control.stage(s.name) if control else None) for s in stages),
        total=total,
        ttft=total,
        further=timing(0.02),
        ttft_speedup=control.ttft.median / total.median if control else 1.0,
        answer="piano" if budget > 0.3 else "the  flute",
        same_answer=budget > 0.3,
        kl=0.4 * (1 - budget),
        trace=trace,
    )


def make_profile(labels: list[tuple[str, float]]) -> Profile:
    control = make_run("none", 1.0)
    return Profile(
        clip="concert.mp4",
        question=NASTY,
        model={},
        machine={"device": "cpu", "name": "x86_64", "dtype": "float32", "threads": 2,
                 "matmul": 9e13},
        repeats=3,
        warmup=1,
        control=control,
        runs=tuple(make_run(f"{name} {b:g}", b, control) for name, b in labels),
        notices=("A notice.",),
    )  # fmt: skip


def make_sight(label: str) -> Replay:
    draw = np.random.default_rng(0)
    chunk = ReplayedChunk(
        start=0.0,
        end=2.0,
        frame=draw.integers(0, 255, (28, 56, 3), dtype=np.uint8),
        patches=np.array([[True, False]]),
        video_kept=1,
        video_total=4,
        mel=draw.normal(size=(128, 200)).astype(np.float32),
        audio=np.arange(50) % 3 == 0,
        lit=np.repeat(np.arange(50) % 3 == 0, 4),
    )
    return Replay(label, 4, 8, (chunk, chunk))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, fake: Any) -> list[dict[str, Any]]:
    """Put a made-up profile in place of the measured one; returns what was asked of it."""
    asked: list[dict[str, Any]] = []

    def profile(model: Any, path: Path, question: str, methods: list[Any], **given: Any) -> Profile:
        asked.append({"question": question, "methods": methods, **given})
        return make_profile([(m.name, m.budget) for m in methods])

    def overlay(model: Any, path: Path, run: RunProfile, target: Path, **given: Any) -> None:
        target.write_text(run.label)

    monkeypatch.setattr(measure, "profile", profile)
    monkeypatch.setattr(replay, "replay", lambda model, path, run, **rest: make_sight(run.label))
    monkeypatch.setattr(replay, "overlay", overlay)
    return asked


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("budgets", ["0.2", ".7,.5,.3,.2,.1"])
def test_the_report_fits(run, measured, clip, monkeypatch, width: int, budgets: str) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, err = run("profile", clip, "--budget", budgets, "--method", "omnidrop")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert max(map(cell_len, out.splitlines())) <= width
    for heading in ("Runs", "Time by stage", "Compute by stage", "Peak memory by stage",
                    "Kept by omnidrop", "Tokens entering each layer"):  # fmt: skip
        assert f"\n{heading}" in out
    if width >= 80:
        for part in ("seek and decode (meanwhile)", "relevance and selection", "not accounted",
                     "first token (TTFT)", "each further token"):  # fmt: skip
            assert part in out
        row = next(line for line in out.splitlines() if re.match(r"  omnidrop 0\.2 +\d", line))
        assert "20 %" in row
        assert "other" in row
        assert "differs with omnidrop 0.2: piano → the flute" in out
        assert "differs with omnidrop 0.7" not in out
        assert "0.32" in row


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_a_table_too_wide_loses_nothing(width: int) -> None:
    from omnidrop_cli.terminal.profile import columns

    head = ["run", "kept", "TTFT", "prefill", "ideal ×", "reached", "answer", "KL"]
    rows = [head, ["omnidrop 0.2", "20 %", "0.12 s", "1.2e+02 ms", "4.06", "37 %", "other", "13.5"]]
    lines = [line.plain for line in columns([[(c, "") for c in row] for row in rows], width)]
    assert max(map(cell_len, lines)) <= width
    for row, cells in enumerate(rows):
        shown = " ".join(lines[row :: len(rows)])
        assert all(cell in shown for cell in cells)


def test_runs_are_every_method_at_every_budget(run, measured, clip) -> None:
    assert run("profile", clip, "Why?", "--budget", ".5,.2", "--repeats", "2")[0] == 0
    assert [m.budget for m in measured[0]["methods"]] == [0.5, 0.2]
    assert measured[0]["question"] == "Why?"
    assert measured[0]["repeats"] == 2
    assert run("profile", clip, "--sweep")[0] == 0
    assert [m.budget for m in measured[1]["methods"]] == [0.7, 0.5, 0.3, 0.2, 0.1]
    assert run("profile", clip, "--method", "none")[0] == 0
    assert measured[2]["methods"] == []


def test_of_a_question_that_nobody_asked_there_is_no_warning(run, measured, clip) -> None:
    assert run("profile", clip)[0] == 0
    asked = measured[0]["question"]
    world = read_world(demo_folder())
    assert world is not None
    assert world.check("demo", asked) is None
    assert world.check("demo", "What happens in this clip?") is not None


def test_labels_tell_runs_apart() -> None:
    drops = CompareFlags(
        budgets=(0.5, 0.2), methods="omnidrop,fastv", presets=["paper-7b-30", "paper-7b-30"]
    ).drops(SAFE)
    assert labels_of(drops, SAFE) == [
        "omnidrop 0.5", "omnidrop 0.2", "fastv 0.5", "fastv 0.2", "paper-7b-30", "paper-7b-30 (2)",
    ]  # fmt: skip
    assert labels_of(CompareFlags().drops(SAFE), SAFE) == ["dash 0.5"]
    assert labels_of(CompareFlags(budgets=(0.2,)).drops(SAFE), SAFE) == ["dash 0.2"]
    assert unique_labels(["none", "a", "none"]) == ["none (2)", "a", "none (3)"]


def test_json_is_one_document(run, measured, clip) -> None:
    code, out, err = run("profile", clip, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["schema"] == "omnidrop.profile/1"
    assert [r["label"] for r in found["runs"]] == ["omnidrop-auto 0.3"]


def test_saved_files(run, measured, clip, tmp_path) -> None:
    words = [w for name in ("p.json", "p.txt", "p.png", "contact.svg")
             for w in ("--save", tmp_path / name)]  # fmt: skip
    words += ["--overlay", tmp_path / "seen.mp4"]
    code, _, err = run("profile", clip, "--method", "omnidrop", "--budget", ".5,.2", *words)
    assert code == 0
    names = {"p.json", "p.txt", "p-stages.png", "p-sweep.png", "seen.mp4"}
    names |= {f"p-{f}-omnidrop-{b}.png" for f in ("heatmap", "contact") for b in ("0.5", "0.2")}
    names |= {f"contact-omnidrop-{b}.svg" for b in ("0.5", "0.2")}
    assert {p.name for p in tmp_path.iterdir() if p != clip} == names
    assert all(f"wrote: {tmp_path / name}" in err for name in names)
    assert (tmp_path / "seen.mp4").read_text() == "omnidrop 0.2"
    assert json.loads((tmp_path / "p.json").read_text())["schema"] == "omnidrop.profile/1"
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    drawn = (tmp_path / "contact-omnidrop-0.5.svg").read_text("utf-8")
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert not re.search(r'href="(?!#|data:)', drawn)
    assert "Kept by omnidrop 0.5" in (tmp_path / "p.txt").read_text("utf-8")
    assert run("profile", clip, "--method", "omnidrop", "--budget", ".5,.2", *words)[0] == 2


@pytest.mark.slow
def test_the_page_loads_nothing_and_runs_nothing(run, measured, clip, tmp_path) -> None:
    assert run("profile", clip, "--save", tmp_path / "p.html")[0] == 0
    text = (tmp_path / "p.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 4
    pictures = [r for r in page.references if r.startswith("data:image/png;base64,")]
    assert len(pictures) == 4
    (link,) = set(page.references) - set(pictures)
    assert link.startswith("data:application/json;base64,")
    assert "<script>alert" not in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen(run, measured, clip, tab, tmp_path, width: int) -> None:
    assert run("profile", clip, "--sweep", "--save", tmp_path / "p.html")[0] == 0
    tab.open(tmp_path / "p.html", width)
    tab.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.said() == []


@pytest.mark.parametrize(
    "words",
    [
        ("--budget", "0"),
        ("--budget", "a,b"),
        ("--budget", "1.5"),
        ("--sweep", "--budget", "0.5"),
        ("--method", "nothing"),
        ("--method", ","),
        ("--repeats", "0"),
        ("--warmup", "-1"),
        ("--tflops", "0"),
        ("--layer", "-1"),
        ("--save", "x.gif"),
        ("--overlay", "x.gif"),
        ("--dry-run", "--save", "x.json"),
    ],
)
def test_mistakes(run, measured, clip, words) -> None:
    code, out, err = run("profile", clip, *words)
    assert (code, out) == (2, "")
    assert err.startswith("omnidrop: error: ")
    assert not measured


@pytest.mark.slow
def test_what_exists_is_kept(run, measured, clip, tmp_path) -> None:
    kept = tmp_path / "p-stages.png"
    kept.write_text("mine")
    for words in (("--save", tmp_path / "p.png"), ("--overlay", kept.with_suffix(".mp4"))):
        kept.with_suffix(".mp4").write_text("mine")
        code, _, err = run("profile", clip, *words)
        assert code == 2
        assert "--force" in err
    assert not measured
    assert kept.read_text() == "mine"
    assert run("profile", clip, "--save", tmp_path / "p.png", "--force", "--quiet") == (0, "", "")
    assert kept.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [("estimate",), ("profile", "--dry-run")])
def test_estimates(run, fake, clip, monkeypatch, words) -> None:
    from omnidrop.models.loading import LoadOptions
    from omnidrop.models.unloaded import describe

    def estimate(path: Path, question: str, methods: list[Any], **given: Any) -> Estimate:
        known = describe(LoadOptions(model="7b", device="cpu"))
        sizes = Sizes(known.shapes, known.weights, known.bytes_per_value)
        tokens = Tokens(40, 1000, 3000, (20, 24, 24), False)
        control, *runs = (
            run_estimate(label, Method(b), (round(b * 4000),) * 28, sizes, tokens, 1e12)
            for label, b in (("none", 1.0), *((f"omnidrop {m.budget:g}", m.budget)
                                              for m in methods))
        )  # fmt: skip
        model = {"name": known.name, "parameters": known.parameters, "weights": known.weights,
                 "quantization": None, "dtype": known.dtype, "device": known.device}  # fmt: skip
        return Estimate(str(path), question, model, tokens, *encoder_flops(sizes, tokens),
                        speed=1e12, speed_of="as given", control=control, runs=tuple(runs),
                        notices=("A notice.",))  # fmt: skip

    monkeypatch.setattr("omnidrop.profiling.estimate.estimate", estimate)
    code, out, err = run(*words, clip, "--budget", ".5,.2")
    assert (code, err) == (0, "")
    assert max(map(cell_len, out.splitlines())) <= 80
    for part in ("OmniDrop estimate", "3,000 video, a grid of 20 × 24 × 24 patches", "about 40",
                 "omnidrop 0.5", "omnidrop 0.2", "KV cache", "1.00 TFLOP/s, as given"):  # fmt: skip
        assert part in " ".join(out.split())
    found = json.loads(run(*words, clip, "--json")[1])
    assert found["schema"] == "omnidrop.estimate/1"
    assert not any(line.startswith("load") for line in fake.log)


@pytest.mark.slow
def test_a_real_run(run, tmp_path) -> None:
    film = media.mp4(tmp_path / "film.mp4", seconds=4.0)
    words = ("film.mp4", "Which instrument?", "--budget", "0.3", "--repeats", "1", "--warmup", "0")
    code, out, err = run(
        "profile", film, *words[1:], "--model", "demo", "--device", "cpu", "--json",
        "--save", tmp_path / "contact.png", "--overlay", tmp_path / "seen.mp4",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    (measured,) = found["runs"]
    assert abs(measured["realised"] - 0.3) <= 0.01
    names = [s["name"] for s in measured["stages"]]
    assert {"seek and decode", "resize and patches", "vision tower", PREFILL} <= set(names)
    assert (tmp_path / "contact.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "seen.mp4").stat().st_size > 1000
    assert err.count("wrote: ") == 2

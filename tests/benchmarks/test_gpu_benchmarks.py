"""The GPU benchmarks run from end to end: tiny shapes, on the CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import omnidrop

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


TABLES = script("gpu_tables")
DEMO = script("gpu_demo")
TINY = ["--shape", "tiny", "--device", "cpu", "--repeats", "1", "--tokens", "200"]


def test_tables_at_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert TABLES.main([*TINY, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert json.loads(printed.splitlines()[-1]) == result
    (section,) = result["sections"]
    assert section["towers"]["vision omnidrop"]["relative_difference"] < 0.02
    assert section["towers"]["audio omnidrop"]["relative_difference"] < 0.02
    rows = section["prefill"]
    assert {"none", "omnidrop 30%", "omnidrop 20%", "omnidrop 10%"} <= set(rows)
    full, tenth = rows["none"], rows["omnidrop 10%"]
    assert tenth["realised"] == pytest.approx(0.1, abs=0.02)
    assert tenth["speedup_by_flops"] == pytest.approx(full["flops"] / tenth["flops"])
    assert tenth["speedup_by_flops"] > 3
    assert tenth["kv_gb"] < full["kv_gb"]
    assert all(row["ttft"] > row["prefill"] > 0 for row in rows.values())
    assert all(name in printed for name in rows)


def test_a_cell_without_memory_says_so_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hungry(omnidrop.Method):
        def plan(self, tokens, layers):
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Wrong(omnidrop.Method):
        def plan(self, tokens, layers):
            raise ValueError("not a plan")

    cells = {"none": Hungry(), "fine": omnidrop.Method(), "uniform": omnidrop.Uniform(budget=0.5)}
    monkeypatch.setattr(TABLES, "methods", lambda shape: cells)
    assert TABLES.main(TINY) == 0
    printed = capsys.readouterr().out
    rows = json.loads(printed.splitlines()[-1])["sections"][0]["prefill"]
    assert rows["none"] == {"failed": "out of memory"}
    assert rows["fine"]["realised"] == 1
    assert rows["uniform"]["realised"] == pytest.approx(0.5, abs=0.01)
    cells["none"] = Wrong()
    assert TABLES.main(TINY) == 1
    assert "ValueError: not a plan" in capsys.readouterr().out


def test_published_shapes_have_the_published_number_of_parameters() -> None:
    """Without memory: 8.9 and 4.7 billion parameters of the thinkers."""
    for name, billions in (("7b", 8.93), ("3b", 4.70)):
        thinker, _ = TABLES.build(TABLES.SHAPES[name], torch.device("meta"))
        assert sum(p.numel() for p in thinker.parameters()) / 1e9 == pytest.approx(billions, 0.01)


def test_the_demo_model_from_prepared_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (ROOT / "samples" / "avsynth" / "test.jsonl").read_text().splitlines()
    clip = tmp_path / json.loads(lines[0])["video"]
    clip.parent.mkdir()
    clip.write_bytes((ROOT / "samples" / "duet.mp4").read_bytes())
    prepared = tmp_path / "features.safetensors"
    DEMO.main([str(prepared), "--prepare", "--clips", str(tmp_path), "--count", "1"])
    ways = {"cpu float32": {"device": "cpu", "dtype": "float32"}, "gone": {"device": "cuda:9"}}
    monkeypatch.setattr(DEMO, "ways", lambda: ways)
    DEMO.main([str(prepared)])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["method"] for row in rows[:2]] == list(DEMO.METHODS)
    assert all(row["as_cpu"] == 1 and row["questions"] == 6 for row in rows[:2])
    assert "cuda:9" in rows[2]["failed"]


def test_ready_features_need_no_media_library() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('av', 'soundfile', 'bitsandbytes')));"
        "import omnidrop.engine.session"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

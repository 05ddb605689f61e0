"""`benchmarks/gpu.py` runs from end to end: a tiny shape, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import omnidrop
from benchmarks import gpu
from benchmarks.gpu_parts import demo, fresh, speed
from benchmarks.gpu_parts.bench import Bench, TooLongError, interrupted
from benchmarks.gpu_parts.shapes import SHAPES, build, twin, write_checkpoint
from benchmarks.gpu_parts.tables import markdown

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = ["--shape", "tiny", "--device", "cpu", "--repeats", "1", "--tokens", "200", "--new", "3"]
METHODS = {"none", "omnidrop 30%", "omnidrop 20%", "omnidrop 10%", "omnidrop-auto 10%", "seats 10%"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of all parts that need no process of their own."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    parts = ["ceilings", "ttft", "decoding", "second-question", "accuracy", "demo"]
    assert gpu.main([*TINY, "--part", *parts, "--out", str(out)]) == 0
    return json.loads(out.read_text())


def rows_of(result: dict[str, Any], part: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["rows"] if row["part"] == part}


def test_first_token_by_method(ran: dict[str, Any]) -> None:
    rows = rows_of(ran, "ttft")
    assert set(rows) == METHODS | {"transformers"}
    full, tenth = rows["none"], rows["omnidrop 10%"]
    assert tenth["realised"] == pytest.approx(0.1, abs=0.02)
    assert tenth["speedup_by_flops"] == pytest.approx(full["flops"] / tenth["flops"])
    assert tenth["speedup_by_flops"] > 3
    assert tenth["kv_gb"] < full["kv_gb"]
    for name in METHODS:
        row = rows[name]
        assert row["ttft"] > row["prefill"] > 0
        assert row["over_transformers"] == rows["transformers"]["ttft"] / row["ttft"]
        assert row["of_ceiling"] > 0
        assert row["rounds"] == 1
    assert full["peak_gb"] is None  # nothing counts it on a CPU


def test_other_parts_have_their_rows(ran: dict[str, Any]) -> None:
    assert rows_of(ran, "ceilings")["copy on the device"]["tb_per_second"] > 0
    decoding = rows_of(ran, "decoding")
    static = "transformers, static cache, compiled"
    assert {"transformers", static, "none", "omnidrop 20%", "omnidrop 10%"} < set(decoding)
    ours = decoding["omnidrop 20%"]
    assert ours["over_static"] == pytest.approx(decoding[static]["ms"] / ours["ms"])
    second = rows_of(ran, "second-question")["omnidrop 20%"]
    assert second["ratio"] > 0
    accuracy = rows_of(ran, "accuracy")
    assert len(accuracy) == 7
    assert all(row["right"] for row in accuracy.values())
    assert accuracy["float32 tokens"]["made"] == 48
    assert ran["left_out"] == [
        {"part": "demo", "name": "all", "reason": "no --demo-file; --prepare-demo writes one"}
    ]


def test_the_table_shows_every_row(ran: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    table = markdown(ran)
    for row in ran["rows"]:
        assert f"| {row['name']} |" in table
    assert "nan" not in table
    assert "demo, all: no --demo-file" in table
    saved = tmp_path / "run.json"
    saved.write_text(json.dumps(ran))
    assert gpu.main(["--table", str(saved)]) == 0
    assert capsys.readouterr().out == table


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main([]) == gpu.NO_GPU
    assert "no CUDA GPU" in capsys.readouterr().err


def test_a_cell_without_memory_says_so_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Hungry(omnidrop.Method):
        def plan(self, tokens, layers):
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Wrong(omnidrop.Method):
        def plan(self, tokens, layers):
            raise ValueError("not a plan")

    cells = {"hungry": Hungry(), "fine": omnidrop.Method()}
    monkeypatch.setattr(speed, "methods", lambda shape: cells)
    out = tmp_path / "gpu.json"
    command = [*TINY, "--part", "ttft", "--out", str(out)]
    assert gpu.main(command) == 0
    rows = rows_of(json.loads(out.read_text()), "ttft")
    assert rows["hungry"]["failed"] == "out of memory"
    assert rows["fine"]["realised"] == 1
    cells["hungry"] = Wrong()
    assert gpu.main(command) == 1
    rows = rows_of(json.loads(out.read_text()), "ttft")
    assert rows["hungry"]["failed"] == "ValueError: not a plan"


def counting(seconds: float) -> Iterator[int]:
    """Count calls, each of so many seconds."""
    number = 0
    while True:
        time.sleep(seconds)
        yield (number := number + 1)


def test_the_limit_is_kept_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(CPU, repeats=50, limit=3.0)  # 2 of them are kept back
    calls = counting(0.2)
    start = time.perf_counter()
    rows = bench.turns("part", {"cell": lambda: {"value": next(calls)}}, shape="tiny")
    assert time.perf_counter() - start < 1.3
    assert 1 <= rows["cell"]["rounds"] <= 4
    (left,) = bench.left_out
    assert left["name"].startswith("cell, tiny, round")
    assert "left out: no time" in capsys.readouterr().out


def test_a_cell_that_outlasts_its_bound_is_a_row_of_its_own(tmp_path: Path) -> None:
    bench = Bench(CPU, repeats=1, out=tmp_path / "o.json")
    cells = {"slow": lambda: time.sleep(60) or {"value": 1.0}, "fine": lambda: {"value": 2.0}}
    rows = bench.turns("part", cells, bounds={"slow": 0.1})
    assert rows["fine"]["value"] == 2
    told = rows_of(json.loads((tmp_path / "o.json").read_text()), "part")
    assert told["slow"]["failed"] == "not done after 0 s"
    assert not bench.wrong
    with pytest.raises(TooLongError), interrupted(0.05):
        time.sleep(60)


def test_published_shapes_have_the_published_number_of_parameters() -> None:
    """Without memory: 8.9 and 4.7 billion parameters of the thinkers."""
    for name, billions in (("7b", 8.93), ("3b", 4.70)):
        thinker = build(SHAPES[name], torch.device("meta"))
        assert sum(p.numel() for p in thinker.parameters()) / 1e9 == pytest.approx(billions, 0.01)


def test_a_twin_shares_weights_and_nothing_else() -> None:
    thinker = build(SHAPES["tiny"], CPU)
    other = twin(thinker)
    for one, two in zip(thinker.parameters(), other.parameters(), strict=True):
        assert one.data_ptr() == two.data_ptr()
    layer = other.get_submodule("lm_head")
    layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight), requires_grad=False)
    assert thinker.get_submodule("lm_head").weight.abs().sum() > 0


def test_a_written_checkpoint_loads_as_the_model_it_was_written_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES["tiny"], CPU)
    loaded = omnidrop.load(str(tmp_path), device="cpu", dtype="bfloat16", offline=True)
    expected = build(SHAPES["tiny"], CPU).state_dict()
    state = loaded.adapter._thinker.state_dict()  # type: ignore[attr-defined]
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], value) for key, value in expected.items())


def test_a_fresh_process_tells_its_parts_and_where_it_was_stopped(tmp_path: Path) -> None:
    shape = SHAPES["tiny"]
    write_checkpoint(tmp_path, shape, CPU)
    bench = Bench(CPU)
    row = fresh.process(bench, "cold-start", "omnidrop", "tiny", shape, tmp_path, 200)
    assert "failed" not in row
    parts = {*fresh.STARTING, "import omnidrop", "load", "first_ttft"}
    assert all(row[part] >= 0 for part in parts)
    assert row["to_first_token"] == pytest.approx(row["starting"] + row["load"] + row["first_ttft"])
    assert row["first_over_warm"] > 0
    stopped = Bench(CPU, limit=0.5)  # the process gets a second: it still imports then
    row = fresh.process(stopped, "cold-start", "omnidrop", "tiny", shape, tmp_path, 200)
    assert "not done" in row["failed"]
    assert any(text.startswith('File "') for text in row["stack"])
    assert not stopped.wrong


def test_the_demo_model_from_prepared_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (ROOT / "samples" / "avsynth" / "test.jsonl").read_text().splitlines()
    clip = tmp_path / json.loads(lines[0])["video"]
    clip.parent.mkdir()
    clip.write_bytes((ROOT / "samples" / "duet.mp4").read_bytes())
    prepared = tmp_path / "features.safetensors"
    assert (
        gpu.main(["--prepare-demo", str(prepared), "--clips", str(tmp_path), "--count", "1"]) == 0
    )
    configurations = {
        "cpu float32": {"device": "cpu", "dtype": "float32"},
        "gone": {"device": "cuda:9"},
    }
    monkeypatch.setattr(demo, "configurations", lambda: configurations)
    out = tmp_path / "gpu.json"
    command = [*TINY, "--part", "demo", "--demo-file", str(prepared), "--out", str(out)]
    assert gpu.main(command) == 0
    result = json.loads(out.read_text())
    assert [row["name"] for row in result["rows"]] == [f"cpu float32, {m}" for m in demo.METHODS]
    assert all(row["as_cpu"] == 1 and row["questions"] == 6 for row in result["rows"])
    assert "cuda:9" in result["left_out"][0]["reason"]


def test_no_media_library_is_needed() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('av', 'soundfile', 'bitsandbytes')));"
        "import benchmarks.gpu"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

"""A profile of a tiny model on a film of a few seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model, load
from omnidrop.errors import BudgetError, UsageError
from omnidrop.models.loading import LoadOptions
from omnidrop.profiling.estimate import PROGRAM, estimate
from omnidrop.profiling.machine import matmul_speed
from omnidrop.profiling.measure import first_token_kl, profile
from omnidrop.profiling.result import PREFILL, Profile, summable
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.uniform import Uniform
from tests.profiling.conftest import QUESTION

CPU = torch.device("cpu")


def test_every_run_is_there_and_its_lines_sum_up(found: Profile) -> None:
    assert [run.label for run in found.all] == ["none", "uniform 0.5", "uniform 1"]
    for run in found.all:
        assert len(run.total.samples) == len(run.ttft.samples) == 2
        names = [s.name for s in run.stages]
        for name in ("open", "seek and decode", "log-mel", "vision tower", PREFILL, "detokenise"):
            assert name in names
        for turn in range(2):
            summed = sum(s.seconds.samples[turn] for s in run.stages if summable(s))
            assert summed == pytest.approx(run.total.samples[turn])
        assert all(s.seconds.low >= 0 for s in run.stages)
        assert run.ttft.median < run.total.high


def test_reading_alone(found: Profile) -> None:
    seconds = {s.name: s.seconds for s in found.reading}
    assert list(seconds) == ["seek and decode", "resize and patches", "decode sound", "log-mel"]
    assert all(len(timing.samples) == 2 and timing.low > 0 for timing in seconds.values())


def test_an_unpruned_run_differs_in_nothing(found: Profile) -> None:
    half, whole = found.runs
    assert whole.same_answer
    assert whole.kl == pytest.approx(0.0, abs=1e-9)
    stage = whole.stage(PREFILL)
    assert stage is not None
    assert stage.predicted == 1.0
    assert half.realised == pytest.approx(0.5, abs=0.01)
    assert half.kl > 0
    stage = half.stage(PREFILL)
    assert stage is not None
    assert stage.predicted is not None
    assert 2 < stage.predicted < 3
    assert stage.achieved == pytest.approx((stage.speedup or 0) / stage.predicted)


def test_memory_is_watched_stage_by_stage(found: Profile) -> None:
    peaks = {s.name: s.host_peak for s in found.control.stages}
    assert peaks[PREFILL] is not None
    assert 50e6 < peaks[PREFILL] < 50e9


def test_it_is_json_without_survivors(found: Profile) -> None:
    plain = json.loads(json.dumps(found.to_dict(), default=str))
    assert plain["schema"] == "omnidrop.profile/1"
    assert plain["runs"][0]["trace"]["survivors"] == []
    assert found.runs[0].trace.survivors


@pytest.mark.slow
def test_a_budget_out_of_reach_leaves_the_others_be(model: Model, film: Path) -> None:
    short = GenerateOptions(max_new_tokens=1)
    never = Method(budget=0.5)
    measured = profile(
        model, film, QUESTION, [never, Uniform(budget=0.5)], options=short, repeats=1, warmup=0
    )
    assert [run.label for run in measured.runs] == ["uniform 0.5"]
    assert any("none 0.5 was not measured" in notice for notice in measured.notices)
    with pytest.raises(BudgetError):
        profile(model, film, QUESTION, [never], options=short, repeats=1, warmup=0)
    with pytest.raises(UsageError):
        profile(model, film, QUESTION, [], repeats=0)


def test_kl_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    by_hand = float((p * (p / q).log()).sum())
    assert first_token_kl(p.log(), q.log() + 3.0) == pytest.approx(by_hand)
    assert first_token_kl(p.log(), p.log()) == 0.0


def test_matmul_speed() -> None:
    assert 1e8 < matmul_speed(CPU, torch.float32, seconds=0.02) < 1e14


def test_tower_flops_are_those_counted(folder: Path, features: Features) -> None:
    # Eager, for the counter does not see inside the CPU's fused attention.
    options = LoadOptions(model=str(folder), device="cpu", dtype="float32", attention="eager")
    adapter = load(options).adapter
    info = adapter.info
    assert features.patches is not None
    assert features.grid is not None
    assert features.mel is not None
    with FlopCounterMode(display=False) as counter:
        adapter.encode_video(features.patches, features.grid)
    assert info.vision.flops(features.grid) == pytest.approx(counter.get_total_flops(), rel=0.02)
    with FlopCounterMode(display=False) as counter:
        (heard,), _ = adapter.encode_audio(features.mel[:, :400])
    # The counter sees the second convolution's input at full rate and the padding of the first.
    assert info.audio.flops(len(heard)) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_estimate_counts_what_the_run_counts(folder: Path, found: Profile, film: Path) -> None:
    told = estimate(
        film,
        QUESTION,
        [Uniform(budget=0.5), Method(budget=0.5)],
        model=LoadOptions(model=str(folder), device="cpu", dtype="float32"),
        tflops=0.001,
    )
    trace = found.runs[0].trace
    assert told.tokens.counted
    assert (told.tokens.video, told.tokens.audio) == (trace.video_tokens, trace.audio_tokens)
    assert told.tokens.text == trace.text_tokens
    assert told.runs[0].flops_prefill == trace.flops_prefill
    assert told.runs[0].kv_cache == trace.memory.kv_cache
    assert told.control.kv_cache == trace.memory.kv_cache_unpruned
    assert told.model["parameters"] == trace.model["parameters"]
    program = told.control.peak - told.model["weights"]
    assert 100e6 < program < PROGRAM + 100e6  # beside which a tiny model takes next to nothing
    assert any("none 0.5 cannot be run" in notice for notice in told.notices)
    assert json.dumps(told.to_dict())

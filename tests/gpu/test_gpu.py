"""The checks on a GPU; skipped on machines without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gpu import checks
from gpu.pairs import Pair

from omnidrop.engine.encode import Features

pytestmark = pytest.mark.gpu


def test_tokens_in_float32(checkpoint: Path, clips: list[Features]) -> None:
    checks.check_tokens(checkpoint, clips, "cuda")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_in_16_bits(checkpoint: Path, clips: list[Features], dtype: str) -> None:
    checks.check_logits(checkpoint, clips, "cuda", dtype)


@pytest.mark.parametrize("name", checks.METHODS)
def test_kept_tokens_equal_the_cpus(checkpoint: Path, clips: list[Features], name: str) -> None:
    checks.check_choices(checkpoint, clips, "cuda", checks.METHODS[name])


@pytest.mark.parametrize("name", checks.METHODS)
def test_pruned_answers_equal_the_cpus(checkpoint: Path, clips: list[Features], name: str) -> None:
    checks.check_decoding(checkpoint, clips, "cuda", checks.METHODS[name])


def test_a_loaded_model_is_on_the_device_with_equal_weights(checkpoint: Path) -> None:
    here, there = (Pair.load(checkpoint, device).model.adapter for device in ("cpu", "cuda"))
    assert there.device.type == "cuda"
    expected = here._thinker.state_dict()  # type: ignore[attr-defined]
    for key, value in there._thinker.state_dict().items():  # type: ignore[attr-defined]
        assert value.device.type == "cuda"
        assert torch.equal(value.cpu(), expected[key]), key

"""A mixture of experts on a GPU, whole and in 4 and 8 bits; skipped on machines without one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import omnidrop
from omnidrop.models.experts import Packed4, Packed8, SmallExperts, products
from omnidrop.models.qwen3_omni.tiny import hub_layout
from omnidrop.options import GenerateOptions
from omnidrop.pruning.method import Method
from tests.tiny import make_features

pytestmark = pytest.mark.gpu
GREEDY = GenerateOptions(max_new_tokens=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thinker of 8 layers, 128 wide, of 8 experts, as on the hub."""
    return hub_layout(tmp_path_factory.mktemp("experts"), layers=8, hidden=128, experts=8)


def loaded(folder: Path, device: str, **settings: str) -> omnidrop.Model:
    settings.setdefault("dtype", "float32")
    model = omnidrop.load(str(folder), device=device, offline=True, **settings)
    model.adapter.stop_ids = frozenset()
    return model


def answer(model: omnidrop.Model, method: Method) -> omnidrop.Answer:
    with model.features(make_features((8, 8, 12), 900, model=model)) as clip:
        return clip.ask("What plays first?", method=method, options=GREEDY)


@pytest.mark.parametrize("name", ["none", "omnidrop", "seats"])
def test_tokens_equal_the_cpus(folder: Path, name: str) -> None:
    method = omnidrop.get_method(name, **({} if name == "none" else {"budget": 0.4}))
    there, here = answer(loaded(folder, "cuda"), method), answer(loaded(folder, "cpu"), method)
    assert there.token_ids == here.token_ids
    assert there.trace.decode_loop == "captured"


@pytest.mark.parametrize("quantize", [None, "4bit"])
def test_decoding_is_captured(folder: Path, quantize: str | None) -> None:
    settings = {} if quantize is None else {"quantize": quantize}
    model = loaded(folder, "cuda", dtype="bfloat16", **settings)
    first, second = answer(model, Method()), answer(model, Method())
    assert first.trace.decode_loop == "captured"
    assert first.token_ids == second.token_ids


@pytest.mark.parametrize("kind", [Packed4, Packed8])
@pytest.mark.parametrize("rows", [1, 2, 40, 700])
def test_products_equal_the_cpus(kind: type, rows: int) -> None:
    sizes = SimpleNamespace(num_experts=8, hidden_dim=256, intermediate_dim=128, act_fn=nn.SiLU())
    made = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        small = SmallExperts(sizes, kind)
        small.allocate(torch.device(device), torch.bfloat16)
        for expert in range(8):
            for part in ("gate", "up", "down"):
                shape = (256, 128) if part == "down" else (128, 256)
                weight = torch.randn(shape, generator=generator) / 16
                small.put(expert, part, weight.to(device, torch.bfloat16))
        made.append(small)
    here, there = made
    # A weight in the middle of two codes may be rounded either way.
    different = here.gate_up.codes != there.gate_up.codes.cpu()
    assert float(different.float().mean()) < 1e-3
    hidden = torch.randn(rows, 256).bfloat16()
    shares, chosen = torch.rand(rows, 8).topk(2)
    shares = shares.bfloat16()
    with torch.inference_mode():
        wanted = here(hidden, chosen, shares)
        found = there(hidden.cuda(), chosen.cuda(), shares.cuda())
    torch.testing.assert_close(found.cpu(), wanted, rtol=0.05, atol=0.05)


def test_groups_are_multiplied_in_one_call() -> None:
    rows = torch.randn(96, 64, dtype=torch.bfloat16)
    weights = torch.randn(4, 32, 64, dtype=torch.bfloat16)
    counts = [40, 0, 55, 1]
    found = products(rows.cuda(), weights.cuda(), counts).cpu()
    torch.testing.assert_close(found, products(rows, weights, counts), rtol=0.02, atol=0.1)

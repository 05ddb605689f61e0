"""Experts in 4 and 8 bits: the same codes as bitsandbytes, the same products, all of them small."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as reference

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.errors import ModelError
from omnidrop.models import experts as module
from omnidrop.models import loading, pinned
from omnidrop.models.experts import (
    Packed4,
    Packed8,
    SmallExperts,
    grouped_mm,
    is_expert,
    products,
    quantised_nf4,
)
from omnidrop.models.loading import LoadOptions, estimate, load_adapter, resolve
from omnidrop.models.locations import weights
from omnidrop.models.packed import Matrix
from omnidrop.models.quantising import check_quantised
from omnidrop.models.qwen3_omni import FAMILY
from omnidrop.models.qwen3_omni.tiny import hub_layout, tiny_thinker
from omnidrop.pruning.method import Method
from tests.some import every
from tests.tiny import make_features

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[hub_layout, tiny_thinker], ids=["hub", "thinker"])
def folder(request, tmp_path_factory) -> Path:
    return request.param(tmp_path_factory.mktemp("experts"))


def load(folder: Path, quantize: str | None = None):
    options = LoadOptions(
        model=str(folder), device="cpu", dtype="float32", offline=True, quantize=quantize
    )
    return load_adapter(options)


@pytest.fixture(scope="module")
def loaded(folder):
    """Loads the checkpoint once in each way; tests leave the models as they are."""
    return cache(lambda quantize: load(folder, quantize))


@pytest.fixture(scope="module")
def on_its_way_to_a_gpu(folder):
    """Loads the checkpoint once in each way, read as for a GPU; returns what was read as well."""

    @cache
    def make(quantize: str | None):
        names: list[str] = []
        read = pinned.PinnedReader.read

        def noting(self, path, weight, offset):
            names.append(weight.name)
            return read(self, path, weight, offset)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pinned, "reads_pinned", lambda device: True)
            patch.setattr(pinned.PinnedReader, "read", noting)
            return load(folder, quantize), names

    return make


def small(kind: type, count: int = 4, hidden: int = 64, width: int = 32) -> SmallExperts:
    sizes = SimpleNamespace(
        num_experts=count, hidden_dim=hidden, intermediate_dim=width, act_fn=nn.SiLU()
    )
    made = SmallExperts(sizes, kind)
    made.allocate(CPU, torch.float32)
    for expert in range(count):
        made.put(expert, "gate", torch.randn(width, hidden))
        made.put(expert, "up", torch.randn(width, hidden))
        made.put(expert, "down", torch.randn(hidden, width))
    return made


def whole(made: SmallExperts) -> nn.Module:
    """The reference's module with the same weights, widened."""
    config = SimpleNamespace(
        num_experts=made.count,
        hidden_size=made.hidden,
        moe_intermediate_size=made.width,
        hidden_act="silu",
        _experts_implementation="eager",
    )
    theirs = reference.Qwen3OmniMoeThinkerTextExperts(config)
    with torch.no_grad():
        theirs.gate_up_proj.copy_(made.gate_up.widen(slice(None)))
        theirs.down_proj.copy_(made.down.widen(slice(None)))
    return theirs


def test_codes_equal_those_of_bitsandbytes():
    weight = torch.randn(96, 128)
    weight[3] = 0
    codes, scales = quantised_nf4(weight)
    theirs, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(codes, theirs.flatten())
    assert torch.equal(scales, state.absmax)


@pytest.mark.parametrize(("kind", "error", "size"), [(Packed4, 0.11, 0.5313), (Packed8, 0.01, 1.1)])
def test_widened_weights_are_near_the_original(kind, error, size):
    weights = torch.randn(3, 64, 128)
    packed = kind(3, 64, 128, CPU, torch.float32)
    for expert in range(3):
        packed.put(expert, 0, weights[expert, :32])
        packed.put(expert, 32, weights[expert, 32:])
    wide = packed.widen(slice(None))
    assert float((wide - weights).norm() / weights.norm()) < error
    assert torch.equal(packed.widen(torch.tensor([2, 0])), wide[[2, 0]])
    assert torch.equal(packed.widen(slice(1, 3)), wide[1:3])
    assert packed.bytes - 64 <= size * packed.weights


@pytest.mark.parametrize("kind", [Packed4, Packed8])
@pytest.mark.parametrize("rows", [1, 3, 8, 9, 200])
def test_products_equal_those_of_the_widened_weights(kind, rows, monkeypatch):
    made = small(kind)
    hidden = torch.randn(rows, 64)
    shares, chosen = torch.rand(rows, 4).topk(2)
    with torch.inference_mode():
        out = made(hidden, chosen, shares)
        wanted = whole(made)(hidden, chosen, shares)
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-3)
        monkeypatch.setattr(module, "GROUP_BYTES", 1)  # one expert after the other
        torch.testing.assert_close(made(hidden, chosen, shares), wanted, rtol=1e-4, atol=1e-3)


def test_an_expert_that_no_row_chose_takes_no_part():
    made = small(Packed4)
    hidden = torch.randn(40, 64)
    chosen = torch.tensor([1, 3]).expand(40, 2)
    out = made(hidden, chosen, torch.ones(40, 2))
    wanted = whole(made)(hidden, chosen, torch.ones(40, 2))
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not hasattr(nn.functional, "grouped_mm"), reason="PyTorch before 2.10")
def test_groups_in_one_call_equal_groups_one_by_one():
    rows = torch.randn(48, 64, dtype=torch.bfloat16)
    weights = torch.randn(4, 32, 64, dtype=torch.bfloat16)
    counts = [16, 0, 24, 8]
    out = grouped_mm(rows, weights, counts)
    torch.testing.assert_close(out, products(rows, weights, counts), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("quantize", every(2, ["4bit", "8bit"]))
def test_every_expert_of_a_checkpoint_is_quantised(loaded, quantize):
    full, few = loaded(None), loaded(quantize)
    for mine, theirs in zip(few._layers, full._layers, strict=True):
        for packed, weight in (
            (mine.mlp.experts.gate_up, theirs.mlp.experts.gate_up_proj),
            (mine.mlp.experts.down, theirs.mlp.experts.down_proj),
        ):
            wide = packed.widen(slice(None))
            error = float((wide - weight).norm() / weight.norm())
            assert error < (0.11 if quantize == "4bit" else 0.01)
    names = [name for name, _ in few._thinker.named_parameters()]
    assert not [name for name in names if is_expert(name)]
    assert few.info.parameters == full.info.parameters


@pytest.mark.parametrize("quantize", every(2, ["4bit", "8bit"]))
def test_a_quantised_model_answers(folder, quantize):
    model = Model(load(folder, quantize))  # bitsandbytes packs a model's weights when it is run
    options = GenerateOptions(max_new_tokens=4)
    with model.features(make_features(model=model)) as clip:
        first = clip.ask("Who plays?", method=Method(), options=options)
        again = clip.ask("Who plays?", method=Method(), options=options)
    assert len(first.token_ids) == 4
    assert first.token_ids == again.token_ids
    assert first.trace.model["quantization"] == quantize


def test_the_estimate_counts_experts_as_quantised(folder, loaded):
    options = LoadOptions(
        model=str(folder), device="cpu", dtype="float32", offline=True, quantize="4bit"
    )
    need = estimate(resolve(options), options)
    thinker = loaded("4bit")._thinker
    experts = [part for part in thinker.modules() if isinstance(part, SmallExperts)]
    inside = sum(part.gate_up.bytes + part.down.bytes for part in experts)
    counted = sum(part.gate_up.weights + part.down.weights for part in experts)
    assert inside / counted == pytest.approx(0.53125, abs=0.01)
    held = inside + sum(part.bytes for part in thinker.modules() if isinstance(part, Matrix))
    held += sum(weight.numel() * weight.element_size() for weight in thinker.parameters())
    assert need.weights.host_bytes == pytest.approx(held, rel=0.02)


def test_experts_left_as_they_were_are_named(folder, loaded):
    thinker = loaded("4bit")._thinker
    check_quantised(thinker, folder, FAMILY.quantised)
    layer = getattr(thinker.model, "language_model", thinker.model).layers[2]
    quantised, layer.mlp = layer.mlp, loaded(None)._layers[2].mlp
    with pytest.raises(
        ModelError, match=r"left .*layers\.2\.mlp\.experts\.gate_up_proj and 1 more"
    ):
        check_quantised(thinker, folder, FAMILY.quantised)
    layer.mlp = quantised


def change(folder: Path, name: str, weight: torch.Tensor | None) -> None:
    """Replace or remove a tensor of a checkpoint."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = folder / index["weight_map"][name]
    state = load_file(file)
    if weight is None:
        del state[name], index["weight_map"][name]
    else:
        state[name] = weight
    save_file(state, file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("checked", [True, False], ids=["before loading", "while loading"])
def test_a_missing_or_misshapen_expert_is_named(tmp_path, monkeypatch, checked):
    folder = hub_layout(tmp_path)
    name = "thinker.model.layers.1.mlp.experts.3.up_proj.weight"
    shape, lack = f"{name} is 8 × 8", f"lacks 1 of the model's weights, such as {name}"
    if not checked:
        monkeypatch.setattr(loading, "check", lambda location: None)
        shape = f"{name} has the shape (8, 8) instead of"
        lack = "lacks layers.1.mlp.experts.3.up_proj"
    change(folder, name, torch.ones(8, 8))
    with pytest.raises(ModelError, match=re.escape(shape)):
        load(folder, "4bit")
    change(folder, name, None)
    with pytest.raises(ModelError, match=re.escape(lack)):
        load(folder, "4bit")


def test_experts_of_an_odd_size_are_refused_in_4_bits():
    made = SmallExperts(
        SimpleNamespace(num_experts=1, hidden_dim=10, intermediate_dim=5, act_fn=nn.SiLU()), Packed4
    )
    made.allocate(CPU, torch.float32)
    with pytest.raises(ModelError, match="no multiple of 64"):
        made.put(0, "gate", torch.ones(5, 10))


@pytest.mark.parametrize("quantize", [None, "4bit", "8bit"])
def test_every_weight_is_read_once_on_its_way_to_a_gpu(
    folder, quantize, loaded, on_its_way_to_a_gpu
):
    there, names = on_its_way_to_a_gpu(quantize)
    stored = {weight.name for weight in weights(folder, FAMILY.unused_weights)}
    assert sorted(names) == sorted(stored)
    last = max(i for i, name in enumerate(names) if not is_expert(name))
    if quantize is not None:  # experts are read after all that transformers reads
        assert not any(is_expert(name) for name in names[:last])
    given, expected = there._thinker.state_dict(), loaded(quantize)._thinker.state_dict()
    assert list(given) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(given[key], value), key


def test_experts_are_the_same_on_their_way_to_a_gpu(loaded, on_its_way_to_a_gpu):
    there, names = on_its_way_to_a_gpu("4bit")
    assert names
    for one, other in zip(there._layers, loaded("4bit")._layers, strict=True):
        assert torch.equal(one.mlp.experts.gate_up.codes, other.mlp.experts.gate_up.codes)
        assert torch.equal(one.mlp.experts.down.scales, other.mlp.experts.down.scales)

"""Weights that stay mapped: the answers of float32, without its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omnidrop.engine.model import load
from omnidrop.models import experts, loading, mapped
from omnidrop.models.loading import estimate, resolve
from omnidrop.models.mapped import MappedPages, WidenedEmbedding, WidenedLinear, keep_mapped
from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker
from omnidrop.models.qwen3_omni.tiny import tiny_thinker as tiny_mixture
from omnidrop.models.scratch import Scratch
from omnidrop.models.video_salmonn2.tiny import tiny_checkpoint
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop.pruning.methods.omnidrop import OmniDrop
from tests.tiny import make_features


@pytest.fixture(scope="module", params=[tiny_thinker, tiny_mixture, tiny_checkpoint])
def folder(request, tmp_path_factory) -> Path:
    return request.param(tmp_path_factory.mktemp("mapped"), dtype=torch.bfloat16)


@pytest.fixture
def slow_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "quick_bfloat16", lambda: False)


def options(folder: Path, **settings: str) -> LoadOptions:
    return LoadOptions(model=str(folder), device="cpu", offline=True, **settings)


def answered(folder: Path, **settings: str) -> list[object]:
    """An answer with its log-probabilities, and the outputs of both encoders."""
    model = load(options(folder, **settings))
    features = make_features(model=model)
    with model.features(features) as clip:
        answer = clip.ask(
            "Who plays?",
            method=OmniDrop(budget=0.5),
            options=GenerateOptions(max_new_tokens=8, logprobs=True),
        )
    adapter = model.adapter
    seen = adapter.encode_video(features.patches, features.grid, attention=True)
    heard = adapter.encode_audio(features.mel, attention=True)
    rows = adapter.embed(torch.arange(5))
    assert adapter.dtype == rows.dtype == torch.float32
    logits = adapter.logits(rows[None, :1])
    return [answer.token_ids, answer.logprobs, *seen.planes, *heard.planes, rows, logits]


def test_answers_are_those_of_float32(folder, slow_bfloat16):
    for mine, whole in zip(answered(folder), answered(folder, dtype="float32"), strict=True):
        same = torch.equal(mine, whole) if isinstance(mine, torch.Tensor) else mine == whole
        assert same


def test_no_matrix_is_copied(folder, slow_bfloat16):
    thinker = load(options(folder)).adapter._thinker
    ranges = list(mapped._mapped_ranges())
    matrices = [
        part.weight
        for part in thinker.modules()
        if isinstance(part, (WidenedLinear, WidenedEmbedding))
    ]
    for kept in thinker.modules():
        if isinstance(kept, experts.Kept):
            matrices += [part for parts in kept._parts for part in parts.values()]
    assert len(matrices) > 50
    assert not any(type(part) is nn.Linear for part in thinker.modules())
    for weight in matrices:
        assert weight.dtype == torch.bfloat16
        if sys.platform.startswith("linux"):
            assert any(first <= weight.data_ptr() < last for first, last in ranges)


def test_when_weights_stay_mapped(folder, monkeypatch, tmp_path):
    location = resolve(options(folder))
    cpu = torch.device("cpu")

    def stored(**settings: str) -> torch.dtype | None:
        wanted = options(folder, **settings)
        return loading.pick_stored(wanted, location, cpu, loading.pick_dtype(wanted, location, cpu))

    monkeypatch.setattr(loading, "quick_bfloat16", lambda: False)
    assert stored() == torch.bfloat16
    assert stored(dtype="float32") is None
    assert stored(dtype="float32", quantize="4bit") == torch.bfloat16
    monkeypatch.setattr(loading, "quick_bfloat16", lambda: True)
    assert stored() is None
    assert (
        loading.pick_stored(options(folder), location, torch.device("mps"), torch.float32) is None
    )


def test_the_estimate_is_half_of_float32(folder, slow_bfloat16):
    location = resolve(options(folder))
    mine, whole = (
        estimate(location, options(folder)),
        estimate(location, options(folder, dtype="float32")),
    )
    assert mine.weights.mapped_bytes > 0.5 * mine.weights.total_bytes
    half = whole.weights.total_bytes / 2
    assert half == 2 * whole.weights.parameters
    # Norms, biases and convolutions are held in float32: much of a tiny model, little of others.
    assert half < mine.weights.total_bytes < 1.5 * half


def test_a_checkpoint_of_several_dtypes_is_converted(tmp_path, slow_bfloat16):
    from safetensors.torch import load_file, save_file

    folder = tiny_thinker(tmp_path, dtype=torch.bfloat16)
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("layers.0.mlp.up_proj.weight"))
    state[name] = torch.randn(state[name].shape)  # more digits than bfloat16 has
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    adapter = load(options(folder)).adapter
    assert type(adapter._layers[0].mlp.up_proj) is nn.Linear
    assert torch.equal(adapter._layers[0].mlp.up_proj.weight, state[name])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(640, 192), (1000, 72), (7, 5)])
@pytest.mark.parametrize("rows", [(1,), (1, 1), (3,), (2, 20)])
def test_products_are_those_of_float32(rows, size, dtype, bias, monkeypatch):
    monkeypatch.setattr(mapped, "BLOCK_VALUES", 2**14)
    narrow = nn.Linear(size[1], size[0], bias=bias).to(dtype)
    given = torch.randn(*rows, size[1])
    wide = None if narrow.bias is None else narrow.bias.float()
    expected = F.linear(given, narrow.weight.float(), wide)
    made = WidenedLinear(narrow.weight, narrow.bias, Scratch(torch.float32))
    with torch.inference_mode():
        found = made(given)
    assert torch.equal(found, expected)
    assert torch.equal(made(given), expected)  # the buffer may be used outside of inference mode
    monkeypatch.setattr(mapped, "MOST_VALUES", 64 * size[1])
    torch.testing.assert_close(made(given), expected)


def test_tied_tables_stay_one():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
            self.head.weight = self.table.weight

        def get_input_embeddings(self) -> nn.Module:
            return self.table

    model = Tied().to(torch.bfloat16)
    place = model.table.weight.data_ptr()
    keep_mapped(model, torch.float32)
    assert isinstance(model.table, WidenedEmbedding)
    assert model.table.weight.data_ptr() == model.head.weight.data_ptr() == place
    assert model.table(torch.tensor([3])).dtype == torch.float32


def test_pages_of_other_memory_are_never_given_back():
    held = torch.ones(2**20)
    MappedPages().give_back(held)
    assert bool((held == 1).all())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_of_files_are_given_back(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2**21)}, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        weight = file.get_tensor("w")

    def mapped_kib() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    weight.sum()
    before = mapped_kib()
    MappedPages().give_back(weight)
    assert before - mapped_kib() > 7 * 1024
    assert float(weight.sum()) == 2**21


PEAK = """
import sys, torch
from omnidrop.models import loading
loading.quick_bfloat16 = lambda: False
from omnidrop.models.qwen2_5_omni.adapter import THINKER
from omnidrop.options import LoadOptions
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024
before = anonymous()
adapter = loading.load_adapter(LoadOptions(model=sys.argv[1], device="cpu", offline=True))
print(anonymous() - before, sum(p.numel() for p in adapter._thinker.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_takes_little_memory_of_its_own(tmp_path):
    folder = tiny_thinker(tmp_path, dtype=torch.bfloat16, hidden=1024, layers=8)
    said = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True
    ).stdout.split()
    taken, parameters = map(int, said[-2:])
    assert parameters > 2e7
    assert taken < parameters  # float32 would take four bytes of each

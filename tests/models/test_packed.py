"""Packed products on a CPU: near those of the widened matrix, whatever the size."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from omnidrop.engine.model import load
from omnidrop.errors import ModelError
from omnidrop.models import packed
from omnidrop.models.loading import LoadOptions
from omnidrop.models.packed import (
    GROUP,
    Matrix,
    Matrix4,
    Matrix8,
    PackedEmbedding,
    PackedLinear,
    bytes_of,
    quantised,
)
from omnidrop.models.quantising import check_quantised, language_model
from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker
from omnidrop.models.qwen3_omni.tiny import tiny_thinker as tiny_mixture
from omnidrop.models.scratch import Scratch
from omnidrop.models.thinker_files import decoder_linear
from omnidrop.models.video_salmonn2.tiny import tiny_checkpoint
from omnidrop.options import GenerateOptions
from omnidrop.pruning.method import Method
from tests.some import some
from tests.tiny import make_features

SIZES = [(64, 64), (256, 128), (1000, 200), (7, 5), (33, 72)]


@pytest.fixture(params=["packed products", "widened only"])
def kernels(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's kernels, if there are quick ones here, and without."""
    if request.param == "widened only":
        monkeypatch.setattr(packed, "tile_rows", lambda: None)
        monkeypatch.setattr(packed, "multiplies_8_bits", lambda: False)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "rows", [1, 16, 17, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (3, 40))]
)
@pytest.mark.usefixtures("kernels")
def test_products_are_those_of_the_widened_matrix(rows, size, kind):
    made = packed.packed(torch.randn(size).bfloat16(), kind, Scratch(torch.float32))
    given = torch.randn(rows, size[1])
    found = made(given)
    assert found.shape == (rows, size[0])
    assert found.dtype == torch.float32
    # Few rows are rounded to bfloat16, and so is what they give.
    assert relative(found, given @ made.widened().t()) < (0.01 if rows <= packed.FEW_ROWS else 1e-5)


@pytest.mark.parametrize(("kind", "error"), [("4bit", 0.1), ("8bit", 0.01)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("kernels")
def test_the_widened_matrix_is_near_the_original(kind, error, size):
    weight = torch.randn(size)
    given = weight.clone()
    made = packed.packed(weight, kind, Scratch(torch.float32))
    assert torch.equal(weight, given)
    assert made.widened().shape == size
    assert relative(made.widened(), weight) < error
    assert made.bytes <= bytes_of(kind, *size)
    if kind == "8bit":
        assert made.bytes == bytes_of(kind, *size)


def test_four_bits_by_hand():
    """One group of 16 equal steps is stored exactly."""
    weight = ((torch.arange(32 * GROUP) % 16).view(32, GROUP).float() - 8) / 4
    codes, scale, middle = quantised(weight, 32)
    assert torch.equal(codes[0].t().float(), (weight + 2) * 4)
    assert bool((scale.float() == 0.25).all())
    assert bool((middle.float() == 0).all())
    made = packed.packed(weight, "4bit", Scratch(torch.float32))
    assert torch.equal(made.widened(), weight)


@pytest.mark.parametrize("value", [0.0, 0.75])
@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_constant_matrix_stays_as_it_is(kind, value):
    made = packed.packed(torch.full((64, 64), value), kind, Scratch(torch.float32))
    torch.testing.assert_close(made.widened(), torch.full((64, 64), value), rtol=0.01, atol=0)


def test_a_matrix_is_put_in_chunks(monkeypatch):
    weight = torch.randn(200, 128)
    at_once = packed.packed(weight, "4bit", Scratch(torch.float32))
    monkeypatch.setattr(packed, "CHUNK", 1)
    chunks = packed.packed(weight, "4bit", Scratch(torch.float32))
    assert torch.equal(at_once.codes, chunks.codes)
    assert torch.equal(at_once.scales, chunks.scales)


def test_a_bias_is_added_and_any_shape_taken():
    linear = nn.Linear(64, 64)
    made = PackedLinear(packed.packed(linear.weight, "8bit", Scratch(torch.float32)), linear.bias)
    given = torch.randn(1, 5, 64)
    assert relative(made(given), linear(given)) < 0.02


def test_rows_of_a_table_are_looked_up():
    table = torch.randn(50, 72)
    made = PackedEmbedding(packed.packed_8(table, Scratch(torch.float32)))
    ids = torch.tensor([[3, 49], [0, 3]])
    assert made(ids).shape == (2, 2, 72)
    assert torch.equal(made(ids)[0, 0], made.matrix.widened()[3])
    assert relative(made(ids), table[ids]) < 0.01


@pytest.fixture(
    scope="module",
    params=[tiny_thinker, pytest.param(tiny_mixture, marks=pytest.mark.slow), tiny_checkpoint],
)
def folder(request, tmp_path_factory) -> Path:
    return request.param(tmp_path_factory.mktemp("packed"), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("quantize", "dtype"),
    some(
        product(("4bit", "8bit"), ("float32", "bfloat16")),
        kept={("4bit", "float32"), ("8bit", "bfloat16")}.__contains__,
    ),
)
def test_a_packed_model_answers(folder, quantize, dtype):
    options = LoadOptions(
        model=str(folder), device="cpu", dtype=dtype, quantize=quantize, offline=True
    )
    model = load(options)
    thinker = model.adapter._thinker
    inside = [part for part in thinker.modules() if isinstance(part, Matrix)]
    kind = Matrix4 if quantize == "4bit" else Matrix8
    assert sum(isinstance(part, kind) for part in inside) >= 6 * 4
    assert isinstance(language_model(thinker).embed_tokens.matrix, Matrix8)
    assert isinstance(thinker.lm_head.matrix, Matrix8)
    assert not [name for name, _ in thinker.named_parameters() if decoder_linear(name)]
    features = make_features(model=model)
    with model.features(features) as clip:
        answer = clip.ask(
            "Who plays?",
            method=Method(),
            options=GenerateOptions(max_new_tokens=4, logprobs=True),
        )
    assert len(answer.token_ids) == 4
    assert all(torch.tensor(answer.logprobs).isfinite())
    assert answer.trace.model["dtype"] == dtype
    # The encoders are not quantised.
    whole = load(LoadOptions(model=str(folder), device="cpu", dtype=dtype, offline=True)).adapter
    for mine, theirs in zip(
        model.adapter.encode_video(features.patches, features.grid).planes,
        whole.encode_video(features.patches, features.grid).planes,
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_tied_tables_are_packed_once(tmp_path):
    folder = tiny_checkpoint(tmp_path, dtype=torch.bfloat16, tied=True)
    thinker = load(
        LoadOptions(model=str(folder), device="cpu", quantize="4bit", offline=True)
    ).adapter._thinker
    assert language_model(thinker).embed_tokens.matrix is thinker.lm_head.matrix


def test_a_part_that_was_left_is_named(folder):
    thinker = load(
        LoadOptions(model=str(folder), device="cpu", quantize="8bit", offline=True)
    ).adapter._thinker
    check_quantised(thinker, folder, decoder_linear)
    language_model(thinker).layers[1].self_attn.q_proj = nn.Linear(64, 64)
    with pytest.raises(ModelError, match=r"left .*layers\.1\.self_attn\.q_proj\.weight"):
        check_quantised(thinker, folder, decoder_linear)


def test_a_layout_that_is_not_ours_is_not_used(monkeypatch):
    packed.tile_rows.cache_clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

    class Other:
        @staticmethod
        def _convert_weight_to_int4pack_for_cpu(codes, tiles):
            return torch.zeros(64, GROUP // 2, dtype=torch.uint8)

        @staticmethod
        def _weight_int4pack_mm_for_cpu(rows, packed, group, scales):
            return torch.zeros(1, 64, dtype=torch.bfloat16)

    monkeypatch.setattr(packed, "_OPS", Other)
    assert packed.tile_rows() is None
    packed.tile_rows.cache_clear()

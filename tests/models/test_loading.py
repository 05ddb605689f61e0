"""Loading: devices, dtypes, quantisation, both layouts of a checkpoint, damaged checkpoints."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnidrop.engine.cache import KVCache
from omnidrop.errors import MemoryShortError, ModelError, UsageError
from omnidrop.models import from_transformers, loading, memory
from omnidrop.models.loading import LoadOptions, estimate, load_adapter, resolve
from omnidrop.models.locations import weights
from omnidrop.models.packed import Matrix, Matrix4, PackedEmbedding, PackedLinear
from omnidrop.models.quantising import check_quantised
from omnidrop.models.qwen2_5_omni import FAMILY
from omnidrop.models.qwen2_5_omni.tiny import thinker_config, tiny_thinker
from omnidrop.models.scratch import Scratch
from tests.models.conftest import load


def options(folder: Path, **settings: str) -> LoadOptions:
    return LoadOptions(model=str(folder), device="cpu", offline=True, **settings)


@pytest.mark.slow
def test_both_layouts_hold_the_same_model(thinker_folder, hub_folder):
    ours, hub = load(thinker_folder), load(hub_folder)
    a, b = ours._thinker.state_dict(), hub._thinker.state_dict()
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)
    assert ours.template == hub.template
    assert hub.info.parameters == ours.info.parameters


def test_the_config_is_read_with_the_hubs_names(hub_folder):
    config = load(hub_folder)._thinker.config
    wanted = thinker_config()
    assert config.text_config.rope_parameters["mrope_section"] == [4, 2, 2]
    assert config.text_config.rope_parameters["rope_theta"] == 1e6
    assert config.vision_start_token_id == wanted["vision_start_token_id"]
    assert config.video_token_id == wanted["video_token_index"]


def test_loading_uses_no_network(hub_folder, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_adapter(LoadOptions(model=str(hub_folder), device="cpu"))


def test_loading_prints_nothing(hub_folder, capfd):
    load(hub_folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_is_as_requested(thinker_folder, dtype):
    adapter = load(thinker_folder, dtype=dtype)
    assert adapter.info.dtype == dtype
    assert adapter.embed(torch.tensor([1])).dtype == getattr(torch, dtype)


def test_default_dtype(tmp_path, monkeypatch):
    half = tiny_thinker(tmp_path / "half", dtype=torch.bfloat16, layers=4)
    cpu = torch.device("cpu")
    location = resolve(options(half))
    for quick, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "quick_bfloat16", lambda quick=quick: quick)
        assert loading.pick_dtype(options(half), location, cpu) == wanted
    monkeypatch.setattr(loading, "quick_bfloat16", lambda: True)
    demo = replace(location, demo=True)
    assert loading.pick_dtype(options(half), demo, cpu) == torch.float32
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert loading.pick_dtype(options(half), location, cuda) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert loading.pick_dtype(options(half), location, cuda) == torch.bfloat16
    assert isinstance(loading.quick_bfloat16(), bool)


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"dtype": "int8"},
        {"quantize": "2bit"},
        {"attention": "fast"},
    ],
    ids=str,
)
def test_invalid_options_are_refused(settings):
    with pytest.raises(UsageError):
        LoadOptions(**settings)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert loading.pick_device("auto").type == "cpu"
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ModelError, match=name):
            loading.pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert str(loading.pick_device("auto")) == "cuda:0"
    with pytest.raises(ModelError, match="finds 1 CUDA"):
        loading.pick_device("cuda:1")


def test_flash_attention_needs_a_gpu(thinker_folder, monkeypatch):
    with pytest.raises(ModelError, match="--attn sdpa"):
        load_adapter(options(thinker_folder, attention="flash"))
    import transformers.utils

    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
    cuda = torch.device("cuda", 0)
    with pytest.raises(ModelError, match="16 bits"):
        loading._check_attention("flash_attention_2", cuda, torch.float32)
    loading._check_attention("flash_attention_2", cuda, torch.bfloat16)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_what_stays_whole_is_named_in_few_words(kind: str) -> None:
    """Transformers 5.17 compiles a pattern for each name at each module: 420 names took 45 s."""
    from transformers import Qwen2_5OmniThinkerConfig

    from omnidrop.models.quantising import quantisation
    from omnidrop.models.qwen2_5_omni.adapter import THINKER

    config = Qwen2_5OmniThinkerConfig.from_dict(thinker_config())
    names = quantisation(kind, THINKER, config, torch.bfloat16).llm_int8_skip_modules
    assert sorted(name.split(".")[-1] for name in names) == ["audio_tower", "lm_head", "visual"]


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_only_the_decoder_is_quantised(hub_folder, kind):
    adapter, plain = load(hub_folder, quantize=kind), load(hub_folder)
    assert adapter.info.quantization == kind
    assert adapter.info.parameters == plain.info.parameters
    found = [
        name for name, part in adapter._thinker.named_modules() if isinstance(part, PackedLinear)
    ]
    found.remove("lm_head")  # in 8 bits, like the table of embeddings
    assert isinstance(adapter._text.embed_tokens, PackedEmbedding)
    assert len(found) == 6 * 7
    assert all(".layers." in name for name in found)
    assert not any(part in name for name in found for part in ("visual", "audio_tower"))
    # The encoders are unchanged, and the decoder is close to the original.
    patches = torch.randn(64, 1176)
    torch.testing.assert_close(
        adapter.encode_video(patches, (1, 8, 8)).planes,
        plain.encode_video(patches, (1, 8, 8)).planes,
    )
    hidden, rotary = torch.randn(1, 9, 64), plain.rotary(torch.arange(9).expand(3, -1))
    wanted = plain.layer(0, hidden, rotary, KVCache(6))
    out = adapter.layer(0, hidden.to(adapter.dtype), rotary, KVCache(6))
    assert float((out - wanted).norm() / wanted.norm()) < 0.2


def test_quantising_the_wrong_parts_is_an_error(thinker_folder):
    adapter = load(thinker_folder)
    with pytest.raises(ModelError, match="quantised nothing"):
        check_quantised(adapter._thinker, thinker_folder, FAMILY.quantised)
    thinker = load(thinker_folder)._thinker
    thinker.lm_head = PackedLinear(Matrix4(64, 8, Scratch(torch.float32)))
    with pytest.raises(ModelError, match="quantised lm_head"):
        check_quantised(thinker, thinker_folder, FAMILY.quantised)
    thinker = load(thinker_folder, quantize="8bit")._thinker
    text = getattr(thinker.model, "language_model", thinker.model)
    text.layers[1].mlp.up_proj = torch.nn.Linear(64, 128)
    with pytest.raises(ModelError, match=r"left .*layers\.1\.mlp\.up_proj\.weight and 0 more"):
        check_quantised(thinker, thinker_folder, FAMILY.quantised)


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_missing_weights_are_an_error(hub_folder, tmp_path):
    folder = copy(hub_folder, tmp_path / "m")
    file = folder / "model-00002-of-00003.safetensors"
    state = load_file(file)
    state.pop(next(key for key in state if key.startswith("thinker.")))
    save_file(state, file)
    with pytest.raises(ModelError, match="lacks 1 of the model's weights"):
        load_adapter(options(folder))


def test_weights_of_another_shape_are_refused(thinker_folder, tmp_path):
    folder = copy(thinker_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 96
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_adapter(options(folder))


def test_an_invalid_config_is_refused(thinker_folder, tmp_path):
    folder = copy(thinker_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_size"] = "wide"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_adapter(options(folder))


def test_an_invalid_tokenizer_is_refused(thinker_folder, tmp_path):
    folder = copy(thinker_folder, tmp_path / "m")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        load_adapter(options(folder))


def test_estimate_counts_the_thinker_alone(hub_folder, thinker_folder):
    hub = resolve(options(hub_folder))
    count = sum(w.numel for w in weights(thinker_folder))
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        need = estimate(hub, options(hub_folder, dtype=dtype))
        assert need.weights.parameters == count
        assert need.weights.host_bytes == need.weights.total_bytes == count * size
        assert need.fits
    small = estimate(hub, options(hub_folder, dtype="float32", quantize="4bit"))
    linears = 6 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    assert small.weights.host_bytes < (count - linears) * 4 + linears
    thinker = load(hub_folder, quantize="4bit")._thinker
    matrices = {id(part): part for part in thinker.modules() if isinstance(part, Matrix)}
    held = sum(part.bytes for part in matrices.values())
    held += sum(weight.numel() * weight.element_size() for weight in thinker.parameters())
    assert small.weights.host_bytes == held
    gpu = estimate(hub, options(hub_folder, dtype="float32", quantize="4bit"), card=True)
    held = gpu.weights.host_bytes
    assert held == pytest.approx((count - linears) * 4 + linears * 0.53, abs=2)


def test_estimate_for_a_gpu(thinker_folder, monkeypatch):
    monkeypatch.setattr(loading, "pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100_000, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    need = estimate(resolve(options(thinker_folder)), options(thinker_folder, dtype="float32"))
    assert need.weights.host_bytes == 0
    assert need.weights.device_bytes == need.weights.total_bytes > 0
    assert need.free == 100_000
    assert not need.fits


def test_a_model_that_does_not_fit_is_not_loaded(thinker_folder, monkeypatch):
    monkeypatch.setattr(memory, "host_memory_free", lambda _: 1_000_000)
    with pytest.raises(MemoryShortError, match=r"does not fit: weights 1\.6 MB, free 1\.0 MB"):
        load_adapter(options(thinker_folder, dtype="float32"))


def test_running_out_of_memory_while_loading(thinker_folder, monkeypatch):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(from_transformers, "_from_disk", fail)
    with pytest.raises(MemoryShortError, match="GPU ran out of memory"):
        load_adapter(options(thinker_folder))

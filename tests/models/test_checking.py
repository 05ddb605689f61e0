"""Bad checkpoints are refused from their config and headers, before a weight is read."""

from __future__ import annotations

import json
import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnidrop.errors import ModelError
from omnidrop.models import from_transformers
from omnidrop.models.loading import LoadOptions, load_adapter, resolve
from omnidrop.models.locations import inspect, weights
from omnidrop.models.unloaded import describe
from tests.models.conftest import load


def options(folder: Path, **settings: str) -> LoadOptions:
    return LoadOptions(model=str(folder), device="cpu", offline=True, **settings)


@pytest.fixture
def folder(hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a checkpoint in the hub's layout, whose weights may not be read."""

    def refuse(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(from_transformers, "_from_disk", refuse)
    return Path(shutil.copytree(hub_folder, tmp_path / "m"))


def change(folder: Path, part: str, **values: object) -> None:
    """Change a part of the thinker's config; a value of `...` is removed."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    section = config["thinker_config"][part] if part else config["thinker_config"]
    section.update(values)
    path.write_text(json.dumps(config))


def change_weight(folder: Path, name: str, change: Any) -> None:
    """Replace a tensor by `change` of it, or remove it."""
    for file in folder.glob("*.safetensors"):
        state = load_file(file)
        if name in state:
            value = change(state.pop(name))
            if value is not None:
                state[name] = value
            save_file(state, file)


def refused(folder: Path, message: str, **settings: str) -> ModelError:
    """Loading and estimates refuse the folder with the same words."""
    with pytest.raises(ModelError, match=message) as first:
        load_adapter(options(folder, **settings))
    with pytest.raises(ModelError, match=message):
        describe(options(folder, **settings))
    assert first.value.hint
    return first.value


UP = "thinker.model.layers.3.mlp.up_proj.weight"


@pytest.mark.parametrize("quantize", [None, "4bit"])
def test_a_missing_tensor_is_named(folder, quantize):
    change_weight(folder, UP, lambda _: None)
    settings = {"quantize": quantize} if quantize else {}
    refused(
        folder, r"lacks 1 of the model's weights, such as .*layers\.3\.mlp\.up_proj", **settings
    )


@pytest.mark.parametrize("quantize", [None, "4bit"])
def test_a_tensor_of_another_shape_is_named(folder, quantize):
    change_weight(folder, UP, lambda weight: weight[:-1].contiguous())
    settings = {"quantize": quantize} if quantize else {}
    message = r"layers\.3\.mlp\.up_proj\.weight is 127 × 64, but config\.json asks for 128 × 64"
    refused(folder, message, **settings)


def test_a_config_of_another_size(folder):
    change(folder, "text_config", intermediate_size=96)
    refused(folder, r"mlp.* is .*128.*asks for .*96.* 17 more do not fit")


def test_a_smaller_vocabulary_than_the_tokenizers(folder):
    rows = 300

    def cut(weight: torch.Tensor) -> torch.Tensor:
        return weight[:rows].contiguous()

    change(folder, "text_config", vocab_size=rows)
    for name in ("thinker.model.embed_tokens.weight", "thinker.lm_head.weight"):
        change_weight(folder, name, cut)
    error = refused(folder, r"ids up to \d+, but the model's vocabulary has 300")
    assert Path(str(error.path)).name == "tokenizer.json"


@pytest.mark.parametrize("sections", [[4, 2, 1], [8], [4, 2, 2.0], "422", [10, -1, -1]], ids=str)
def test_mrope_sections(folder, sections):
    change(folder, "text_config", rope_scaling={"mrope_section": sections, "type": "default"})
    refused(folder, "mrope_section|cannot be loaded")


@pytest.mark.parametrize("value", ["64", "wide", None, [64], {}, 1.5, -64, 0], ids=str)
@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "vocab_size"])
def test_mistyped_values(folder, field, value):
    change(folder, "text_config", **{field: value})
    refused(folder, ".")


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("text_config", "num_hidden_layers"),
        ("vision_config", "depth"),
        ("audio_config", "encoder_layers"),
    ],
)
@pytest.mark.parametrize(
    "count", ["1000000000", "1" + "0" * 4000, "-1"], ids=["large", "huge", "negative"]
)
def test_absurd_numbers_of_layers(folder, part, field, count):
    change(folder, part, **{field: 77})
    path = folder / "config.json"
    path.write_text(path.read_text().replace(f'"{field}": 77', f'"{field}": {count}'))
    error = refused(folder, rf"thinker_config\.{part}\.{field} is .* the files hold \d+ tensors")
    assert error.path == path


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("vision_config", "window_size", 0),
        ("vision_config", "patch_size", -14),
        ("audio_config", "n_window", 0),
        ("audio_config", "max_source_positions", 10**9),
        ("text_config", "num_attention_heads", 0),
        ("text_config", "hidden_size", 10**18),
    ],
)
def test_absurd_sizes(folder, part, field, value):
    change(folder, part, **{field: value})
    refused(folder, rf"thinker_config\.{part}\.{field} is {value}")


def test_sizes_of_the_unused_parts_are_not_judged(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["talker_config"] |= {"num_hidden_layers": 10**6, "window_size": 0}
    path.write_text(json.dumps(config))
    inspect(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_pipes_are_not_opened(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    error = refused(folder, "device or a pipe")
    assert error.path == folder / name


def test_a_pipe_in_place_of_weights(folder):
    file = folder / "model-00001-of-00003.safetensors"
    file.unlink()
    os.mkfifo(file)
    refused(folder, "device or a pipe")


def test_a_link_to_an_endless_device(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    refused(folder, "device or a pipe")


def test_a_text_file_of_any_size_is_not_read(folder):
    with (folder / "config.json").open("ab") as file:
        file.truncate(10 * 2**30)
    refused(folder, "has 10737 MB")


@pytest.mark.parametrize("name", ["tokenizer.json", "model-00002-of-00003.safetensors"])
def test_pointers_of_git_lfs(folder, name):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 3989014352\n"
    (folder / name).write_text(text)
    error = refused(folder, "git-lfs's pointer")
    assert error.path == folder / name
    assert error.hint == "Type in the model's folder: git lfs pull"


def test_a_pipe_among_further_templates(folder):
    (folder / "additional_chat_templates").mkdir()
    os.mkfifo(folder / "additional_chat_templates" / "tools.jinja")
    refused(folder, "device or a pipe")


@pytest.mark.parametrize("shape", ["64", ["64"], [-1], [1.5], None, [2**63, 2**63], {}], ids=str)
def test_a_shape_that_is_none(folder, shape):
    file = folder / "model-00001-of-00003.safetensors"
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}
    header = json.dumps({"thinker.model.norm.weight": entry}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    error = refused(folder, "damaged or truncated")
    assert error.path == file


@pytest.fixture(scope="module")
def from_disk(hub_folder: Path) -> tuple[Any, Any, Any]:
    """What transformers reads of the whole checkpoint."""
    found: list[tuple[Any, Any, Any]] = []
    read = from_transformers._from_disk
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            from_transformers, "_from_disk", lambda *given: found.append(read(*given)) or found[0]
        )
        load_adapter(options(hub_folder))
    return found[0]


@pytest.mark.parametrize("value", ["many", [1], {"shortest_edge": "wide"}, -5, None], ids=str)
@pytest.mark.parametrize(
    "field",
    [
        "size",
        pytest.param("min_pixels", marks=pytest.mark.slow),
        pytest.param("patch_size", marks=pytest.mark.slow),
        "sampling_rate",
    ],
)
def test_mistyped_values_of_the_preprocessor(folder, from_disk, field, value, monkeypatch):
    """Nothing but a `ModelError` comes of them, in estimates as when loading."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with suppress(ModelError):
        describe(options(folder))
    monkeypatch.setattr(from_transformers, "_from_disk", lambda *_: from_disk)
    with suppress(ModelError):
        load_adapter(options(folder))


def test_tied_embeddings_need_no_head(folder):
    """What transformers fills in is not missing."""
    change(folder, "", tie_word_embeddings=True)
    change(folder, "text_config", tie_word_embeddings=True)
    change_weight(folder, "thinker.lm_head.weight", lambda _: None)
    assert describe(options(folder)).here


def speaking_apart(folder: Path) -> Path:
    """Move the tensors of talker and vocoder to a file of their own; return the file."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    speaking, last = {}, folder / "model-00004-of-00004.safetensors"
    for file in folder.glob("*.safetensors"):
        state = load_file(file)
        apart = [name for name in state if name.startswith(("talker.", "token2wav.", "code2wav."))]
        speaking |= {name: state.pop(name) for name in apart}
        save_file(state, file)
    save_file(speaking, last)
    index["weight_map"].update(dict.fromkeys(speaking, last.name))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return last


@pytest.mark.slow
def test_files_of_the_unused_parts_need_not_be_here(hub_folder, tmp_path):
    whole = load(hub_folder)
    folder = Path(shutil.copytree(hub_folder, tmp_path / "m"))
    unused = speaking_apart(folder)
    both = load(folder)
    unused.unlink()
    inspect(folder)
    without = load(folder)
    for adapter in (both, without):
        wanted = whole._thinker.state_dict()
        found = adapter._thinker.state_dict()
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    settings = [a._thinker.generation_config.to_dict() for a in (whole, without)]
    assert settings[0] == settings[1]
    assert without.info.parameters == sum(w.numel for w in weights(folder, ("talker.", "token2")))
    (folder / "model-00001-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match="missing"):
        inspect(folder)


def test_a_good_checkpoint_passes(folder, monkeypatch):
    location = resolve(options(folder))
    location.family.check(location.folder, location.config)
    assert describe(options(folder)).here


class TestExperts:
    """A family whose experts are one tensor each in the files, and joined in the model."""

    EXPERT = "thinker.model.layers.1.mlp.experts.2.up_proj.weight"

    @pytest.fixture
    def experts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        from omnidrop.models.qwen3_omni.tiny import hub_layout

        def refuse(*_: object) -> None:
            raise AssertionError("weights were read")

        monkeypatch.setattr(from_transformers, "_from_disk", refuse)
        return hub_layout(tmp_path / "experts")

    def test_a_good_one_passes(self, experts):
        assert self.EXPERT in {weight.name for weight in weights(experts)}
        assert describe(options(experts)).here

    @pytest.mark.parametrize("quantize", [None, "4bit"])
    def test_a_missing_expert_is_named(self, experts, quantize):
        change_weight(experts, self.EXPERT, lambda _: None)
        settings = {"quantize": quantize} if quantize else {}
        refused(experts, r"layers\.1\.mlp\.experts", **settings)

    def test_an_expert_of_another_shape_is_named(self, experts):
        change_weight(experts, self.EXPERT, lambda weight: weight[:-1].contiguous())
        refused(experts, r"layers\.1\.mlp\.experts")

    @pytest.mark.parametrize("quantize", [None, "4bit"])
    def test_files_of_the_unused_parts_need_not_be_here(self, experts, monkeypatch, quantize):
        monkeypatch.undo()
        settings = {"quantize": quantize} if quantize else {}
        whole = load_adapter(options(experts, dtype="float32", **settings))
        speaking_apart(experts).unlink()
        without = load_adapter(options(experts, dtype="float32", **settings))
        hidden = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
        for adapter in (whole, without):
            assert adapter.info.quantization == quantize
        assert torch.equal(whole.logits(hidden[:, :1]), without.logits(hidden[:, :1]))
        states = [dict(a._thinker.state_dict()) for a in (whole, without)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_mrope_sections(self, experts):
        scaling = {"mrope_section": [1, 1, 1], "type": "default"}
        change(experts, "text_config", rope_scaling=scaling)
        refused(experts, "mrope_section")

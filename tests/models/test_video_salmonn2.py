"""video-SALMONN 2+ against transformers' parts and against plain code of its published rules."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
)

from omnidrop.clip.patches import target_size
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.errors import ModelError, UsageError
from omnidrop.models.family import published
from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.models.unloaded import describe
from omnidrop.models.video_salmonn2 import FAMILY
from omnidrop.models.video_salmonn2.sizes import AudioConfig, media_specs
from omnidrop.models.video_salmonn2.template import SalmonnTemplate, template
from omnidrop.models.video_salmonn2.tiny import config as tiny_config
from omnidrop.models.video_salmonn2.tiny import hub_keys, models, tiny_checkpoint
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.pruning.parts import a2v
from omnidrop.pruning.registry import get_method
from omnidrop.testing import media
from omnidrop.tokens import Kind, Media
from omnidrop.training.a2v import TrainOptions, pairs_of, train
from tests.some import every
from tests.tiny import make_features

QUESTION = "What is heard when the red square moves?"
TOKENS = 12


def load(folder: Path, dtype: str = "float32") -> Any:
    return load_adapter(LoadOptions(model=str(folder), device="cpu", dtype=dtype, offline=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("salmonn") / "tiny")


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Any:
    return load(folder)


# The prompt


def reference_ids(made: SalmonnTemplate, media: Media) -> list[int]:
    """The clip's tokens, grid by grid; the last grid takes the audio that is left."""
    found = [made.vision_start]
    left = media.audio_tokens
    if media.grid is not None:
        steps, height, width = media.grid
        step = torch.tensor(media.second_per_grid, dtype=torch.float32)
        times = (torch.arange(steps) * step * made.audio_per_second.numerator).long().tolist()
        for number in range(steps):
            found += [made.video] * (height * width // 4)
            last = number == steps - 1
            share = left if last else min(left, times[number + 1] - times[number])
            found += [made.audio] * share
            left -= share
    return [*found, *[made.audio] * left, made.vision_end]


def reference_positions(
    made: SalmonnTemplate, ids: list[int], media: Media, convention: str
) -> list[tuple[int, int, int]]:
    """Positions of a whole prompt, token by token."""
    clip = [i for i, token in enumerate(ids) if token in (made.video, made.audio)]
    if not clip:
        return [(i, i, i) for i in range(len(ids))]
    first = clip[0]
    found = [(i, i, i) for i in range(first)]
    cells = []
    if media.grid is not None:
        steps, height, width = media.grid
        step = 1.0 if convention == "published" else media.second_per_grid
        rate = 2 if convention == "published" else made.audio_per_second.numerator
        wide = torch.tensor(step, dtype=torch.float32)
        times = (torch.arange(steps) * wide * rate).long().tolist()
        cells = [
            (first + times[t], first + h, first + w)
            for t in range(steps)
            for h in range(height // 2)
            for w in range(width // 2)
        ]
    if convention == "published":
        found += cells
        after = max(max(place) for place in found) + 1
    else:
        sounds = iter(range(media.audio_tokens))
        pictures = iter(cells)
        block = []
        for place in clip:
            if ids[place] == made.video:
                block.append(next(pictures))
            else:
                at = first + next(sounds)
                block.append((at, first, at) if media.grid is not None else (at, at, first))
        found += block
        by = (lambda place: place[0]) if media.audio_tokens else max
        after = max(map(by, block)) + 1
    while len(found) < len(ids):
        found.append((after,) * 3)
        after += 1
    return found


MEDIA = {
    "both": Media((5, 4, 8), 0.2, 60),
    "slow frames": Media((7, 4, 4), 2.9, 60),
    "sound goes on": Media((3, 4, 4), 0.7, 180),
    "silent": Media((4, 12, 16), 0.35, 0),
    "tall and short": Media((2, 40, 4), 0.2, 60),
    "audio only": Media(None, None, 60),
    "odd rate": Media((100, 2, 2), 2 / 9.87, 60),
}


@pytest.mark.parametrize("convention", ["published", "trained"])
@pytest.mark.parametrize("mix", MEDIA)
def test_prompts_follow_the_published_rules(adapter: Any, mix: str, convention: str) -> None:
    media = MEDIA[mix]
    made = template(adapter.text, adapter._thinker.config, "tiny", convention)
    prompt = build_prompt(adapter.text, made, QUESTION, media)
    ids = prompt.ids.tolist()
    first = ids.index(made.vision_start)
    clip = reference_ids(made, media)
    assert ids[first : first + len(clip)] == clip
    wanted = reference_positions(made, ids, media, convention)
    assert prompt.positions.T.tolist() == [list(place) for place in wanted]
    assert prompt.next_position == wanted[-1][0] + 1
    audio = prompt.tokens.grid[prompt.tokens.kind == Kind.AUDIO]
    assert audio[:, 0].tolist() == list(range(media.audio_tokens))
    chunks = prompt.tokens.chunk[prompt.tokens.av].tolist()
    assert chunks == sorted(chunks)


def test_audio_that_ends_first_stands_with_the_frames_it_is_heard_with() -> None:
    """60 tokens are 30 s; the published code fails here, because the last grid would owe some."""
    made = template(None, None, "published")
    clip = made.clip(Media((8, 2, 2), 6.0, 60), 0)
    runs, kinds = [], clip.tokens.kind.tolist()
    for kind in kinds[1:-1]:
        if kind == Kind.VIDEO:
            runs.append(0)
        else:
            runs[-1] += 1
    assert runs == [12, 12, 12, 12, 12, 0, 0, 0]


def test_the_published_numbers() -> None:
    made = template(None, None, "published")
    assert [made.audio_tokens(frames) for frames in (0, 1, 3000, 3001, 9000)] == [
        0,
        60,
        60,
        120,
        180,
    ]
    assert (made.mel_per_token, made.positions_per_second) == (50, 10)
    assert template(None, None, "published", "trained").positions_per_second == 2
    config = AudioConfig()
    assert (config.piece_frames, config.piece_tokens, config.piece_seconds) == (3000, 60, 30)
    _, audio = media_specs(None, None)
    assert [audio.frames(samples) for samples in (1, 480_000, 480_001)] == [3000, 3000, 6000]


def test_the_chat_is_the_published_one(adapter: Any) -> None:
    """System text, a line break between clip and question; transcribed from the chat template."""
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, Media((1, 2, 2), 0.2, 30))
    names = {adapter.text.id(name): name for name in ("<|im_start|>", "<|im_end|>")}
    names |= {adapter.template.vision_start: "[", adapter.template.vision_end: "]"}
    names |= {adapter.template.video: "v", adapter.template.audio: "a"}
    text, run = "", []
    for token in [*prompt.ids.tolist(), adapter.text.id("<|im_end|>")]:
        if token in names:
            text += adapter.text.decode(run) + names[token]
            run = []
        else:
            run.append(token)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"[v{'a' * 30}]\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<|im_end|>"
    )
    asked = prompt.ids[prompt.tokens.kind == Kind.QUESTION].tolist()
    assert adapter.text.decode(asked) == QUESTION


# Answers

MIXES = {
    "with sound": ((4, 8, 12), 0.4, 437),
    "silent": ((3, 16, 20), 0.7, 0),
    "audio only": (None, None, 731),
    "no media": (None, None, 0),
    "sound goes on": ((2, 4, 6), 0.3, 911),
}


def features(mix: str) -> Features:
    grid, step, frames = MIXES[mix]
    generator = torch.Generator().manual_seed(len(mix))
    patches = None
    if grid is not None:
        patches = torch.randn(math.prod(grid), 1176, generator=generator)
    mel = torch.randn(128, frames, generator=generator) if frames else None
    return Features(patches=patches, grid=grid, second_per_grid=step, mel=mel)


def transformers_model(folder: Path, dtype: torch.dtype) -> Any:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype)


@torch.inference_mode()
def reference_answer(
    theirs: Any, ids: torch.Tensor, rows: torch.Tensor | None, positions: torch.Tensor
) -> list[int]:
    """Greedy tokens of transformers' `generate`, given embeddings and positions of the prompt."""
    embeds = theirs.get_input_embeddings()(ids)
    if rows is not None:
        marks = (theirs.config.video_token_id, theirs.config.audio_token_id)
        embeds[torch.isin(ids, torch.tensor(marks))] = rows
    out = theirs.generate(
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        position_ids=positions[:, None],
        max_new_tokens=TOKENS,
        do_sample=False,
    )
    return up_to(out[0].tolist(), theirs.generation_config.eos_token_id)


def up_to(tokens: list[int], stops: Collection[int]) -> list[int]:
    return next((tokens[:i] for i, token in enumerate(tokens) if token in stops), tokens)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pair(request: pytest.FixtureRequest, folder: Path) -> tuple[Model, Any]:
    dtype = getattr(torch, request.param)
    return Model(load(folder, request.param)), transformers_model(folder, dtype)


@pytest.mark.parametrize(
    ("convention", "mix"),
    every(2, product(("published", "trained"), MIXES)),
)
def test_keeping_everything_equals_transformers(
    pair: tuple[Model, Any], mix: str, convention: str
) -> None:
    model, theirs = pair
    adapter: Any = model.adapter
    adapter.template = template(adapter.text, theirs.config, "tiny", convention)
    with model.features(features(mix)) as session:
        answer = session.ask(
            QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=TOKENS), reuse=False
        )
        encoded = session.encode()
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, encoded.media)
    media, ids = encoded.media, prompt.ids.tolist()
    places = reference_positions(adapter.template, ids, media, convention)
    rows = None
    if media:
        rows = encoded.in_prompt_order(prompt.tokens.video[prompt.tokens.av])[0]
    wanted = reference_answer(theirs, prompt.ids, rows, torch.tensor(places).T)
    assert list(answer.token_ids) == wanted
    assert len(set(wanted)) > 3


def test_the_conventions_give_other_answers(folder: Path) -> None:
    """So the tests above would fail if one was taken for the other."""
    model = Model(load(folder))
    adapter: Any = model.adapter
    found = []
    for convention in ("published", "trained"):
        adapter.template = template(adapter.text, adapter._thinker.config, "tiny", convention)
        with model.features(features("with sound")) as session:
            answer = session.ask(
                QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=TOKENS)
            )
        found.append(answer.token_ids)
    assert found[0] != found[1]


def test_silent_clips_equal_transformers_generate(folder: Path) -> None:
    """Transformers' own positions, with two a second and one second from grid to grid."""
    model, theirs = Model(load(folder)), transformers_model(folder, torch.float32)
    clip = features("silent")
    with model.features(clip) as session:
        answer = session.ask(
            QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=TOKENS), reuse=False
        )
        media = session.encode().media
    ids = build_prompt(model.adapter.text, model.adapter.template, QUESTION, media).ids
    kinds = 2 * (ids == theirs.config.video_token_id).int()
    with torch.inference_mode():
        out = theirs.generate(
            input_ids=ids[None],
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            mm_token_type_ids=kinds[None],
            pixel_values_videos=clip.patches,
            video_grid_thw=torch.tensor([clip.grid]),
            second_per_grid_ts=torch.tensor([1.0]),
            max_new_tokens=TOKENS,
            do_sample=False,
        )
    wanted = up_to(out[0, len(ids) :].tolist(), model.adapter.stop_ids)
    assert list(answer.token_ids) == wanted
    assert len(set(wanted)) > 3


# Checkpoints


def test_weights_are_those_of_the_checkpoint(folder: Path, adapter: Any) -> None:
    stored: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        stored |= load_file(file)
    del stored["audio.qformer.bert.embeddings.position_ids"]
    loaded = hub_keys(adapter._thinker, adapter._thinker.audio)
    assert {k for k in loaded if not k.startswith("model.audio")} >= stored.keys()
    for name, weight in stored.items():
        assert torch.equal(loaded[name], weight), name
    assert adapter.info.parameters == sum(weight.numel() for weight in stored.values())


def test_a_tied_head_is_the_embedding_table(tmp_path: Path) -> None:
    adapter = load(tiny_checkpoint(tmp_path, tied=True))
    thinker = adapter._thinker
    assert thinker.lm_head.weight.data_ptr() == adapter._text.embed_tokens.weight.data_ptr()
    assert adapter.info.text.tied
    assert adapter.info.shapes.parameters == pytest.approx(adapter.info.parameters, rel=0.05)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_damaged_audio_encoder_is_named(tmp_path: Path, change: str) -> None:
    folder = tiny_checkpoint(tmp_path, shards=1)
    file = next(folder.glob("*.safetensors"))
    state, name = load_file(file), "audio.qformer.bert.encoder.layer.1.output_query.dense.weight"
    weight = state.pop(name)
    if change == "shape":
        state[name] = weight[:, :-1].contiguous()
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=name):
        load(folder)


def test_a_model_that_does_not_hear_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["audio_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no audio_config, so it is .* does not hear"):
        load(folder)


def test_newer_configs_nest_the_decoders_sizes(tmp_path: Path, adapter: Any) -> None:
    folder = tiny_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta",
            "rope_scaling", "vocab_size", "max_window_layers", "sliding_window")  # fmt: skip
    config["text_config"] = {key: config.pop(key) for key in keys}
    assert FAMILY.missing_part(config) is None
    assert FAMILY.shapes(config) == adapter.info.shapes
    config["text_config"] = None
    assert FAMILY.missing_part(config) == "text_config"


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        (None, "activation_function", "relu"),
        (None, "second_stride", 9.0),
        ("qformer_config", "cross_attention_freq", 2),
    ],
)
def test_an_encoder_of_another_kind_is_refused(part: str | None, key: str, value: object) -> None:
    config = tiny_config()
    audio = config["audio_config"]
    (audio if part is None else audio[part])[key] = value
    with pytest.raises(ModelError, match="does not run"):
        FAMILY.shapes(config)


def test_only_the_decoder_is_quantised(folder: Path) -> None:
    names = hub_keys(*models(tiny_config(), seed=0))
    chosen = {name for name in names if FAMILY.quantised(name)}
    assert len(chosen) == 6 * 7
    assert all(name.startswith("model.layers.") for name in chosen)


# Sizes and sampling


def test_sizes_of_the_published_models() -> None:
    """3.09 and 7.62 billion weights of Qwen2.5, 0.67 of the vision encoder, 0.93 of the audio's."""
    for alias, text, tables in (("salmonn2-3b", 3.085e9, 1), ("salmonn2-7b", 7.615e9, 2)):
        found = published(FAMILY.aliases[alias])
        assert found is not None
        shapes = found[1]
        assert shapes.text.parameters == pytest.approx(text, rel=0.002)
        assert (1 if shapes.text.tied else 2) == tables
        assert shapes.audio.parameters == pytest.approx(0.926e9, rel=0.01)
        known = describe(LoadOptions(model=alias, device="cpu"))
        assert not known.here
        assert known.weights == 2 * shapes.parameters
        assert known.media_spec.tokens_of_samples(16_000 * 61) == 180


@pytest.mark.parametrize("frames", [16, 100, 500, 768])
def test_fewer_frames_have_more_pixels(frames: int) -> None:
    """The published rule: 61,250 pixels, or a share of 95 % of those of 768 frames."""
    video, _ = media_specs(None, None)
    limit = 61_250 if frames == 768 else 0.95 * 768 / frames * 61_250
    height, width = target_size(4320, 7680, frames, video)
    assert height % 28 == width % 28 == 0
    assert height * width <= limit < (height + 28) * (width + 28)


# The convention of positions, from the outside


def test_the_convention_is_an_option_of_loading(folder: Path) -> None:
    usual = load(folder)
    assert (usual.template.convention, usual.info.positions) == ("published", "published")
    options = LoadOptions(model=str(folder), device="cpu", dtype="float32", positions="trained")
    trained = load_adapter(options)
    media = Media((5, 4, 8), 0.2, 60)
    wanted = template(usual.text, usual._thinker.config, "tiny", "trained").clip(media, 9)
    assert torch.equal(trained.template.clip(media, 9).positions, wanted.positions)
    assert trained.info.positions == "trained"
    with pytest.raises(UsageError, match="no positions 'true'"):
        load_adapter(LoadOptions(model=str(folder), device="cpu", positions="true"))
    with pytest.raises(UsageError, match=r"Qwen2\.5-Omni has no positions 'trained'"):
        load_adapter(LoadOptions(model="demo", device="cpu", positions="trained"))


def test_a_file_is_sampled_and_heard_as_published(folder: Path, tmp_path: Path) -> None:
    """4 s at ten frames a second, and two pieces of 3 s, the second padded with silence."""
    path = media.write(tmp_path / "clip.mp4", seconds=4, size=(64, 48), sounds=[{"hertz": 440}])
    model = Model(load(folder))
    with model.open(path) as session:
        answer = session.ask(QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=2))
    trace = answer.trace
    assert trace.clip["frames"] == 40
    assert trace.clip["grid"][0] == 20
    assert trace.clip["second_per_grid"] == pytest.approx(0.2)
    assert trace.clip["sampling"]["fps"] == 10
    assert trace.audio_tokens == 60
    assert trace.model["positions"] == "published"
    with model.open(path, fps=2) as session:
        fewer = session.ask(QUESTION, method=Method(), options=GenerateOptions(max_new_tokens=2))
    assert fewer.trace.clip["frames"] == 16


def test_contextguard_runs_with_a_predictor_trained_for_the_model(
    folder: Path, tmp_path: Path
) -> None:
    model = Model(load(folder))
    clips = [pairs_of(model.features(make_features(model=model, seed=seed))) for seed in range(3)]
    assert [len(pairs) for pairs in clips] == [2, 2, 2]
    a2v.KIND.save(tmp_path, train(clips, model.adapter, TrainOptions(hidden=8, steps=3)))
    method = get_method("contextguard", budget=0.5, predictor=str(tmp_path))
    with model.features(make_features(model=model)) as session:
        trace = session.ask(
            QUESTION, method=method, options=GenerateOptions(max_new_tokens=2)
        ).trace
    assert trace.realised_budget == pytest.approx(0.5, abs=0.01)

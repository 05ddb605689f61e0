"""Run the exported demo model on media files: decode, encode, and ask many questions at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from avsynth.questions import Question
from avsynth.world import Clip
from tokenizers import Tokenizer
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnidrop.clip.clip import open_clip
from omnidrop.clip.specs import MediaSpec, VideoSpec

from .batches import PROBES, Sample
from .layout import audio_tokens, av_layout
from .shape import parts
from .towers import hear, see
from .trunk import Trunk

SPEC = VideoSpec(min_pixels=3136, max_pixels=50176)


def load_demo(folder: Path) -> tuple[torch.nn.Module, Trunk, Tokenizer]:
    """Load the exported model in float32 through transformers, with its packed forward pass."""
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return model, Trunk(parts(model).text, model.lm_head).eval(), tok


def decode(path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the sampled frames (T, H, W, 3) and 16 kHz audio of a file, as the model gets them."""
    frames = audio = None
    with open_clip(path, spec=MediaSpec(video=SPEC)) as clip:
        if clip.has_video:
            parts = [np.asarray(c.frames) for c in clip.frame_chunks()]
            frames = np.concatenate(parts).transpose(0, 2, 3, 1).copy()
        if clip.has_audio:
            audio = np.concatenate(list(clip.audio_blocks()))
    return frames, audio


def media_sample(
    model: torch.nn.Module,
    frames: np.ndarray | None,
    audio: np.ndarray | None,
) -> Sample:
    """Return a sample for `measure.answer_all`, made of frames and audio, without labels."""
    width = model.lm_head.in_features
    a = v = np.zeros((0, width), np.float32)
    n_audio = grids = 0
    rows = cols = 1
    towers = parts(model)
    with torch.no_grad():
        if audio is not None:
            n_audio = audio_tokens(len(audio))
            a = hear(towers.audio, audio).numpy()
        if frames is not None:
            rows, cols = frames.shape[1] // 28, frames.shape[2] // 28
            v = see(towers.vision, frames).numpy()
            grids = len(v) // (rows * cols)
    lay = av_layout(n_audio, grids, rows, cols)
    vectors = np.empty((len(lay.index), width), np.float32)
    vectors[lay.is_audio] = a[lay.index[lay.is_audio]]
    vectors[~lay.is_audio] = v[lay.index[~lay.is_audio]]
    blank = np.full(len(lay.index), -1)
    shell = Clip(
        0,
        0.0,
        cols * 28,
        rows * 28,
        None if audio is None else (),
        None if frames is None else (),
        None,
        None,
        "plain",
        (0, 0, 0),
        0.0,
        False,
    )
    return Sample(shell, lay, vectors, dict.fromkeys(PROBES, blank), blank)


def as_question(line: dict) -> Question:
    """Return a line of test.jsonl as a question."""
    return Question(
        line["question"],
        line["answer"],
        tuple(line["choices"]),
        line["category"],
        line["family"],
        line["sparse"],
        line["wording"] == "seen",
    )


def generate_one(
    model: torch.nn.Module,
    tok: Tokenizer,
    frames: np.ndarray | None,
    audio: np.ndarray | None,
    question: str,
) -> str:
    """Ask one question through transformers' own `generate`."""
    from omnidrop.clip.log_mel import log_mel
    from omnidrop.clip.patches import patches

    given: dict = {}
    body = ""
    if audio is not None:
        mel = log_mel(audio)
        given |= {
            "input_features": mel[None],
            "feature_attention_mask": torch.ones(1, mel.shape[1], dtype=torch.long),
        }
    if frames is not None:
        p, grid = patches(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), SPEC)
        given |= {
            "pixel_values_videos": p,
            "video_grid_thw": torch.tensor([grid]),
            "video_second_per_grid": torch.tensor([1.0]),
        }
    if frames is not None:
        n_audio = audio_tokens(len(audio)) if audio is not None else 0
        lay = av_layout(n_audio, grid[0], grid[1] // 2, grid[2] // 2)
        marks = "".join("<|AUDIO|>" if x else "<|VIDEO|>" for x in lay.is_audio)
        body = (
            f"<|vision_bos|><|audio_bos|>{marks}<|audio_eos|><|vision_eos|>"
            if audio is not None
            else f"<|vision_bos|>{marks}<|vision_eos|>"
        )
    elif audio is not None:
        body = "<|audio_bos|>" + "<|AUDIO|>" * audio_tokens(len(audio)) + "<|audio_eos|>"
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"{body}{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = torch.tensor([tok.encode(text, add_special_tokens=False).ids], device=model.device)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            use_audio_in_video=frames is not None and audio is not None,
            max_new_tokens=6,
            **{k: v.to(model.device) for k, v in given.items()},
        )
    return tok.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True).strip()

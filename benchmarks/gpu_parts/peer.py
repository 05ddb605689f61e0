"""Runs transformers' `generate` on the same features and the same prompt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.engine.timing import synchronize
from omnidrop.prompt import build_prompt
from omnidrop.tokens import Media


@dataclass(frozen=True)
class Generation:
    """Result of `generate`.

    Attributes
    ----------
    ids : list of int
        New tokens.
    ticks : list of float
        Seconds from the call to each of them.
    logits : Tensor or None, (n, V) float32
        Logits that each token was selected from, if requested.
    """

    ids: list[int]
    ticks: list[float]
    logits: torch.Tensor | None = None


class Ticks:
    """A streamer that records when tokens arrive; transformers copies each to the host for it."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Receive the prompt, then tokens."""
        if not self._prompt:
            self.at.append(time.perf_counter())
        self._prompt = False

    def end(self) -> None:
        """Do nothing."""


def prompt_ids(model: Model, features: Features, question: str) -> torch.Tensor:
    """Return the ids of OmniDrop's prompt for the features, (n,) int64."""
    tokens = (
        0 if features.mel is None else model.adapter.template.audio_tokens(features.mel.shape[1])
    )
    media = Media(features.grid, features.second_per_grid, tokens)
    adapter = model.adapter
    return build_prompt(adapter.text, adapter.template, question, media).ids


def generate(
    thinker: Any,
    ids: torch.Tensor,
    features: Features,
    new: int,
    *,
    forced: list[int] | None = None,
    logits: bool = False,
    **settings: Any,
) -> Generation:
    """Answer greedily from features in the host's memory.

    Parameters
    ----------
    thinker : Module
        A `Qwen2_5OmniThinkerForConditionalGeneration`.
    ids : Tensor, (n,) int64
        The prompt.
    features : Features
    new : int
        Tokens to generate.
    forced : list of int, optional
        Tokens to generate instead of the most probable.
    logits : bool
        Return the logits.
    **settings
        Arguments of `generate`, such as cache_implementation.
    """
    device, dtype = thinker.device, thinker.dtype
    ticks = Ticks()
    if forced is not None:
        settings["prefix_allowed_tokens_fn"] = lambda _, said: [forced[len(said) - len(ids)]]
    synchronize(device)
    start = time.perf_counter()
    given: dict[str, Any] = {"input_ids": ids[None].to(device)}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if features.mel is not None:
        mel = features.mel[None].to(device, dtype)
        given["input_features"] = mel
        given["feature_attention_mask"] = torch.ones(
            1, mel.shape[2], dtype=torch.long, device=device
        )
    if features.patches is not None:
        given["pixel_values_videos"] = features.patches.to(device, dtype)
        given["video_grid_thw"] = torch.tensor([features.grid], device=device)
        given["video_second_per_grid"] = torch.tensor([features.second_per_grid], device=device)
        given["use_audio_in_video"] = features.mel is not None
    with torch.inference_mode():
        out = thinker.generate(
            **given,
            max_new_tokens=new,
            do_sample=False,
            streamer=ticks,
            return_dict_in_generate=True,
            output_logits=logits,
            pad_token_id=thinker.config.pad_token_id,
            **settings,
        )
    synchronize(device)
    kept = torch.cat(out.logits).float() if logits else None
    return Generation(
        ids=out.sequences[0, len(ids) :].tolist(),
        ticks=[at - start for at in ticks.at],
        logits=kept,
    )

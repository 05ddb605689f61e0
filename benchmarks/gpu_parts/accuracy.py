"""Accuracy on a device at a published shape: the checks of `agreement` as rows."""

from __future__ import annotations

import copy

import torch

import omnidrop
from benchmarks.gpu_parts import agreement
from benchmarks.gpu_parts.bench import Bench, free
from benchmarks.gpu_parts.shapes import Shape, build, make_features, model_of, twin

#: Tokens of the float32 answers.
TOKENS = 48

#: Positions at which logits are compared, for each clip.
POSITIONS = 16

#: Allowed difference of float32 scores between two devices, relative to the largest score.
ROUNDING = 1e-3


def accuracy(bench: Bench, name: str, shape: Shape, tokens: int) -> None:
    """Tokens in float32, logits in 16 bits, choices against the CPU (tiny shape only).

    Parameters
    ----------
    bench : Bench
    name : str
    shape : Shape
    tokens : int
        AV tokens, about.
    """
    device = bench.device
    about = {"shape": name, "tokens": tokens}
    if not bench.allows("accuracy", f"float32, {name}", 30.0 if device.type == "cuda" else 0.0):
        return
    thinker = build(shape, device)
    whole = copy.deepcopy(thinker).float()
    other = twin(whole)
    model = model_of(whole, name)
    clips = [make_features(shape, count, device) for count in (tokens, tokens // 2)]
    equal, made = agreement.tokens_equal(model, other, clips[0], TOKENS)
    bench.row("accuracy", "float32 tokens", **about, equal=equal, made=made, right=equal == made)
    cases = [(clip, agreement.Reference.of(model, other, clip, POSITIONS)) for clip in clips]
    del whole, other, model
    free(device)
    for dtype in (torch.bfloat16, torch.float16):
        word = str(dtype).removeprefix("torch.")
        if not bench.allows("accuracy", f"{word} logits, {name}", 3.0):
            continue
        ours = copy.deepcopy(thinker).to(dtype)
        theirs = twin(ours)
        apart = agreement.distances(model_of(ours, name), theirs, cases)
        bench.row(
            "accuracy", f"{word} logits", **about,
            ours=apart.ours, theirs=apart.theirs, ratio=apart.ratio,
            right=apart.ratio <= agreement.ALLOWED,
        )  # fmt: skip
        del ours, theirs
        free(device)
    del thinker
    free(device)


def choices(bench: Bench, shape: Shape, tokens: int) -> None:
    """Compare the tokens that a small model keeps on this device and on the CPU."""
    if not bench.allows("accuracy", "choices", 5.0 if bench.device.type == "cuda" else 0.0):
        return
    host = build(shape, torch.device("cpu"), torch.float32)
    there = copy.deepcopy(host).to(bench.device)
    first, second = model_of(host, "tiny"), model_of(there, "tiny")
    features = make_features(shape, tokens, torch.device("cpu"))
    for name, method in CHOSEN.items():
        found = agreement.compare_choices(first, second, features, method)
        bench.row(
            "accuracy", f"choices, {name}", tokens=tokens, asked=len(found),
            swapped=sum(one.swapped for one in found),
            apart=max((one.scores for one in found), default=0.0),
            right=all(one.tie(ROUNDING) for one in found),
        )  # fmt: skip


CHOSEN: dict[str, omnidrop.Method] = {
    "omnidrop 30%": omnidrop.OmniDrop(budget=0.3),
    "omnidrop 20%, no diversity": omnidrop.get_method("uniform+omnidrop", budget=0.2, diversity=0),
    "fastv 30%": omnidrop.FastV(budget=0.3),
    "uniform 30%": omnidrop.Uniform(budget=0.3),
}

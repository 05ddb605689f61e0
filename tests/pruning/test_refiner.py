"""The refiner of EchoingPixels against a plain reading of what is published of it."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import pytest
import torch
from refiners import made_up, write_refiner
from torch.profiler import ProfilerActivity, profile

from omnidrop.errors import ModelError
from omnidrop.pruning.parts import refiner
from omnidrop.pruning.parts.refiner import Refiner, Shape, passed, straight_through
from omnidrop.pruning.parts.trained import Network
from omnidrop.shapes import TextShape


def norm(row, weight, eps=1e-6):
    size = math.sqrt(sum(v * v for v in row) / len(row) + eps)
    return [v / size * w for v, w in zip(row, weight, strict=True)]


def linear(row, weight, bias=None):
    out = [sum(a * b for a, b in zip(row, line, strict=True)) for line in weight]
    return out if bias is None else [a + b for a, b in zip(out, bias, strict=True)]


def silu(v):
    return v / (1 + math.exp(-v))


def turn(head, place, axes, theta=1e6):
    """Turn pair i (channels i and i + half) by the position of its axis."""
    half, out = len(head) // 2, list(head)
    for i in range(half):
        angle = place[axes[i]] * theta ** (-2 * i / len(head))
        c, s = math.cos(angle), math.sin(angle)
        out[i] = head[i] * c - head[i + half] * s
        out[i + half] = head[i + half] * c + head[i] * s
    return out


def by_loops(state, rows, places, seen, *, layers=2, heads=2, dim=8, axes=(0, 1, 2, 0)):
    """Two layers of two heads that share one key, row by row."""
    rows = [list(row) for row in rows]
    for n in range(layers):
        own = {
            key.removeprefix(f"layers.{n}."): v for key, v in state.items() if f"layers.{n}." in key
        }
        normed = [norm(row, own["input_layernorm.weight"]) for row in rows]
        q, k, v = (
            [linear(r, own[f"self_attn.{x}_proj.weight"], own[f"self_attn.{x}_proj.bias"])
             for r in normed]
            for x in "qkv"
        )  # fmt: skip
        k = [turn(key, place, axes) for key, place in zip(k, places, strict=True)]
        after = []
        for i, row in enumerate(rows):
            found = []
            for h in range(heads):
                query = turn(q[i][h * dim : (h + 1) * dim], places[i], axes)
                scores = [
                    sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(dim)
                    for key in k
                ]
                weights = [
                    math.exp(s - max(scores)) if seen[j] else 0 for j, s in enumerate(scores)
                ]
                total = sum(weights)
                found += [
                    sum(w * value[d] for w, value in zip(weights, v, strict=True)) / total
                    for d in range(dim)
                ]
            out = linear(found, own["self_attn.o_proj.weight"])
            row = [a + b for a, b in zip(row, out, strict=True)]
            wide = norm(row, own["post_attention_layernorm.weight"])
            gate = linear(wide, own["mlp.gate_proj.weight"])
            up = linear(wide, own["mlp.up_proj.weight"])
            inner = [silu(a) * b for a, b in zip(gate, up, strict=True)]
            down = linear(inner, own["mlp.down_proj.weight"])
            after.append([a + b for a, b in zip(row, down, strict=True)])
        rows = after
    return rows


def prompt(rows=9, width=8):
    draw = torch.Generator().manual_seed(1)
    embeds = torch.randn(rows, width, generator=draw)
    return embeds, torch.randint(0, 40, (3, rows), generator=draw)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("hidden", [(), (3, 8)])
def test_the_network_is_what_is_published(training, hidden):
    made = made_up().train(training)
    embeds, positions = prompt()
    seen = torch.tensor([i not in hidden for i in range(len(embeds))])
    with torch.no_grad():
        found = made(embeds[None], positions[:, None], seen[None] if hidden else None)[0]
    state = {name: w.double().tolist() for name, w in made.state_dict().items()}
    wanted = by_loops(state, embeds.double().tolist(), positions.T.tolist(), seen.tolist())
    torch.testing.assert_close(found.double(), torch.tensor(wanted).double(), atol=1e-4, rtol=1e-4)

    scores = [
        linear(
            [silu(v) for v in linear(norm(row, state["score_norm.weight"]),
                                     state["score_head.0.weight"], state["score_head.0.bias"])],
            state["score_head.2.weight"], state["score_head.2.bias"],
        )[0]
        for row in wanted
    ]  # fmt: skip
    with torch.no_grad():
        told = made.score(found)
    torch.testing.assert_close(told, torch.tensor(scores), atol=1e-3, rtol=1e-3)


def test_rows_look_both_ways_but_not_at_what_is_hidden():
    made = made_up()
    embeds, positions = prompt()
    seen = torch.ones(1, len(embeds), dtype=torch.bool)
    seen[0, 6] = False
    changed = embeds.clone()
    changed[6] += 3

    def refined(rows, mask):
        with torch.no_grad():
            return made(rows[None], positions[:, None], mask)[0]

    others = [i for i in range(len(embeds)) if i != 6]
    assert torch.equal(refined(embeds, seen)[others], refined(changed, seen)[others])
    moved = (refined(embeds, None) - refined(changed, None)).abs().amax(1)
    assert bool((moved > 1e-4).all()), "earlier rows see later ones"


def test_it_begins_as_the_decoders_first_layers(model):
    """Of a tiny model: with a causal mask its layers would do the same; weights are equal."""
    layers = model.adapter._layers
    attention, text = layers[0].self_attn, model.info.text
    shape = Shape(text.hidden, text.intermediate, text.heads, text.kv_heads, text.head_dim,
                  (2, 2, 2, text.head_dim // 2 - 6), layers=4)  # fmt: skip
    made = refiner.Refiner(shape)
    made.copy_layers(layers)
    for own, other in zip(made.layers, layers, strict=False):
        state = other.state_dict()
        assert own.state_dict().keys() == state.keys()
        assert all(torch.equal(w, state[name]) for name, w in own.state_dict().items())
    assert attention.q_proj.bias is not None


def test_gradients_pass_the_choice_straight_through():
    scores = torch.tensor([0.3, -1.0, 2.0, 0.5], requires_grad=True)
    states = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    pull = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
    keep = torch.tensor([0, 2])
    soft = passed(scores)
    out = straight_through(states, soft[keep])
    assert torch.equal(out, states)
    (out * pull).sum().backward()
    p = scores.detach().softmax(0)
    gains = torch.zeros(4)
    gains[keep] = (states.detach() * pull).sum(1)
    wanted = p * (gains - (p * gains).sum())  # through the softmax; what is dropped gains nothing
    torch.testing.assert_close(scores.grad, wanted)
    torch.testing.assert_close(states.grad, pull)


def test_temperature_and_noise_change_the_soft_choice():
    scores = torch.tensor([0.0, 1.0, 3.0])
    assert torch.allclose(passed(scores, heat=2.0), (scores / 2).softmax(0))
    draw = torch.Generator().manual_seed(3)
    chosen = torch.zeros(3)
    for _ in range(2000):
        soft = passed(scores, generator=draw)
        assert float(soft.sum()) == pytest.approx(1)
        chosen[int(soft.argmax())] += 1
    # The highest of scores with Gumbel noise is drawn with the probability of the softmax.
    assert torch.allclose(chosen / 2000, scores.softmax(0), atol=0.03)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"kv_heads": 3}, "cannot share"),
        ({"sections": (1, 1, 1)}, "half of a head"),
        ({"layers": 0}, "above 0"),
        ({"inner": 2.5}, "whole numbers"),
    ],
)
def test_senseless_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        made_up(**sizes)


def test_a_refiner_is_read_as_it_was_written(tmp_path):
    made = made_up(sections=(2, 1, 1), theta=1e4)
    known = Network(made, asdict(made.shape), "some/model", "abc", {"decoder": "trained"})
    refiner.KIND.save(tmp_path, known)
    before = torch.get_rng_state()
    found = refiner.KIND.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before), "reading draws nothing"
    assert found.module.shape == made.shape
    assert (found.backbone, found.fingerprint, found.training) == (
        "some/model",
        "abc",
        {"decoder": "trained"},
    )
    for name, weight in made.state_dict().items():
        assert torch.equal(found.module.state_dict()[name], weight.bfloat16().float()), name


@pytest.mark.parametrize("damage", ["no json", "cut", "sizes", "a list", "missing tensor"])
def test_a_damaged_refiner_is_refused(tmp_path, damage):
    write_refiner(tmp_path)
    settings, weights = tmp_path / "refiner.json", tmp_path / "refiner.safetensors"
    known = json.loads(settings.read_text())
    if damage == "no json":
        settings.write_text("{")
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "sizes":
        known["shape"]["sections"] = [1, 1, "two", 1]
        settings.write_text(json.dumps(known))
    elif damage == "a list":
        settings.write_text(json.dumps(known | {"shape": [8, 12]}))
    else:
        from safetensors.torch import load_file, save_file

        state = load_file(weights)
        del state["score_head.2.bias"]
        save_file(state, weights)
    with pytest.raises(ModelError, match="refiner is damaged"):
        refiner.KIND.load(tmp_path)


@pytest.mark.parametrize(
    ("width", "inner", "heads", "keys"),
    [(64, 96, 1, 1), (64, 512, 1, 1), (256, 300, 4, 4), (256, 300, 4, 2), (256, 800, 4, 1)],
)
def test_its_memory_is_what_estimates_count(width: int, inner: int, heads: int, keys: int) -> None:
    """Every byte that is held beside the weights, by the profiler's record of allocations."""
    rows, layers = 700, 2
    shape = TextShape(layers, width, inner, heads, keys, 64, vocab=10)
    made = Refiner(Shape(width, inner, heads, keys, 64, (9, 9, 9, 5), layers=layers)).eval()
    weights = sum(p.nbytes for p in made.parameters())
    assert shape.two_way_weight_bytes(layers) == pytest.approx(weights, rel=0.02)
    embeds, positions = torch.randn(1, rows, width), torch.arange(rows).expand(3, 1, rows)
    with torch.inference_mode():
        made(embeds, positions)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            made(embeds, positions)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    peak = max(itertools.accumulate(event.nbytes() for event in events))
    assert shape.two_way_peak_bytes(rows, layers) == pytest.approx(peak, rel=0.05)

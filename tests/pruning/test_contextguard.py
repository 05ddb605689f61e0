"""ContextGuard against a slow reading in plain loops; its predictor, found, refused and trained."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from predictors import predictor_folder, write_predictor

from omnidrop.errors import ModelError, UsageError
from omnidrop.pruning.method import Backbone
from omnidrop.pruning.methods.contextguard import ContextGuard, valleys
from omnidrop.pruning.parts import a2v
from omnidrop.testing.simulate import clip, entry_view
from omnidrop.tokens import Kind

# The slow reading ---------------------------------------------------------------------------------


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def told_pictures(tokens, embeds, folder):
    """Each chunk with sound → the picture that the predictor tells."""
    predictor = a2v.KIND.load(folder).module
    found = {}
    for c in sorted(set(tokens.chunk.tolist())):
        rows = [i for i in range(len(tokens)) if tokens.chunk[i] == c and tokens.audio[i]]
        if rows:
            sound = embeds[rows][None]
            found[c] = predictor(sound, torch.ones(1, len(rows), dtype=torch.bool))[0]
    return found


def frames_of(tokens):
    found = {}
    for i, kind in enumerate(tokens.kind.tolist()):
        if kind == Kind.VIDEO:
            found.setdefault(int(tokens.grid[i, 0]), []).append(i)
    return [found[t] for t in sorted(found)]


def cuts_by_loops(similar, cut):
    """Depth scores: the climb to the nearest peak on each side of a valley."""
    depths = []
    for i, here in enumerate(similar):
        left = i
        while left > 0 and similar[left - 1] >= similar[left]:
            left -= 1
        right = i
        while right < len(similar) - 1 and similar[right + 1] >= similar[right]:
            right += 1
        depths.append((similar[left] - here) + (similar[right] - here))
    mean = sum(depths) / len(depths)
    deviation = math.sqrt(sum((d - mean) ** 2 for d in depths) / len(depths))
    return [
        i
        for i, depth in enumerate(depths)
        if depth > max(0, mean + cut * deviation)
        and (i == 0 or similar[i] <= similar[i - 1])
        and (i == len(depths) - 1 or similar[i] <= similar[i + 1])
    ]


def farthest(points, weights, count):
    def apart(i, j):
        return max(1 - cosine(points[i], points[j]), 0) * weights[j]

    others = range(len(points))
    chosen = []
    while len(chosen) < count:
        left = [j for j in others if j not in chosen]
        against = chosen or None
        near = {j: min((apart(i, j) for i in against or others if i != j), default=9) for j in left}
        chosen.append(max(left, key=lambda j, near=near: (near[j], -j)))
    return chosen


def split(sizes, count):
    """Cumulative rounding, half up."""
    edges, total, before = [], sum(sizes), 0
    for size in sizes:
        before += size
        edges.append((2 * before * count + total) // (2 * total))
    return [b - a for a, b in zip([0, *edges[:-1]], edges, strict=True)]


def video_by_loops(view, folder, count, detail, merge, alike, cut):
    """Return the kept video tokens and, for each, those merged into it."""
    embeds, tokens = view.embeds, view.tokens
    frames = frames_of(tokens)
    total = sum(map(len, frames))
    similar = [
        sum(cosine(embeds[i], embeds[j]) for i, j in zip(a, b, strict=True)) / len(a)
        for a, b in pairwise(frames)
    ]
    ends = cuts_by_loops(similar, cut)
    twins, first = {}, 0
    for f, frame in enumerate(frames):
        if f and f - 1 in ends:
            first = f
        if f != first:
            twins |= dict(zip(frame, frames[first], strict=True))
    like = {i: cosine(embeds[i], embeds[j]) for i, j in twins.items()}
    able = sorted((i for i in like if like[i] >= alike), key=lambda i: (-like[i], i))
    merged = able[: math.floor(merge * (total - count))]

    left = [[i for i in frame if i not in merged] for frame in frames]
    told = told_pictures(tokens, embeds, folder) if bool(tokens.audio.any()) else {}
    groups = [
        [i for f in left for i in f if int(tokens.chunk[i]) in told],
        [i for f in left for i in f if int(tokens.chunk[i]) not in told],
    ]
    quotas = split([len(g) for g in groups], count)
    kept = []
    for group, many in zip(groups, (round(detail * quotas[0]), quotas[1]), strict=True):
        windows = [[i for i in frame if i in group] for frame in left]
        windows = [w for w in windows if w]
        if not many:
            continue
        for window, n in zip(windows, split([len(w) for w in windows], many), strict=True):
            frame = next(f for f in frames if window[0] in f)
            mean = embeds[frame].mean(0)
            weights = [1 - cosine(embeds[i], mean) for i in window]
            kept += [window[j] for j in farthest(embeds[window], weights, n)]
    rest = [i for i in groups[0] if i not in kept]
    rest.sort(key=lambda i: (cosine(embeds[i], told[int(tokens.chunk[i])]), i))
    kept = sorted(kept + rest[: count - len(kept)])
    return {i: [j for j in merged if twins[j] == i] for i in kept}


def moving(tokens, seed):
    """A view of a clip whose pictures change little inside a scene."""
    view = entry_view(tokens, seed)
    draw = torch.Generator().manual_seed(seed)
    scene = None
    for f, frame in enumerate(frames_of(tokens)):
        if scene is None or f % 3 == 0:
            scene = torch.randn(len(frame), 8, generator=draw)
        view.embeds[frame] = scene + 0.2 * torch.randn(len(frame), 8, generator=draw)
    return view


# Against it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("budget", "detail", "merge", "alike", "cut"),
    [
        (0.3, 0.5, 0.5, 0.9, -0.5),
        (0.6, 0.0, 1.0, 0.5, 0.5),
        (0.15, 1.0, 0.0, 0.9, -0.5),
        (0.45, 0.3, 0.8, 0.95, 3.0),
    ],
)
@pytest.mark.parametrize("kind", ["both", "picture only", "small", "half silent"])
def test_survivors_are_the_slow_readings(seed, budget, detail, merge, alike, cut, kind):
    tokens = clip(audio=0) if kind == "picture only" else clip()
    if kind == "small":
        tokens = clip(chunks=3, height=2, width=2, audio=5)
    if kind == "half silent":
        tokens = tokens.select(~(tokens.audio & (tokens.chunk % 2 == 1)))
    view = moving(tokens, seed)
    folder = predictor_folder()
    method = ContextGuard(
        budget=budget, predictor=folder, detail=detail, merge=merge, alike=alike, cut=cut
    )
    entry = method.enter(view, method.plan(tokens, 8))
    kept = [i for i in entry.keep.tolist() if tokens.video[i]]
    slow = video_by_loops(view, Path(folder), len(kept), detail, merge, alike, cut)
    assert kept == list(slow)
    for place, i in enumerate(entry.keep.tolist()):
        own = view.embeds[[i, *slow.get(i, [])]].mean(0)
        got = entry.take(view.embeds)[place]
        assert torch.allclose(got, own, atol=1e-5)


def test_audio_is_kept_by_encoder_attention_and_more_of_it():
    tokens = clip(chunks=6, height=4, width=4, audio=20)
    view = entry_view(tokens)
    method = ContextGuard(budget=0.25, predictor=predictor_folder())
    kept = method.enter(view, method.plan(tokens, 8)).keep
    audio = tokens.audio.nonzero().flatten()
    heard = kept[tokens.audio[kept]]
    best = torch.sort(view.audio_attention, descending=True).indices[: len(heard)].sort().values
    assert torch.equal(heard, audio[best])
    share = (len(heard) / len(audio)) / ((len(kept) - len(heard)) / int(tokens.video.sum()))
    assert share == pytest.approx(2.75, rel=0.03)


def test_what_the_sound_explains_goes():
    """A picture that is exactly what the predictor tells is dropped before any other."""
    tokens = clip(chunks=1, grids=1, height=4, width=4, audio=6)
    view = entry_view(tokens)
    folder = predictor_folder()
    number, pictures = a2v.predict(a2v.find(folder, None, 8), tokens, view.embeds)
    assert number.tolist() == [0]
    view.embeds[:5] = pictures[0]
    method = ContextGuard(budget=0.8, predictor=folder, detail=0, merge=0)
    kept = method.enter(view, method.plan(tokens, 8)).keep
    assert int((kept < 5).sum()) == max(int((kept < 16).sum()) - 11, 0)


def test_valleys_part_scenes():
    still, change = 0.98, 0.3
    assert valleys([still, still, change, still, still, 0.4, still], -0.5) == [2, 5]
    assert valleys([still] * 6, -0.5) == []
    assert valleys([], -0.5) == []
    assert valleys([still, change], -0.5) == [1]


def test_without_sound_or_without_picture_no_predictor_is_needed():
    for shape in ({"audio": 0}, {"grids": 0}):
        tokens = clip(**shape)
        method = ContextGuard(budget=0.3)
        entry = method.enter(entry_view(tokens), method.plan(tokens, 8))
        assert len(entry.keep) == method.plan(tokens, 8).counts[0]


# The predictor ------------------------------------------------------------------------------------


def enter_with(backbone=None, **fields):
    tokens = clip()
    view = entry_view(tokens)
    object.__setattr__(view, "backbone", backbone)
    method = ContextGuard(budget=0.3, **fields)
    return method.enter(view, method.plan(tokens, 8)).keep


def test_no_predictor_is_an_error_that_says_how_to_train_one(tmp_path):
    for backbone in (None, Backbone("some/model", "abc", tmp_path)):
        with pytest.raises(ModelError, match=r"omnidrop train-a2v .*--set predictor=") as caught:
            enter_with(backbone)
        assert caught.value.exit_code == 4
    with pytest.raises(ModelError, match="no audio-to-visual predictor here"):
        enter_with(predictor=str(tmp_path))


def test_the_models_own_predictor_is_found(tmp_path):
    write_predictor(tmp_path / "a2v", fingerprint="abc", backbone="some/model")
    given = enter_with(predictor=str(tmp_path / "a2v"))
    found = enter_with(Backbone("copy/of-it", "abc", tmp_path))
    assert torch.equal(given, found)


def test_another_models_predictor_is_refused(tmp_path):
    write_predictor(tmp_path, fingerprint="abc", backbone="some/model")
    with pytest.raises(ModelError, match="trained for some/model, not for other/model"):
        enter_with(Backbone("other/model", "xyz"), predictor=str(tmp_path))
    with pytest.raises(ModelError, match="not for this model"):
        enter_with(predictor=predictor_folder(16))


@pytest.mark.parametrize("damage", ["no json", "cut", "other schema", "missing tensor"])
def test_a_damaged_predictor_is_refused(tmp_path, damage):
    write_predictor(tmp_path)
    settings, weights = tmp_path / a2v.KIND.settings, tmp_path / a2v.KIND.weights
    if damage == "no json":
        settings.write_text("{")
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "other schema":
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"schema": "x/9"}))
    else:
        from safetensors.torch import load_file, save_file

        state = load_file(weights)
        del state["widen.bias"]
        save_file(state, weights)
    with pytest.raises(ModelError, match="is damaged"):
        a2v.KIND.load(tmp_path)


def test_padding_does_not_change_a_prediction():
    predictor = a2v.KIND.load(Path(predictor_folder())).module
    audio = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    longer = torch.cat([audio, torch.full((1, 3, 8), 7.0)], dim=1)
    there = torch.arange(8)[None] < 5
    assert torch.allclose(predictor(longer, there), predictor(audio, there[:, :5]), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"predictor": ""}, "name a folder"),
        ({"predictor": 3}, "name a folder"),
        ({"audio": 0}, "audio cannot"),
        ({"detail": 1.2}, "0 to 1"),
        ({"merge": -0.1}, "0 to 1"),
        ({"alike": 2}, "-1 to 1"),
        ({"cut": math.inf}, "must be a number"),
    ],
)
def test_senseless_settings_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        ContextGuard(budget=0.3, **fields)

"""Plain loops that the tests of the audio-guided methods read their papers with."""

from __future__ import annotations

import math

from omnidrop.tokens import Kind


def dot(a, b):
    """Sum of products."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a, b):
    """Cosine of two lists of numbers."""
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def of_kind(tokens, kind):
    """Indices of the tokens of a kind."""
    return [i for i in range(len(tokens)) if int(tokens.kind[i]) == kind]


def frames_of(tokens):
    """Token indices of each temporal grid, in order of time."""
    found = {}
    for i in of_kind(tokens, Kind.VIDEO):
        found.setdefault((int(tokens.chunk[i]), int(tokens.grid[i, 0])), []).append(i)
    return [found[key] for key in sorted(found)]


def best(scores, count):
    """Positions of the highest scores; ties keep the earlier."""
    return sorted(range(len(scores)), key=lambda n: -scores[n])[:count]


def quota_on_path(audio, video, count, path):
    """Audio tokens where a line through points of shares meets the count, by bisection."""

    def point(s):
        n = min(int(s), len(path) - 2)
        return [a + (s - n) * (b - a) for a, b in zip(path[n], path[n + 1], strict=True)]

    low, high = 0.0, len(path) - 1.0
    for _ in range(80):
        middle = (low + high) / 2
        a, v = point(middle)
        low, high = (middle, high) if a * audio + v * video < count else (low, middle)
    return round(point(high)[0] * audio)


def merged_audio(embeds, audio, video, stays, count, group):
    """Anchors among the audio that goes, and what each carries."""
    left = [i for i in audio if i not in stays]
    step = max(1, len(left) // max(count, 1))
    anchors = [left[n * step] for n in range(count)]
    members = {a: [] for a in anchors}
    for i in left:
        if i in anchors or not anchors:
            continue
        mine = max(anchors, key=lambda a: cosine(embeds[i], embeds[a]))
        seen = max(
            (cosine(embeds[i], embeds[v]) for v in video), default=cosine(embeds[i], embeds[mine])
        )
        members[mine].append((seen, i))
    carried = {}
    for a in anchors:
        chosen = sorted(members[a], reverse=True)[:group]
        if not chosen:
            carried[a] = embeds[a]
            continue
        weights = [math.exp(score) for score, _ in chosen]
        mean = [
            sum(w * embeds[i][d] for w, (_, i) in zip(weights, chosen, strict=True)) / sum(weights)
            for d in range(len(embeds[a]))
        ]
        carried[a] = [(x + y) / 2 for x, y in zip(embeds[a], mean, strict=True)]
    return carried


def whole_numbers(shares, sizes, count):
    """Tokens per frame: one factor on what stays, or on what goes, then cumulative rounding."""
    wanted = [s * n for s, n in zip(shares, sizes, strict=True)]
    total, size = sum(wanted), sum(sizes)
    if count <= total:
        wanted = [w * count / total for w in wanted]
    else:
        factor = (size - count) / (size - total)
        wanted = [n - (n - w) * factor for w, n in zip(wanted, sizes, strict=True)]
    quotas, passed, before = [], 0.0, 0
    for w in wanted:
        passed += w
        upto = math.floor(passed + 0.5 + 1e-9)
        quotas.append(upto - before)
        before = upto
    return quotas


def paired_frames(embeds, frames, windows, quotas, spatial):
    """What stays of frames in pairs, counted inside each window."""
    kept = []
    for f, rows in enumerate(frames):
        offset = windows[:f].count(windows[f])
        if offset % 2 == 0:
            scores = spatial([embeds[i] for i in rows])
        else:
            scores = [
                -cosine(embeds[a], embeds[b]) for a, b in zip(rows, frames[f - 1], strict=True)
            ]
        kept += [rows[n] for n in best(scores, quotas[f])]
    return kept

"""The AVSynth question set: its clips and questions, and how to build and check them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .evidence import spans
from .media import fingerprint
from .questions import Fact, facts_of, word
from .wide import WideOptions, draw_wide
from .wide_questions import wide_facts
from .world import TEST_SEEDS, Clip, WorldOptions, draw_clip

FOLDER = Path(__file__).parent
OPTIONS = WorldOptions(test=True)
WIDE_OPTIONS = WideOptions(test=True)
CLIPS, PER_CLIP = 100, 6


def test_seeds() -> list[int]:
    """Return the seeds of the test clips, in order."""
    return [TEST_SEEDS + i for i in range(CLIPS)]


def clip_name(seed: int) -> str:
    """Return the file name of a test clip."""
    return f"clips/avs_{seed - TEST_SEEDS:03d}.mp4"


def _pick(facts: list[Fact], rng: np.random.Generator, used: dict[str, int]) -> list[Fact]:
    """Pick some facts of a clip: about 60 % sparse, families and kinds as balanced as possible."""
    chosen: list[Fact] = []
    pool = list(dict.fromkeys(facts))
    families = sorted({f.family for f in pool})
    for k in range(PER_CLIP):
        want_sparse = rng.random() < 0.62
        family = families[k % len(families)]
        rest = [f for f in pool if f not in chosen and f.kind not in {c.kind for c in chosen}]
        good = (
            [f for f in rest if f.family == family and f.sparse == want_sparse]
            or [f for f in rest if f.family == family]
            or rest
        )
        if not good:
            break
        least = min(used.get(f.kind, 0) for f in good)
        good = [f for f in good if used.get(f.kind, 0) == least]
        rare = min(used.get(f.kind + f.answer, 0) for f in good)
        good = [f for f in good if used.get(f.kind + f.answer, 0) == rare]
        fact = good[int(rng.integers(len(good)))]
        for key in (fact.kind, fact.kind + fact.answer):
            used[key] = used.get(key, 0) + 1
        chosen.append(fact)
    return chosen


def build(seeds: list[int] | None = None, wide: bool = False) -> tuple[list[dict], dict[str, str]]:
    """Return the lines of test.jsonl and the fingerprints of the clips, or those of other seeds.

    Parameters
    ----------
    seeds : those of the built-in set if not given
    wide : clips and questions of `wide` and `wide_questions`
    """
    lines, prints, used = [], {}, {}
    facts = wide_facts if wide else facts_of
    for seed in seeds or test_seeds():
        clip = wide_clip(seed) if wide else test_clip(seed)
        prints[str(seed)] = fingerprint(clip)
        rng = np.random.default_rng([seed, 9])
        for k, fact in enumerate(_pick(facts(clip, rng), rng, used)):
            seen = bool((k + seed) % 2)
            q = word(fact, rng, seen)
            lines.append(
                {
                    "id": f"avs_{seed - TEST_SEEDS:03d}_{k}",
                    "video": clip_name(seed),
                    "question": q.text,
                    "choices": list(q.choices),
                    "answer": q.answer,
                    "category": q.kind,
                    "family": q.family,
                    "sparse": q.sparse,
                    "wording": "seen" if seen else "unseen",
                    "seed": seed,
                    "evidence": [list(span) for span in spans(clip, fact)],
                }
            )
    return lines, prints


def fresh_seeds(first: int, count: int) -> list[int]:
    """Return the seeds of a new question set.

    Raises
    ------
    ValueError
        If the seeds are used by training or by the built-in set.
    """
    lowest = TEST_SEEDS + CLIPS
    if first < lowest:
        raise ValueError(f"seeds below {lowest} belong to training and the built-in set")
    return list(range(first, first + count))


def write(folder: Path = FOLDER, seeds: list[int] | None = None, wide: bool = False) -> int:
    """Write test.jsonl and fingerprints.json; return the number of questions."""
    lines, prints = build(seeds, wide)
    (folder / "test.jsonl").write_text(
        "".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8"
    )
    (folder / "fingerprints.json").write_text(json.dumps(prints, indent=0) + "\n", encoding="utf-8")
    return len(lines)


def read(path: Path = FOLDER / "test.jsonl") -> list[dict]:
    """Return the questions of test.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_fingerprints() -> dict[str, str]:
    """Return the recorded fingerprint of each seed."""
    return json.loads((FOLDER / "fingerprints.json").read_text(encoding="utf-8"))


def test_clip(seed: int) -> Clip:
    """Return the clip of a test seed."""
    return draw_clip(seed, OPTIONS)


def wide_clip(seed: int) -> Clip:
    """Return the wide clip of a test seed."""
    return draw_wide(seed, WIDE_OPTIONS)

"""Batches for the decoder: one clip and many questions in one row.

Row layout, padded block by block: [system text and bos tokens | audio and video tokens | eos tokens
and questions]. A question attends to the clip and to itself, never to another question, and its
positions start at the clip's end. So each question is computed as if it were asked alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from avsynth.questions import Fact, Question, facts_of, word
from avsynth.wide_questions import wide_facts
from avsynth.world import COLOURS, INSTRUMENTS, SHAPES, Clip
from tokenizers import Tokenizer

from .labels import Speaker, audio_labels, video_labels
from .layout import AvLayout, audio_tokens, av_layout
from .vocab import SAME

SYSTEM = "You are a helpful assistant."
OTHER_SYSTEMS = ("", "answer the question about the clip with one word.", "You are helpful.")
PROBES = {
    "order": 6,
    "previous": 9,
    "was_short": 2,
    "shape": 7,
    "colour": 7,
    "digit": 2,
    "v_order": 5,
    "v_previous": 7,
    "v_colour": 7,
}
"""Auxiliary classifiers on audio and video tokens in the middle of the decoder: name -> classes."""


@dataclass
class Sample:
    """A clip with its tokens and labels, as the decoder is trained on it."""

    clip: Clip
    layout: AvLayout
    vectors: np.ndarray
    probes: dict[str, np.ndarray]
    owner: np.ndarray
    """Event of each token: 100 + audio event, 200 + shape, 300 silence, 400 digit, -1 none."""

    def where(self, look: tuple[tuple[str, int], ...]) -> np.ndarray:
        """Return which tokens hold the answer to a question, (n,) bool."""
        base = {"s": 100, "p": 200, "q": 300, "d": 400}
        out = np.isin(self.owner, [base[k] + i for k, i in look if k in base])
        for kind, _ in look:
            if kind in "fg" and (digit := self.owner == 400).any():
                grids = np.unique(self.layout.positions[0][digit])
                t = self.layout.positions[0]
                out |= np.isin(t // 25 * 25, grids) & (
                    self.layout.is_audio
                    if kind == "f"
                    else (self.owner >= 200) & (self.owner < 300)
                )
        return out

    def about(self, word: str) -> np.ndarray:
        """Return which tokens show the thing that a word of a question names, (n,) bool."""
        clip = self.clip
        look = [("s", i) for i, s in enumerate(clip.sounds or ()) if s.instrument == word]
        look += [("p", i) for i, s in enumerate(clip.shapes or ()) if word in (s.shape, s.colour)]
        look += [("d", 0)] if word == "digit" else [("q", 0)] if word == "silence" else []
        return self.where(tuple(look))


def probe_labels(clip: Clip, lay: AvLayout, audio: dict | None, video: dict | None) -> dict:
    """Return the labels of the auxiliary classifiers per token, in prompt order; -1 is ignored."""
    n = len(lay.index)
    out = {k: np.full(n, -1) for k in PROBES}
    a_at, v_at = lay.is_audio, ~lay.is_audio
    if audio is not None:
        idx = lay.index[a_at]
        out["order"][a_at] = np.minimum(audio["order"], 5)[idx]
        out["previous"][a_at] = audio["previous"][idx] + 1
        out["was_short"][a_at] = audio["was_short"][idx]
        if video is not None:
            grid = np.minimum(idx // 25, video["grids"] - 1)
            event = video["grid_event"][grid]
            for name, group, attr in (("shape", SHAPES, "shape"), ("colour", COLOURS, "colour")):
                value = np.array([0, *(1 + group.index(getattr(s, attr)) for s in clip.shapes)])
                out[name][a_at] = np.where(event == -2, -1, value[np.maximum(event, -1) + 1])
            out["digit"][a_at] = video["grid_digit"][grid]
    if video is not None and clip.shapes:
        cells = video["rows"] * video["cols"]
        g, c = lay.index[v_at] // cells, lay.index[v_at] % cells
        event = video["grid_event"][g]
        on = (event >= 0) & (video["cover"].min(1)[g, c] > 0.1)
        e = np.maximum(event, 0)
        out["v_order"][v_at] = np.where(on, np.minimum(e + 1, 4), -1)
        before = np.array([0, *(1 + SHAPES.index(s.shape) for s in clip.shapes)])
        out["v_previous"][v_at] = np.where(on, before[e], -1)
        hue = np.array([0, *(1 + COLOURS.index(s.colour) for s in clip.shapes)])
        out["v_colour"][v_at] = np.where(on, hue[e], -1)
    return out


def owners(clip: Clip, lay: AvLayout, audio: dict | None, video: dict | None) -> np.ndarray:
    """Return the event of each token; see `Sample.owner`."""
    out = np.full(len(lay.index), -1)
    if audio is not None:
        mid = lay.index * 0.04 + 0.02
        for i, s in enumerate(clip.sounds):
            out[lay.is_audio & (mid >= s.start) & (mid < s.end)] = 100 + i
        if clip.silence:
            out[lay.is_audio & (mid >= clip.silence[0]) & (mid < clip.silence[1])] = 300
    if video is not None:
        cells = video["rows"] * video["cols"]
        at = ~lay.is_audio
        g, c = lay.index[at] // cells, lay.index[at] % cells
        event = np.where(video["event"][:, 0] >= 0, video["event"][:, 0], video["event"][:, 1])
        code = np.where(video["cover"].max(1)[g, c] > 0.1, 200 + event[g], -1)
        out[at] = np.where(video["digit"].max(1)[g, c] > 0, 400, code)
    return out


def blur(x: np.ndarray, rng: np.random.Generator, near: np.ndarray | None) -> np.ndarray:
    """Add noise to ideal tower outputs, so that they are as uncertain as those of real towers."""
    if near is not None:  # at borders of audio events a token may hold some of its neighbour
        a = rng.uniform(0, 0.6, (len(x), 1)) * (rng.random((len(x), 1)) < 0.3)
        x = (1 - a) * x + a * x[near]
    x = x * rng.uniform(0.8, 1.15, (len(x), 1))
    return (x + rng.normal(0, rng.uniform(0.05, 0.22), x.shape)).astype(np.float32)


def make_sample(
    clip: Clip,
    speaker: Speaker,
    rng: np.random.Generator,
    towers: tuple[np.ndarray | None, np.ndarray | None] | None = None,
) -> Sample:
    """Return a sample with the given tower outputs, or else with ideal ones plus noise."""
    audio = video = None
    a_vec = v_vec = np.zeros((0, len(speaker.silence)), np.float32)
    n_audio = grids = 0
    rows, cols = 4, 4
    if clip.sounds is not None:
        n_audio = audio_tokens(round(clip.duration * 16_000))
        audio = audio_labels(clip, n_audio)
        if towers is None:
            near = np.clip(np.arange(n_audio) + rng.integers(-1, 2, n_audio), 0, n_audio - 1)
            a_vec = blur(speaker.audio(audio), rng, near)
            lost = rng.random(n_audio) < 0.02  # 2 % of the tokens are wrong
            mix = rng.uniform(0, 0.8, (int(lost.sum()), 1))
            wrong = speaker.sound[rng.integers(len(INSTRUMENTS), size=int(lost.sum()))]
            a_vec[lost] = (1 - mix) * a_vec[lost] + mix * wrong
    if clip.shapes is not None:
        video = video_labels(clip)
        grids, rows, cols = video["grids"], video["rows"], video["cols"]
        if towers is None:
            v_vec = blur(speaker.video(clip, video, float(rng.uniform(0.04, 0.15))), rng, None)
    if towers is not None:
        a_vec = a_vec if towers[0] is None else towers[0]
        v_vec = v_vec if towers[1] is None else towers[1]
    lay = av_layout(n_audio, grids, rows, cols)
    vectors = np.empty((len(lay.index), a_vec.shape[1]), np.float32)
    vectors[lay.is_audio] = a_vec[lay.index[lay.is_audio]]
    vectors[~lay.is_audio] = v_vec[lay.index[~lay.is_audio]]
    return Sample(
        clip, lay, vectors, probe_labels(clip, lay, audio, video), owners(clip, lay, audio, video)
    )


class Asker:
    """Draws questions of all kinds, and more of the kinds that the model still answers wrongly."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.error: dict[str, float] = {}

    def note(self, kinds: list[str], right: np.ndarray) -> None:
        """Count the right and wrong answers of a kind."""
        for k, ok in zip(kinds, right, strict=True):
            self.error[k] = 0.98 * self.error.get(k, 0.7) + 0.02 * (1 - float(ok))

    def draw(self, clip: Clip, n: int) -> list[Question]:
        """Draw up to n questions about a clip, of those about wide clips if it is one."""
        by_kind: dict[str, list[Fact]] = {}
        for f in (wide_facts if clip.wide else facts_of)(clip, self.rng):
            by_kind.setdefault(f.kind, []).append(f)
        kinds = list(by_kind)
        weight = np.array([0.12 + self.error.get(k, 0.7) for k in kinds])
        weight *= np.array([1 + 0.4 * (len(by_kind[k]) > 1) for k in kinds])
        picks = self.rng.choice(len(kinds), size=n, p=weight / weight.sum())
        out = []
        for p in picks:
            facts = by_kind[kinds[p]]
            out.append(word(facts[int(self.rng.integers(len(facts)))], self.rng))
        return out


@dataclass
class Batch:
    """Tensors of one step; the module's docstring describes the row layout."""

    ids: torch.Tensor  # (B, L), 0 at audio and video tokens
    av: torch.Tensor  # (B, A, width)
    positions: torch.Tensor  # (3, B, L)
    mask: torch.Tensor  # (B, 1, L, L) bool
    blocks: tuple[int, int]  # columns where the AV block begins and ends
    rows: torch.Tensor  # answers: row, column whose logits count, wanted id, first?
    cols: torch.Tensor
    want: torch.Tensor
    first: torch.Tensor
    probes: dict[str, torch.Tensor]
    questions: list[Question]
    gaze: torch.Tensor  # (questions, A) bool, where each answer stands
    real: torch.Tensor  # (B, A) bool, not padding
    named: tuple[
        torch.Tensor, torch.Tensor, torch.Tensor
    ]  # words that name things: row, column, gaze

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""

        def move(value: object) -> object:
            if isinstance(value, torch.Tensor):
                return value.to(device)
            if isinstance(value, dict):
                return {k: move(v) for k, v in value.items()}
            if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
                return tuple(move(v) for v in value)
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})


class Collator:
    """Turns samples and questions into a `Batch`."""

    def __init__(self, tok: Tokenizer) -> None:
        self.tok, self.memo = tok, {}
        self.names: dict[int, str] = {}
        for name in (*INSTRUMENTS, *SHAPES, *COLOURS, "digit", "number", "silence", "pause"):
            for form in (name, name.capitalize(), name.upper()):
                for text in (form, " " + form):
                    ids = tok.encode(text, add_special_tokens=False).ids
                    self.names[ids[0]] = SAME.get(name, name)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; results are cached."""
        if text not in self.memo:
            self.memo[text] = self.tok.encode(text, add_special_tokens=False).ids
        return self.memo[text]

    def head(self, system: str | None, clip: Clip) -> tuple[list[int], list[int]]:
        """Return the text before the clip and its positions."""
        text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        ids = (
            self.encode(text + "<|im_start|>user\n") if text else self.encode("<|im_start|>user\n")
        )
        bos = (["<|vision_bos|>"] if clip.shapes is not None else []) + (
            ["<|audio_bos|>"] if clip.sounds is not None else []
        )
        n = len(ids)
        return ids + [self.tok.token_to_id(b) for b in bos], [*range(n), *([n] * len(bos))]

    def __call__(
        self, samples: list[Sample], asked: list[list[Question]], systems: list[str | None]
    ) -> Batch:
        """Build the batch."""
        heads = [self.head(s, x.clip) for s, x in zip(systems, samples, strict=True)]
        p_len = max(len(h[0]) for h in heads)
        a_len = -(-max(len(s.layout.index) for s in samples) // 16) * 16
        tails, answers, flat = [], [], []
        named: list[tuple[int, int, np.ndarray]] = []
        for r, (sample, questions) in enumerate(zip(samples, asked, strict=True)):
            start = heads[r][1][-1] + 1
            end = start + sample.layout.end
            eos = (["<|audio_eos|>"] if sample.clip.sounds is not None else []) + (
                ["<|vision_eos|>"] if sample.clip.shapes is not None else []
            )
            ids = [self.tok.token_to_id(e) for e in eos]
            pos, seg = [end] * len(ids), [0] * len(ids)
            for k, q in enumerate(questions):
                ask = self.encode(q.text) + self.encode("<|im_end|>\n<|im_start|>assistant\n")
                say = self.encode(q.answer + "<|im_end|>")
                for j, token in enumerate(ask):
                    if token in self.names and (seen := sample.about(self.names[token])).any():
                        named.append((r, len(ids) + j, seen))
                for j, wanted in enumerate(say):
                    answers.append((r, len(ids) + len(ask) - 1 + j, wanted, j == 0))
                flat.append(q)
                part = ask + say[:-1]
                ids += part
                pos += range(end + 1, end + 1 + len(part))
                seg += [k + 1] * len(part)
            tails.append((ids, pos, seg))
        t_len = -(-max(len(t[0]) for t in tails) // 16) * 16
        total, b = p_len + a_len + t_len, len(samples)
        ids = np.zeros((b, total), np.int64)
        pos = np.zeros((3, b, total), np.int64)
        seg = np.full((b, total), -1, np.int64)
        av = np.zeros((b, a_len, samples[0].vectors.shape[1]), np.float32)
        probes = {k: np.full((b, a_len), -1) for k in PROBES}
        for r, sample in enumerate(samples):
            h_ids, h_pos = heads[r]
            k, n = p_len - len(h_ids), len(sample.layout.index)
            ids[r, k:p_len], pos[:, r, k:p_len], seg[r, k:p_len] = h_ids, h_pos, 0
            av[r, :n] = sample.vectors
            pos[:, r, p_len : p_len + n] = sample.layout.positions + h_pos[-1] + 1
            seg[r, p_len : p_len + n] = 0
            for name in PROBES:
                probes[name][r, :n] = sample.probes[name]
            t_ids, t_pos, t_seg = tails[r]
            at = slice(p_len + a_len, p_len + a_len + len(t_ids))
            ids[r, at], pos[:, r, at], seg[r, at] = t_ids, t_pos, t_seg
        s = torch.from_numpy(seg)
        causal = torch.ones(total, total, dtype=torch.bool).tril()
        mask = (
            causal
            & (s[:, None, :] >= 0)
            & ((s[:, None, :] == 0) | (s[:, None, :] == s[:, :, None]))
        )
        mask |= torch.eye(
            total, dtype=torch.bool
        )  # padding attends to itself, so that no row is empty
        gaze = np.zeros((len(flat), a_len), bool)
        n = 0
        for sample, questions in zip(samples, asked, strict=True):
            for q in questions:
                gaze[n, : len(sample.owner)] = sample.where(q.look)
                n += 1
        shown = np.zeros((len(named), a_len), bool)
        for i, (_, _, seen) in enumerate(named):
            shown[i, : len(seen)] = seen
        at_names = (
            torch.tensor([n[0] for n in named], dtype=torch.long),
            torch.tensor([n[1] for n in named], dtype=torch.long) + p_len + a_len,
            torch.from_numpy(shown),
        )
        rows, cols, want, first = (torch.tensor(x) for x in zip(*answers, strict=True))
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(av),
            torch.from_numpy(pos),
            mask[:, None],
            (p_len, p_len + a_len),
            rows,
            cols + p_len + a_len,
            want,
            first,
            {k: torch.from_numpy(v) for k, v in probes.items()},
            flat,
            torch.from_numpy(gaze),
            s[:, p_len : p_len + a_len] >= 0,
            at_names,
        )

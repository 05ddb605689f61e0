"""Questions with their answers, and the loss of an answer given what stays of the clip."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import torch
from torch.nn import functional as F

from omnidrop.clip.options import ClipOptions
from omnidrop.engine.encode import Encoded
from omnidrop.engine.session import Session
from omnidrop.errors import OmniDropError
from omnidrop.models.adapter import Adapter
from omnidrop.models.gradients import Decoder
from omnidrop.prompt import build_prompt
from omnidrop.pruning.parts.selector import RHO_A, RHO_V, Selector, Sifted, quotas, sift
from omnidrop.tokens import TokenMap
from omnidrop.transfers import to_device

#: Bytes of embeddings that are held, so that a clip is not encoded again for every question.
HELD = 1 << 30


@dataclass(frozen=True)
class Lesson:
    """One question about one clip, and its answer.

    Attributes
    ----------
    clip : Path
    question : str
        As the model is asked.
    answer : str
        As it should reply.
    options : ClipOptions
        Span and sampling of the clip.
    """

    clip: Path
    question: str
    answer: str
    options: ClipOptions = field(default_factory=ClipOptions)


class Kept(Enum):
    """How tokens of the clip are chosen when a loss is measured."""

    SELECTED = "selected"  #: By the selector.
    EVEN = "even"  #: As many, video by the same rule, audio evenly spaced: what needs no training.
    WHOLE = "whole"  #: All of them.


class Encodings:
    """Embeddings of clips, encoded when they are asked for; the latest are held.

    Parameters
    ----------
    open_clip : callable
        Opens the clip of a lesson.
    on_failure : callable
        Told of a clip that cannot be read, once.

    Attributes
    ----------
    failed : set
        Clips that could not be read, with their options.
    """

    def __init__(
        self,
        open_clip: Callable[[Lesson], Session],
        on_failure: Callable[[OmniDropError], None],
    ) -> None:
        self._open, self._on_failure = open_clip, on_failure
        self._held: OrderedDict[tuple[Path, ClipOptions], Encoded] = OrderedDict()
        self.failed: set[tuple[Path, ClipOptions]] = set()

    def of(self, lesson: Lesson) -> Encoded | None:
        """Return the embeddings of a lesson's clip; None if it cannot be read."""
        key = lesson.clip, lesson.options
        if key in self.failed:
            return None
        if key not in self._held:
            try:
                with self._open(lesson) as session:
                    self._held[key] = _outside_of_inference(session.encode())
            except OmniDropError as problem:
                self.failed.add(key)
                self._on_failure(problem)
                return None
            while len(self._held) > 1 and sum(e.bytes for e in self._held.values()) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]


def _outside_of_inference(encoded: Encoded) -> Encoded:
    """Return copies of the embeddings that may take part in a training."""
    return replace(
        encoded,
        planes=tuple(plane.clone() for plane in encoded.planes),
        audio=None if encoded.audio is None else encoded.audio.clone(),
    )


@dataclass(frozen=True)
class Teacher:
    """Measures how well an answer is told from what stays of a clip.

    Attributes
    ----------
    adapter : Adapter
    decoder : Decoder
    budget : float or None
        Share of AV tokens that stay; None for the published rates of audio and video.
    system : str or None
        System prompt; None for the family's own.
    """

    adapter: Adapter
    decoder: Decoder
    budget: float | None = None
    system: str | None = None

    def loss(
        self, selector: Selector, lesson: Lesson, encoded: Encoded, kept: Kept = Kept.SELECTED
    ) -> torch.Tensor:
        """Return the cross-entropy of the answer, mean over its tokens.

        Gradients pass the choice of audio straight through: in the forward pass a kept token is
        what it was, in the backward pass it is as if it had been multiplied by its score. A dropped
        token is gone, and passes none.

        Parameters
        ----------
        selector : Selector
            On the model's device.
        lesson : Lesson
        encoded : Encoded
            Of its clip.
        kept : Kept
        """
        adapter, decoder, device = self.adapter, self.decoder, self.adapter.device
        prompt = build_prompt(
            adapter.text, adapter.template, lesson.question, encoded.media, system=self.system
        )
        text = (~prompt.tokens.av).nonzero().flatten()
        av = prompt.tokens.av.nonzero().flatten()
        tokens = prompt.tokens.select(av)
        planes = encoded.in_prompt_order(tokens.video)
        sifted = self._sift(selector, tokens, planes[0], kept)
        keep = to_device(sifted.keep, device)
        alive, order = torch.cat((text, av[sifted.keep])).sort()
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order))
        answer = self.answer_ids(lesson.answer)
        words = decoder.embed(prompt.ids[text])
        rows = _straight_through(planes[0].to(words).index_select(0, keep), sifted)
        hidden = torch.cat((words, rows)).index_select(0, to_device(order, device))
        hidden = torch.cat((hidden, decoder.embed(answer[:-1])))
        ahead = prompt.next_position + torch.arange(len(answer) - 1)
        positions = torch.cat(
            (prompt.positions[:, alive], ahead.to(prompt.positions).expand(3, -1)), dim=1
        )
        logits = decoder.logits(
            hidden,
            to_device(positions, device),
            len(answer),
            tuple(plane.to(words).index_select(0, keep) for plane in planes[1:]),
            to_device(places[len(text) :], device),
        )
        return F.cross_entropy(logits, to_device(answer, device))

    def answer_ids(self, answer: str) -> torch.Tensor:
        """Return the ids of an answer, with the token that ends it."""
        ids = list(self.adapter.text.encode(answer)[0])
        end = next(iter(self.adapter.template.follow_up("-")), None)
        if isinstance(end, int) and end in self.adapter.stop_ids:
            ids.append(end)
        return torch.tensor(ids, dtype=torch.int64)

    def _sift(
        self, selector: Selector, tokens: TokenMap, embeds: torch.Tensor, kept: Kept
    ) -> Sifted:
        total = len(tokens)
        if kept is Kept.WHOLE:
            return Sifted(torch.arange(total), torch.empty(0, dtype=torch.int64), None)
        if self.budget is None:
            audio = int(tokens.audio.sum())
            wanted = (1 - RHO_A) * audio + (1 - RHO_V) * (total - audio)
        else:
            wanted = self.budget * total
        n_audio, n_video = quotas(tokens, min(max(round(wanted), 1), total), RHO_A, RHO_V)
        return sift(selector if kept is Kept.SELECTED else None, tokens, embeds, n_audio, n_video)


def _straight_through(rows: torch.Tensor, sifted: Sifted) -> torch.Tensor:
    """Return the kept rows, (k, D), whose gradient reaches the scores of the audio among them."""
    if sifted.scores is None:
        return rows
    zero = (sifted.scores - sifted.scores.detach()).to(rows.dtype)
    extra = torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)
    extra = extra.index_copy(0, to_device(sifted.audio, rows.device), zero)
    return rows + rows * extra[:, None]

"""A prompt's tensors on the model's device, and the sizes that the host needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from typing import NamedTuple

import torch

from omnidrop.pruning.method import Rows
from omnidrop.pruning.parts.relevance import causal
from omnidrop.tokens import Prompt, TokenMap
from omnidrop.transfers import to_device


class DevicePrompt:
    """A prompt on the model's device.

    Which rows are alive is known only on the device. The host knows their number from the plan and
    the rest from its copy of the prompt, so nothing here synchronises.

    Parameters
    ----------
    prompt : Prompt
        On the CPU.
    device : torch.device

    Attributes
    ----------
    on_host : Prompt
        The prompt given, on the CPU.
    device : torch.device
    ids : Tensor, (N,) int64
    positions : Tensor, (3, N) int64 or float32
    text : Tensor, (t,) int64
        Prompt indices of the tokens that are neither audio nor video.
    av : Tensor, (N - t,) int64
        Prompt indices of the audio and video tokens.
    """

    def __init__(self, prompt: Prompt, device: torch.device) -> None:
        self.on_host, self.device = prompt, device
        av = prompt.tokens.av
        self._text, self._av = torch.nonzero(~av).squeeze(1), torch.nonzero(av).squeeze(1)
        self.ids = to_device(prompt.ids, device)
        self.positions = to_device(prompt.positions, device)
        self.text, self.av = to_device(self._text, device), to_device(self._av, device)
        self._known: dict[Rows, _Queries] = {}
        self._masks: dict[Rows, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.on_host)

    @cached_property
    def tokens(self) -> TokenMap:
        """What the tokens are, on the device."""
        return mapped(self.on_host.tokens, lambda part: to_device(part, self.device))

    @cached_property
    def av_on_host(self) -> TokenMap:
        """What the audio and video tokens are, on the CPU."""
        return self.on_host.tokens.select(self._av)

    @cached_property
    def text_between_av(self) -> bool:
        """Whether text stands between AV tokens."""
        return bool(len(self._av)) and int(self._av[-1] - self._av[0]) >= len(self._av)

    @cached_property
    def lead(self) -> int | None:
        """Text tokens before the AV tokens; None if text stands between those."""
        if self.text_between_av:
            return None
        return self.text_before(int(self._av[0])) if len(self._av) else 0

    @cached_property
    def after_clip(self) -> int | None:
        """Prompt index of the first token after the clip; None if that is the question or the end.

        Its attention is the same for every question.
        """
        if not len(self._av):
            return None
        place = int(self._av[-1]) + 1
        tokens = self.on_host.tokens
        known = place < len(self) - 1 and not bool(tokens.question[: place + 1].any())
        return place if known else None

    def text_before(self, end: int) -> int:
        """Return how many tokens before prompt index `end` are text."""
        return int((self._text < end).sum())

    def query_rows(self, rows: Rows) -> torch.Tensor:
        """Return the prompt indices of `query_rows`, (r,) int64 on the device."""
        return self._queries(rows).places

    def query_run(self, rows: Rows) -> range | None:
        """Return the prompt indices of `query_rows` where they are one run behind all AV tokens.

        Such rows are never dropped, so in every layer they are as far from the end as in the
        prompt. None where they are anything else.
        """
        return self._queries(rows).run

    def causal_mask(self, rows: Rows, length: int) -> torch.Tensor:
        """Return `omnidrop.pruning.parts.relevance.causal` of `query_run`.

        Parameters
        ----------
        rows : {"question", "last", "all-text"}
            Rows with a `query_run`, r of them.
        length : int
            Rows of the sequence, n; they end where the prompt ends.

        Returns
        -------
        Tensor, (r, n) float32
        """
        held = self._masks.get(rows)
        if held is None or held.shape[1] < length:
            run = self.query_run(rows)
            if run is None:
                raise ValueError(f"The rows {rows!r} are no run behind the AV tokens.")
            start = length - len(self) + run.start
            places = torch.arange(start, start + len(run), device=self.device)
            held = self._masks[rows] = causal(places, length)
        return held[:, held.shape[1] - length :]

    def _queries(self, rows: Rows) -> _Queries:
        if rows not in self._known:
            index = query_rows(self.on_host.tokens, rows)
            run = range(int(index[0]), int(index[-1]) + 1)
            behind = not len(self._av) or run.start > int(self._av[-1])
            one = behind and len(run) == len(index)
            self._known[rows] = _Queries(to_device(index, self.device), run if one else None)
        return self._known[rows]

    def clip_end(self) -> int:
        """Return the number of tokens before the first that depends on the question.

        0 if the clip cannot be computed separately: there is no AV token, text stands between AV
        tokens, or the question comes before them.
        """
        if not len(self._av) or self.text_between_av:
            return 0
        end = int(self._av[-1]) + 1
        return 0 if bool(self.on_host.tokens.question[:end].any()) else end


class _Queries(NamedTuple):
    """Rows that score: prompt indices on the device, and as a run where they are one."""

    places: torch.Tensor
    run: range | None


def mapped(tokens: TokenMap, move: Callable[[torch.Tensor], torch.Tensor]) -> TokenMap:
    """Return a token map with `move` applied to every tensor."""
    return TokenMap(**{f.name: move(getattr(tokens, f.name)) for f in fields(tokens)})


def query_rows(tokens: TokenMap, rows: Rows) -> torch.Tensor:
    """Return the tokens of a prompt whose queries score the AV tokens.

    Parameters
    ----------
    tokens : TokenMap
        Of the whole prompt.
    rows : {"question", "last", "all-text"}
        The user's words; the last token; or every token that is neither audio nor video and
        stands after the first AV token (those before it attend to none).

    Returns
    -------
    Tensor, (r,) int64
        The last token if there is no such token.
    """
    last = torch.tensor([len(tokens) - 1])
    if rows == "last":
        return last
    if rows == "question":
        index = torch.nonzero(tokens.question).squeeze(1)
        return index if len(index) else last
    av = torch.nonzero(tokens.av).squeeze(1)
    text = torch.nonzero(~tokens.av).squeeze(1)
    return text[text > av[0]] if len(av) else last

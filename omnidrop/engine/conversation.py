"""Conversations: a follow-up question sees the earlier questions and answers.

The prompt of a follow-up is the whole chat: the clip, the first question, its answer as it was
generated, and so on up to the new question. Of each turn the clip's tokens are selected anew,
guided by the words of the new question alone, because it may need other moments of the clip than
the questions before it. What does not depend on the question is reused, as between any two
questions of a session: the encoded clip, and the clip's keys and values in the first layers (prefix
KV reuse). So a follow-up takes as long as a new question, and a little for the text of the earlier
turns.

Continuing the KV cache of the turn before would save that, but it holds only the tokens that the
question before it selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnidrop.models.adapter import Adapter
from omnidrop.prompt import Turn, build_prompt
from omnidrop.report.trace import Answer, Choice
from omnidrop.tokens import Media, Prompt

if TYPE_CHECKING:
    from omnidrop.engine.session import Session

DEMO_NOTICE = (
    "The demo model was trained on single questions, so after earlier turns its answers are worse."
)


@dataclass(frozen=True)
class Said:
    """An earlier turn of which no Answer is at hand.

    Attributes
    ----------
    question, text : str
        What was asked and answered.
    token_ids : tuple of int or None
        Ids of the answer as they were generated; None where only its text is known.
    choices : tuple of Choice
        As `Answer.choices`: the answer was chosen, not generated.
    """

    question: str
    text: str
    token_ids: tuple[int, ...] | None = None
    choices: tuple[Choice, ...] = ()


class Conversation:
    """A chat about one open clip; `Session.conversation` starts one.

    Parameters
    ----------
    session : Session
    turns : sequence of Answer
        Earlier turns, the oldest first.
    """

    def __init__(self, session: Session, turns: Sequence[Answer] = ()) -> None:
        self.session = session
        self._turns = list(turns)

    @property
    def turns(self) -> tuple[Answer, ...]:
        """The answers so far with their questions, the oldest first."""
        return tuple(self._turns)

    def ask(self, question: str, **settings: Any) -> Answer:
        """Ask a question that sees the earlier turns.

        A question that fails or is interrupted is no turn of the conversation.

        Parameters
        ----------
        question : str
            The user's words.
        **settings
            Keywords of `Session.ask`.

        Returns
        -------
        Answer

        Raises
        ------
        UsageError, BudgetError, MediaError, MemoryShortError
            As `Session.ask`.
        """
        answer = self.session.ask(question, earlier=self.turns, **settings)
        self._turns.append(answer)
        return answer

    def reset(self) -> None:
        """Forget all turns. The encoded clip stays."""
        self._turns.clear()


@dataclass(frozen=True)
class Written:
    """A prompt, and what of the conversation is in it.

    Attributes
    ----------
    prompt : Prompt
    seen : tuple of Answer or Said
        The earlier turns in the prompt.
    notices : tuple of str
        Which turns were left out, and whether the model copes with turns.
    """

    prompt: Prompt
    seen: tuple[Answer | Said, ...] = ()
    notices: tuple[str, ...] = ()


def write_prompt(
    adapter: Adapter,
    question: str,
    media: Media,
    *,
    system: str | None,
    earlier: Sequence[Answer | Said],
    room: int,
) -> Written:
    """Write the prompt of a question and the earlier turns.

    If it would exceed the positions that the model was trained on, the oldest turns are left out
    until it fits. If even the question alone would exceed them, all turns stay: the clip is too
    long, and leaving turns out does not help.

    Parameters
    ----------
    adapter : Adapter
    question : str
    media : Media
        Sizes of the clip.
    system : str or None
        System prompt; None for the family's own.
    earlier : sequence of Answer or Said
        The oldest first.
    room : int
        Positions to keep free for the answer.

    Raises
    ------
    UsageError
        As `build_prompt`.
    """
    limit = adapter.template.max_positions

    def written(left_out: int) -> Written:
        seen = tuple(earlier[left_out:])
        turns = [_turn(adapter, answer) for answer in seen]
        prompt = build_prompt(
            adapter.text, adapter.template, question, media, system=system, earlier=turns
        )
        notices = (DEMO_NOTICE,) if seen and adapter.info.demo else ()
        return Written(
            prompt, seen, (*notices, _left_out(left_out, limit)) if left_out else notices
        )

    for left_out in range(len(earlier) + 1):
        found = written(left_out)
        if found.prompt.next_position + room <= limit:
            return found
    return written(0)


def _turn(adapter: Adapter, answer: Answer | Said) -> Turn:
    if answer.choices or answer.token_ids is None:  # it was not generated here
        return Turn(answer.question, tuple(adapter.text.encode(answer.text)[0]))
    return Turn(answer.question, answer.token_ids)


def _left_out(left_out: int, limit: int) -> str:
    oldest = "oldest turn was" if left_out == 1 else f"{left_out} oldest turns were"
    return (
        f"The {oldest} left out of the conversation: the model was trained on {limit} positions, "
        "and the clip, all turns and an answer need more."
    )

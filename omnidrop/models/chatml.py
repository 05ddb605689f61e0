"""ChatML, the chat format that the Qwen families share."""

from __future__ import annotations

from dataclasses import dataclass

from omnidrop.tokens import Asked, Piece


@dataclass(frozen=True)
class ChatML:
    """A chat of turns, each `<|im_start|>role`, a line break, the text and `<|im_end|>`.

    Attributes
    ----------
    im_start, im_end : int
        Ids that begin and end a turn.
    system : str or None
        System prompt when none is given; None for no system turn at all.
    opening : tuple of int or str
        What an answer starts with, such as the `<think>` of a thinking model.
    """

    im_start: int
    im_end: int
    system: str | None = None
    opening: tuple[int | str, ...] = ()

    @property
    def start_of_answer(self) -> list[Piece]:
        """The end of the user's turn and the beginning of the answer."""
        return [self.im_end, "\n", self.im_start, "assistant\n", *self.opening]

    def chat(
        self, question: str, system: str | None, *, media: bool
    ) -> tuple[list[Piece], list[Piece]]:
        """Write a system turn, the user's turn with the clip and then the question, and the
        beginning of the answer; see `omnidrop.models.family.Template.chat`.
        """
        instruction = self.system if system is None else system
        before: list[Piece] = [self.im_start]
        if instruction is not None:
            before += [f"system\n{instruction}", self.im_end, "\n", self.im_start]
        if media:
            return [*before, "user\n"], [Asked(question, 0), *self.start_of_answer]
        return [*before, Asked(f"user\n{question}", len("user\n"))], self.start_of_answer

    def follow_up(self, question: str) -> list[Piece]:
        """Write another turn; see `omnidrop.models.family.Template.follow_up`."""
        asked = Asked(f"user\n{question}", len("user\n"))
        return [self.im_end, "\n", self.im_start, asked, *self.start_of_answer]

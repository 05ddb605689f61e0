"""Plain text that the pretrained model wrote itself, to notice and to prevent that it forgets.

While it learns to read clips, the lab model is also held to what the pretrained model would say
next in its own answers to questions that have nothing to do with a clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from recipe.batches import SYSTEM
from tokenizers import Tokenizer
from torch import nn

TOPICS = (
    "bread", "the moon", "bicycles", "tea", "volcanoes", "the sea", "trains", "books", "winter",
    "cats", "gardens", "maps", "soap", "honey", "clocks", "bridges", "rice", "mountains", "paper",
    "birds", "salt", "mirrors", "boats", "wool", "apples", "storms", "letters", "glass", "forests",
    "coffee", "kites", "lamps",
)  # fmt: skip
FORMS = (
    "What is interesting about {}?",
    "Write two sentences about {}.",
    "Explain {} to a child.",
    "How have people used or seen {} in the past?",
    "Give three facts about {}.",
)
HELD_OUT = 4
"""Number of the last topics that are never trained on."""


def prompts(held_out: bool) -> list[str]:
    """Return the questions, of the training's topics or of the held-out ones."""
    topics = TOPICS[-HELD_OUT:] if held_out else TOPICS[:-HELD_OUT]
    return [form.format(topic) for topic in topics for form in FORMS]


def chat(question: str) -> str:
    """Return a question as the start of a chat."""
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def write_answers(
    model: nn.Module,
    tok: Tokenizer,
    *,
    held_out: bool,
    tokens: int = 48,
    seed: int = 5,
    batch: int = 20,
) -> list[list[int]]:
    """Return the ids of the pretrained model's own answers, questions included.

    Parameters
    ----------
    model : Module
        The thinker, on any device.
    tok : Tokenizer
    held_out : bool
        Whether the topics are those that are never trained on.
    tokens : int
        Longest answer.
    seed : int
    batch : int
        Questions answered at once: writing is bound by reading the weights, whatever their number.
    """
    torch.manual_seed(seed)
    end, pad = (tok.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>"))
    device = next(model.parameters()).device
    asked = [tok.encode(chat(q), add_special_tokens=False).ids for q in prompts(held_out)]
    out = []
    for first in range(0, len(asked), batch):
        rows = asked[first : first + batch]
        length = max(map(len, rows))
        ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows], device=device)
        real = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        with torch.no_grad():
            made = model.generate(
                input_ids=ids,
                attention_mask=real.to(device),
                do_sample=True,
                temperature=0.9,
                top_k=0,
                max_new_tokens=tokens,
                eos_token_id=end,
                pad_token_id=pad,
            )
        for row, answer in zip(rows, made[:, length:].tolist(), strict=True):
            out.append(row + answer[: answer.index(end) + 1 if end in answer else None])
    return out


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids (B, L) and which of them count (B, L)."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    real = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], real[i, : len(row)] = torch.tensor(row), True
    return ids, real


def divergence(student: torch.Tensor, teacher: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return KL(teacher ‖ student) of the next token in nats, mean over the tokens that count.

    Parameters
    ----------
    student, teacher : (B, L, V) Tensor
        Logits.
    real : (B, L) bool Tensor
    """
    near, far = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    loss = F.kl_div(near, far, reduction="none", log_target=True).sum(-1)
    return loss[real].mean()

"""The demo model's tokenizer, and the vectors of its words before training.

A byte-level BPE like Qwen's (same splitting rule, same names of special tokens). Its merges are
learned from the words of the question set, so that each word is one token in upper and lower case.
All written forms of a word start from one vector. The towers are trained to output sums of these
vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from avsynth.wordings import words
from avsynth.world import COLOURS, DIGITS, INSTRUMENTS, SHAPES
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)
EXTRA = (
    "system",
    "user",
    "assistant",
    "you",
    "are",
    "a",
    "helpful",
    "an",
    "answer",
    "the",
    "question",
    "with",
    "one",
    "word",
    "choices",
    "yes",
    "no",
    "before",
    "after",
    "about",
    "clip",
    "top",
    "bottom",
    "left",
    "right",
    "and",
    "or",
    "of",
    "in",
    "background",
    "short",
)
#: Words of the chat around a question; no question is about them.
CHAT_WORDS = frozenset({"system", "user", "assistant", "helpful"})
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SAME = {"colour": "color", "number": "digit", "pause": "silence"}


def all_words() -> list[str]:
    """Return all words that must be one token."""
    names = [w for group in (INSTRUMENTS, SHAPES, COLOURS) for w in group]
    return sorted({*names, *words(), *EXTRA})


def build_tokenizer() -> Tokenizer:
    """Learn the merges and return the tokenizer; the result is deterministic."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    forms = []
    for w in all_words():
        for form in (w, w.capitalize(), w.upper()):
            forms += [form] * 3 + [" " + form] * 4
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(forms, trainer)
    tok.add_special_tokens(list(SPECIAL))
    return tok


def word_vectors(tok: Tokenizer, width: int, seed: int = 11, scale: float = 0.5) -> np.ndarray:
    """Return initial text embeddings (vocabulary, width), nearly equal for forms of one word."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, scale, (tok.get_vocab_size(), width)).astype(np.float32)
    base = concept_vectors(width, seed, scale)
    for word, vector in base.items():
        for form in (word, word.capitalize(), word.upper()):
            for text in (form, " " + form):
                ids = tok.encode(text, add_special_tokens=False).ids
                if len(ids) == 1:
                    table[ids[0]] = vector + 0.1 * table[ids[0]]
    return table


def concept_vectors(width: int, seed: int = 11, scale: float = 0.5) -> dict[str, np.ndarray]:
    """Return one vector per word; both towers learn to output them, the decoder to read them."""
    rng = np.random.default_rng([seed, 1])
    names = [w for w in [*all_words(), *DIGITS] if w not in SAME]
    out = {w: rng.normal(0, scale, width).astype(np.float32) for w in names}
    out.update({w: out[of] for w, of in SAME.items()})
    return out


def save_tokenizer(tok: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json (the other tokenizer files are written by `export`)."""
    tok.save(str(folder / "tokenizer.json"))

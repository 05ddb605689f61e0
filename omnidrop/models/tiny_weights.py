"""Parts of tiny checkpoints that families share: tokenizer, random weights, shards.

The tokenizer is a real byte-level BPE, and the weights are scaled so that greedy answers do not
repeat one token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

CORPUS = (
    "You are a helpful assistant. system user assistant",
    "What instrument plays first? Who is on screen then? What is heard when the red square moves?",
    "the a of and to in is you that it he was for on are as with his they I at be this have from",
)


@dataclass(frozen=True)
class TinyTokenizer:
    """A byte-level BPE of a few hundred tokens.

    Parameters
    ----------
    tokens : tuple of str
        Added tokens, in the order of their ids, which follow the byte-level vocabulary.
    kind : str
        Tokenizer class of transformers.
    pattern : str
        How that class splits text before merging.
    plain : tuple of str
        Those of `tokens` that are part of an answer's text.
    """

    tokens: tuple[str, ...]
    kind: str
    pattern: str
    plain: tuple[str, ...] = ()

    def ids(self) -> dict[str, int]:
        """Ids of the added tokens."""
        base = _vocabulary(self.pattern)
        return {token: base + i for i, token in enumerate(self.tokens)}

    def write(self, folder: Path) -> None:
        """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json."""
        from tokenizers import AddedToken

        tokenizer = _bpe(self.pattern)
        tokenizer.model.save(str(folder))
        for token in self.tokens:
            if token in self.plain:
                tokenizer.add_tokens([AddedToken(token, normalized=False)])
            else:
                tokenizer.add_special_tokens([AddedToken(token, special=True)])
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": self.kind,
            "added_tokens_decoder": {
                str(i): {
                    "content": token,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": token not in self.plain,
                }
                for token, i in self.ids().items()
            },
            "additional_special_tokens": [t for t in self.tokens[1:] if t not in self.plain],
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "model_max_length": 32768,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))

    def write_generation_config(self, folder: Path) -> None:
        """Write generation_config.json: an answer ends with its turn or with its text."""
        ids = self.ids()
        eos = [ids["<|im_end|>"], ids["<|endoftext|>"]]
        (folder / "generation_config.json").write_text(
            json.dumps({"eos_token_id": eos, "pad_token_id": eos[-1]})
        )


@cache
def _vocabulary(pattern: str) -> int:
    return int(_bpe(pattern).get_vocab_size(with_added_tokens=False))


def _bpe(pattern: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def randomise(model: Any, seed: int) -> None:
    """Give a model random weights whose answers do not repeat one token."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                # Larger query and key weights make attention select tokens instead of averaging.
                fan_in = weight[0].numel() if "embed_tokens" not in name else 1
                if ".experts." in name:  # (experts, out, in)
                    fan_in = weight.shape[-1]
                gain = 2.0 if ".q" in name or ".k" in name else 1.0
                weight.copy_(noise * gain * fan_in**-0.5)
            elif name.endswith("bias"):
                weight.copy_(0.1 * noise)
            else:
                weight.copy_(1.0 + 0.1 * noise)


def write_shards(folder: Path, state: Mapping[str, torch.Tensor], shards: int) -> None:
    """Write weights into so many safetensors files, with an index."""
    from safetensors.torch import save_file

    weight_map = {}
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    for i, key in enumerate(sorted(state)):
        parts[i * shards // len(state)][key] = state[key]
    for i, part in enumerate(parts, 1):
        file = f"model-{i:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    size = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

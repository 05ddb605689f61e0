"""Shared by the benchmarks: models with random weights, random inputs, interleaved runs, tables."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from omnidrop.engine.encode import Encoded, Features
from omnidrop.models.loading import quick_bfloat16
from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter
from omnidrop.models.qwen2_5_omni.tiny import thinker_config, write_tokenizer
from omnidrop.tokens import Media

ROOT = Path(__file__).resolve().parents[1]


def random_thinker(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    vision: tuple[int, int, int] = (3, 32, 64),
    vocab: int | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Any:
    """Return transformers' thinker with random weights; each attention head is 64 wide.

    Parameters
    ----------
    layers, hidden, heads, kv_heads, intermediate : int
        Sizes of the decoder.
    vision : tuple of int
        Layers, width and MLP width of the vision encoder.
    vocab : int, optional
        Size of the vocabulary. Default: the tokenizer's.
    dtype : torch.dtype, optional
        Default: what loading picks for a published checkpoint: bfloat16, or float32 on a CPU
        without bfloat16 arithmetic.
    device : str
    seed : int
        Seed of the random weights.
    """
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    if dtype is None:
        quick = device != "cpu" or quick_bfloat16()
        dtype = torch.bfloat16 if quick else torch.float32
    config = thinker_config(layers=layers, hidden=hidden, dtype=str(dtype).removeprefix("torch."))
    text = config["text_config"]
    text |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 64}
    text |= {"intermediate_size": intermediate, "max_position_embeddings": 131072}
    text["rope_scaling"] = text["rope_scaling"] | {"mrope_section": [8, 12, 12]}
    text["vocab_size"] = vocab or text["vocab_size"]
    depth, width, mlp = vision
    config["vision_config"] |= {"depth": depth, "hidden_size": width, "intermediate_size": mlp}
    torch.manual_seed(seed)
    with torch.device(device):
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            Qwen2_5OmniThinkerConfig.from_dict(config), dtype=dtype
        )
        with torch.no_grad():
            for weight in model.parameters():  # the default init gives near-equal outputs
                if weight.ndim > 1:
                    weight.normal_(std=weight[0].numel() ** -0.5)
    return model.eval()


def adapter_of(thinker: Any, name: str = "random") -> QwenOmniAdapter:
    """Return an adapter around a thinker, with the tokenizer of the tests."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        return QwenOmniAdapter(thinker, AutoTokenizer.from_pretrained(folder), name=name)


def made_features(tokens: int, *, side: int = 8, seed: int = 0) -> Features:
    """Return random patches and a random log-mel for about `tokens` AV tokens.

    About five of six tokens are video, the others audio.

    Parameters
    ----------
    tokens : int
    side : int
        Height and width of a temporal grid, in tokens.
    seed : int
    """
    grid = max(1, round(tokens * 5 / 6 / side**2)), 2 * side, 2 * side
    generator = torch.Generator().manual_seed(seed)
    audio = tokens - grid[0] * side**2
    return Features(
        patches=torch.randn(grid[0] * grid[1] * grid[2], 1176, generator=generator),
        grid=grid,
        second_per_grid=audio / 25 / grid[0],
        mel=torch.randn(128, 4 * audio, generator=generator),
    )


def made_embeddings(tokens: int, adapter: QwenOmniAdapter, *, side: int = 8) -> Encoded:
    """Return random embeddings of `tokens` AV tokens, in place of the encoders' output."""
    grids = max(1, round(tokens * 5 / 6 / side**2))
    video, width = grids * side**2, adapter.info.text.hidden
    generator = torch.Generator().manual_seed(0)

    def states(n: int) -> torch.Tensor:
        return torch.randn(n, width, generator=generator).to(adapter.device, adapter.dtype)

    audio = tokens - video
    return Encoded(
        media=Media((grids, 2 * side, 2 * side), audio / 25 / grids, audio),
        planes=(states(video),),
        audio=states(audio),
        audio_attention=torch.rand(audio, generator=generator),
    )


def in_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Run all functions in turn, `repeats` rounds; return the results of each."""
    given: dict[str, list[Any]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            given[name].append(run())
    return given


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with its first column aligned left, the others right."""
    cells = [list(head), *([_word(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


def _word(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def finish(result: dict[str, Any]) -> None:
    """Print the result as one JSON line, with the thread count and torch's version."""
    print(json.dumps(result | {"threads": torch.get_num_threads(), "torch": torch.__version__}))

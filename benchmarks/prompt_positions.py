"""Seconds to build ids, token map and M-RoPE positions of long prompts, against transformers.

Both must give the same positions; this is checked first. Medians of runs in turns.

    python benchmarks/prompt_positions.py [--seconds 10 60] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.prompt import build_prompt
from omnidrop.tokens import Media


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grid", type=int, nargs=2, default=[40, 72], help="patches of a frame")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from omnidrop.models.qwen2_5_omni.tiny import tiny_thinker

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny_thinker(Path(scratch))
        adapter = load_adapter(LoadOptions(model=str(folder), device="cpu", offline=True))
        theirs = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder)
        theirs = theirs if hasattr(theirs, "get_rope_index") else theirs.model
        for seconds in options.seconds:
            media = Media((int(seconds), *options.grid), 1.0, int(seconds * 25))
            mel = torch.tensor([int(seconds * 100)])

            def own(media: Media = media) -> torch.Tensor:
                return build_prompt(adapter.text, adapter.template, "What plays?", media).positions

            ids = build_prompt(adapter.text, adapter.template, "What plays?", media).ids[None]

            def reference(
                ids: torch.Tensor = ids, mel: torch.Tensor = mel, media: Media = media
            ) -> torch.Tensor:
                return theirs.get_rope_index(
                    ids,
                    video_grid_thw=torch.tensor([media.grid]),
                    attention_mask=torch.ones_like(ids),
                    use_audio_in_video=True,
                    audio_seqlens=mel,
                    second_per_grids=torch.tensor([1.0]),
                )[0][:, 0]

            assert torch.equal(own(), reference()), "positions differ"
            times: dict[str, list[float]] = {"own": [], "reference": []}
            for _ in range(options.repeats):
                for name, run in (("own", own), ("reference", reference)):
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
            median = {name: statistics.median(values) for name, values in times.items()}
            rows.append({"tokens": ids.shape[1], **median})
    print(f"{'tokens':>8} {'own ms':>8} {'reference ms':>13} {'ratio':>6}")
    for row in rows:
        own_ms, ref_ms = row["own"] * 1e3, row["reference"] * 1e3
        print(f"{row['tokens']:>8} {own_ms:>8.1f} {ref_ms:>13.1f} {ref_ms / own_ms:>6.1f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

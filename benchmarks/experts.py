"""Time and memory of Qwen3-Omni-30B-A3B's shape with experts in 4 bits, random weights, on one GPU.

python benchmarks/experts.py --out results             # the published shape, about 20 GB
python benchmarks/experts.py --tiny --device cpu       # tries the script itself

Nothing is read or downloaded: the experts' codes are random, everything else is drawn. Answers mean
nothing, times and memory are those of the shape. Each method answers a question about ready
features once to warm up and `--rounds` times for the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoTokenizer
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
    Qwen3OmniMoeThinkerConfig,
)

import omnidrop
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.models.experts import SmallExperts, with_small_experts
from omnidrop.models.qwen3_omni import tiny
from omnidrop.models.qwen3_omni.adapter import BLOCK, THINKER, Qwen3OmniAdapter
from omnidrop.options import GenerateOptions

#: Method and budget of each run.
RUNS = (("none", 1.0), ("omnidrop", 0.3), ("omnidrop", 0.2), ("seats", 0.25))

#: Root mean square of NF4's values where every code is as frequent.
SPREAD = 0.55

#: Patches of a frame, (height, width): 720 tokens, as of 1280 × 720 at the published limits.
FRAME = (40, 72)


def published() -> dict[str, Any]:
    """Return the published sizes, with the tiny tokenizer's ids."""
    config = tiny.thinker_config(layers=48, hidden=2048, experts=128, dtype="bfloat16")
    config["text_config"] |= {
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 768,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "vocab_size": 152_064,
    }
    config["text_config"]["rope_scaling"]["mrope_section"] = [24, 20, 20]
    config["vision_config"] |= {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    }
    config["audio_config"] |= {
        "d_model": 1280,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "encoder_layers": 32,
        "num_hidden_layers": 32,
        "downsample_hidden_size": 480,
    }
    return config


def build(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """Return a thinker with random weights, its decoder in 4 bits; never held in 16 bits."""
    parsed = Qwen3OmniMoeThinkerConfig.from_dict(config)
    parsed._attn_implementation = "sdpa"
    kind = with_small_experts(THINKER, BLOCK, "4bit")
    with init_empty_weights(include_buffers=False):
        thinker = kind(parsed)
    torch.manual_seed(0)
    for module in thinker.modules():
        for name, weight in list(module._parameters.items()):
            if weight is None:
                continue
            drawn = torch.empty(weight.shape, device=device, dtype=dtype)
            if weight.ndim > 1:
                drawn.normal_(std=weight[0].numel() ** -0.5)
            else:
                drawn.fill_(0.0 if name == "bias" else 1.0)
            module._parameters[name] = nn.Parameter(drawn, requires_grad=False)
        for name, held in list(module._buffers.items()):
            if held is not None:
                module._buffers[name] = held.to(device)
    text = getattr(thinker.model, "language_model", thinker.model)
    for layer in text.layers:
        attention = layer.self_attn
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(attention, name, in_4_bits(getattr(attention, name), device, dtype))
    for module in thinker.modules():
        if isinstance(module, SmallExperts):
            module.allocate(device, dtype)
            for packed in (module.gate_up, module.down):
                packed.codes.random_(0, 256)
                packed.scales.fill_(packed.columns**-0.5 / SPREAD)
    thinker.generation_config.eos_token_id = None
    return thinker.eval()


def in_4_bits(linear: nn.Linear, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a linear layer as `--4bit` loads it."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    small = Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=dtype, quant_type="nf4"
    )
    small.weight = Params4bit(
        linear.weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(device)
    return small


def features(seconds: int, frame: tuple[int, int]) -> Features:
    """Return random patches and log-mel of a clip at 2 frames a second."""
    generator = torch.Generator().manual_seed(1)
    return Features(
        patches=torch.randn(seconds * frame[0] * frame[1], 3 * 2 * 16 * 16, generator=generator),
        grid=(seconds, *frame),
        second_per_grid=1.0,
        mel=torch.randn(128, 100 * seconds, generator=generator),
    )


def run(model: Model, clip: Features, name: str, budget: float, options: argparse.Namespace) -> Any:
    """Measure one method; return a row of the table."""
    settings = {} if name == "none" else {"budget": budget}
    method = omnidrop.get_method(name, **settings)
    generate = GenerateOptions(max_new_tokens=options.tokens)
    traces = []
    for number in range(1 + options.rounds):
        with model.features(clip) as session:
            answer = session.ask("What happens?", method=method, options=generate, reuse=False)
        if number:
            traces.append(answer.trace)
    last = traces[-1]

    def seconds(stage: str) -> float:
        return statistics.median(
            sum(part.seconds for part in trace.stages if part.name == stage) for trace in traces
        )

    return {
        "method": name,
        "budget": budget,
        "tokens": last.av_tokens,
        "ttft": statistics.median(trace.ttft for trace in traces),
        "stages": {part.name: seconds(part.name) for part in last.stages},
        "tokens_per_second": statistics.median(t.tokens_per_second or 0.0 for t in traces),
        "decode_loop": last.decode_loop,
        "device_peak": last.memory.device,
        "kv_cache": last.memory.kv_cache,
    }


def main() -> None:
    """Build, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 60])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=33)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    began = time.perf_counter()
    config = tiny.thinker_config() if options.tiny else published()
    dtype = torch.float32 if options.tiny else torch.bfloat16
    thinker = build(config, device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_tokenizer(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    adapter = Qwen3OmniAdapter(thinker, tokenizer, name="random", quantization="4bit")
    adapter.stop_ids = frozenset()
    model, rows = Model(adapter), []
    print(f"built in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    for length in options.seconds:
        clip = features(length, (4, 6) if options.tiny else FRAME)
        for name, budget in RUNS:
            row = {"seconds": length, **run(model, clip, name, budget, options)}
            rows.append(row)
            peak = (row["device_peak"] or 0) / 1e9
            print(
                f"{length:4} s  {name:>9} {budget:4.2f}  {row['tokens']:6} tokens  "
                f"TTFT {row['ttft']:7.3f} s  {row['tokens_per_second']:6.1f} tokens/s  "
                f"peak {peak:5.1f} GB  KV {row['kv_cache'] / 1e9:5.2f} GB  {row['decode_loop']}",
                flush=True,
            )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        document = {"device": name, "torch": torch.__version__, "rows": rows}
        (options.out / "experts.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

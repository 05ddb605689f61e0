"""Counters of the server in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping

#: Upper ends of the histograms' buckets, in seconds.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_HELP = {
    "requests_total": "Requests by route and status.",
    "cancelled_total": "Questions whose client left before the answer.",
    "timeouts_total": "Questions that ran out of time.",
    "rejected_total": "Questions that found the queue full.",
    "answers_total": "Questions answered.",
    "prompt_tokens_total": "Tokens of prompts before pruning.",
    "kept_tokens_total": "Of these, tokens kept, mean over the layers.",
    "generated_tokens_total": "Tokens generated.",
    "ttft_seconds": "From the start of the work on a question to its first token.",
    "request_seconds": "From a question's arrival to the end of its answer.",
    "queue_waiting": "Questions that wait.",
    "queue_running": "Whether a question is being answered.",
    "model_loaded": "Whether the model is loaded.",
    "encodings_bytes": "Bytes of encoded clips and prefixes that are kept.",
    "encodings": "Clips that are kept open.",
    "encoding_hits_total": "Questions about a clip that was kept.",
    "encoding_misses_total": "Questions about a clip that was not.",
    "uploads_bytes": "Bytes of uploaded clips.",
    "memory_bytes": "Resident memory of the process.",
}

#: Counters that are there before anything was counted.
_FROM_ZERO = (
    *("answers_total", "cancelled_total", "timeouts_total", "rejected_total"),
    *("prompt_tokens_total", "kept_tokens_total", "generated_tokens_total"),
)


class Metrics:
    """Counts what happens; may be called from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._times: dict[str, tuple[list[int], float]] = {}
        for name in _HELP:
            if (
                name.endswith("_total")
                and name not in ("requests_total",)
                and "encoding" not in name
            ):
                self._counters[name, ()] = 0.0

    def count(self, name: str, by: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        key = name, tuple(sorted(labels.items()))
        with self._guard:
            self._counters[key] = self._counters.get(key, 0.0) + by

    def time(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        with self._guard:
            counts, total = self._times.get(name, ([0] * (len(BUCKETS) + 1), 0.0))
            counts[bisect_left(BUCKETS, seconds)] += 1
            self._times[name] = counts, total + seconds

    def value(self, name: str, **labels: str) -> float:
        """Return a counter."""
        with self._guard:
            return self._counters.get((name, tuple(sorted(labels.items()))), 0.0)

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return everything; `gauges` are values of this moment, by name."""
        with self._guard:
            counters, times = dict(self._counters), dict(self._times)
        lines: list[str] = []
        last = ""
        for (name, labels), value in sorted(counters.items()):
            if name != last:
                lines += _head(name, "counter")
                last = name
            lines.append(f"omnidrop_{name}{_labels(labels)} {value:.16g}")
        for name, (counts, total) in sorted(times.items()):
            lines += _head(name, "histogram")
            below = 0
            for end, count in zip((*BUCKETS, float("inf")), counts, strict=True):
                below += count
                edge = "+Inf" if end == float("inf") else f"{end:g}"
                lines.append(f'omnidrop_{name}_bucket{{le="{edge}"}} {below}')
            lines += [f"omnidrop_{name}_sum {total:g}", f"omnidrop_{name}_count {below}"]
        for name, value in gauges.items():
            lines += _head(name, "counter" if name.endswith("_total") else "gauge")
            lines.append(f"omnidrop_{name} {value:.16g}")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP omnidrop_{name} {_HELP[name]}", f"# TYPE omnidrop_{name} {kind}"]


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    quoted = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(quoted) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

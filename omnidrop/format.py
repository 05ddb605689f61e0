"""Formats numbers as text: times, durations, bytes, FLOPs, shares; for all packages."""

from __future__ import annotations

import math


def clock(seconds: float, tenths: bool | None = False) -> str:
    """Return `1:05`, `1:02:05`, or `0:01.5` with tenths; None shows tenths that are not 0."""
    if tenths is None:
        tenths = round(max(seconds, 0.0) * 10) % 10 != 0
    units = round(max(seconds, 0.0) * 10) if tenths else round(max(seconds, 0.0)) * 10
    whole, tenth = divmod(units, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
    return f"{text}.{tenth}" if tenths else text


def span(start: float, end: float) -> str:
    """Return `0:24–0:30`, with tenths for short spans that do not lie on whole seconds."""
    tenths = end - start < 10 and any(abs(t - round(t)) > 0.05 for t in (start, end))
    return f"{clock(start, tenths)}–{clock(end, tenths)}"


def share(value: float | None, digits: int = 1) -> str:
    """Return `30.1 %`; a dash for None."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f} %"


def percent(value: float) -> str:
    """Return a probability in whole percent, `92 %`; `over 99 %` and `under 1 %` at the ends."""
    if value >= 0.995:
        return "over 99 %"
    return "under 1 %" if value < 0.005 else share(value, 0)


def little(value: float) -> str:
    """Return a share that may be tiny: `12 %`, `0.003 %`, `under 0.00001 %`."""
    if 0 < value < 0.01:
        digits = f"{float(f'{100 * value:.1g}'):.5f}".rstrip("0")
        return f"{digits} %" if value >= 1e-7 else "under 0.00001 %"
    return share(value, 0)


def certainty(probability: float) -> str:
    """Return how sure an answer of this probability is, in a word and in percent."""
    bounds = ((0.9, "very"), (0.7, "fairly"), (0.5, "not very"))
    word = next((word for least, word in bounds if probability >= least), "hardly")
    text = percent(probability)
    return f"{word}, {text}" if text[0] in "ou" else f"{word}, about {text}"


def duration(seconds: float) -> str:
    """Return `12 ms`, `1.24 s`, `2 min 03 s`, `1 h 02 min` or `3 days 4 h`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 0.0995:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.00995 else f"{1000 * seconds:.0f} ms"
    if seconds < 119.5:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minute = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minute:02d} min"
    days, hour = divmod(round(seconds / 3600), 24)
    return f"{days:,} days {hour} h"


def rounded_duration(seconds: float) -> str:
    """Return `1.9 s` or `350 ms`: at most three digits, no trailing zeros."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{float(f'{seconds:.3g}'):g} s"


def rounded_size(count: float) -> str:
    """Return bytes as `12 GB` or `812 MB`: at most three digits, no trailing zeros."""
    unit, name = (1e9, "GB") if count >= 999.5e6 else (1e6, "MB")
    return f"{float(f'{count / unit:.3g}'):g} {name}"


def _scaled(value: float, step: float, units: tuple[str, ...]) -> str:
    place = 0
    while abs(value) >= 999.5 and place < len(units) - 1:
        value /= step
        place += 1
    unit = units[place]
    digits = 0 if unit == units[0] or abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:.{digits}f} {unit}"


def size(count: float | None) -> str:
    """Return bytes as `1.24 GB` (powers of 1000); a dash for None."""
    return "–" if count is None else _scaled(count, 1000.0, ("B", "kB", "MB", "GB", "TB"))


def flops(count: float | None) -> str:
    """Return floating-point operations as `3.96 TFLOP`."""
    if count is None:
        return "–"
    return _scaled(count, 1000.0, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def number(value: float) -> str:
    """Return `12,345`."""
    return f"{value:,.0f}"


def parameters(count: float | None) -> str:
    """Return `7.6 B parameters`."""
    if not count:
        return ""
    return f"{_scaled(count, 1000.0, ('', 'K', 'M', 'B', 'T')).strip()} parameters"


def setting(value: object) -> str:
    """Return the value of a setting as text: yes, no, – for None, long lists shortened."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {setting(v)}" for k, v in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        if len(value) > 12:
            return f"{', '.join(setting(v) for v in value[:10])}, … ({len(value)})"
        return ", ".join(setting(v) for v in value) or "–"
    return str(value)

"""Numbers as text: clock times, durations, bytes."""

from __future__ import annotations


def rounded_duration(seconds: float) -> str:
    """Return `1.9 s` or `350 ms`: three digits at most, no zeros at the end."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{float(f'{seconds:.3g}'):g} s"


def rounded_size(count: float) -> str:
    """Return bytes as `12 GB` or `812 MB`: three digits at most, no zeros at the end."""
    unit, name = (1e9, "GB") if count >= 999.5e6 else (1e6, "MB")
    return f"{float(f'{count / unit:.3g}'):g} {name}"

"""Published benchmarks, read from local copies laid out as their publishers do."""

"""Question sets, scoring, and the paired comparison of methods."""

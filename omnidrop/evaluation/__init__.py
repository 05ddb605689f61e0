"""Accuracy: question sets, scoring, and the paired comparison of methods.

`benchmarks` reads published question sets; `calibrate` searches for a method's settings. The
scripts that measure speed and memory are in the repository's own folder `benchmarks/`.
"""

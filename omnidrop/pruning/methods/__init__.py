"""Pruning methods: one method, one file, and nothing else."""

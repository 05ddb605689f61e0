"""Pruning methods: pure functions on tensors, one method a file."""

"""Runs a model under a method: towers, layer loop, token loop, session."""

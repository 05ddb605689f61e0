"""Runs a model under a method.

`session` is what a caller holds; `encode` runs the encoders, `prefill` the layer loop, `decode` the
token loop. `prefix` reuses a clip's keys and values for the next question, `layer_view` is what a
method sees of a layer, `timing` measures, `trace_builder` writes the record of the answer.
"""

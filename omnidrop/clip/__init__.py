"""A media file in, tensors out. Knows PyAV; knows no model beyond a sampling contract."""

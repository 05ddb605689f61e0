"""A second question set, made by code that shares nothing with AVSynth but the names of things.

The events (`scenes`), the picture (`pixels`), the instruments (`tones`), the wordings and answers
(`asking`) and the files (`../make_second.py`) are written apart from `avsynth`, so that a result on
AVSynth can be tried on clips of another origin. Nothing here imports `avsynth` or torch.
"""

"""AVSynth: small synthetic clips with audio and video, and questions with known answers.

Everything is drawn from a seed: the events (`world`), the pixels (`picture`), the audio samples
(`sound`), the questions (`questions`) and the files (`media`). Nothing here imports torch.
"""

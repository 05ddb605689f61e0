"""AVSynth: small synthetic clips with audio and video, and questions with known answers.

Everything is drawn from a seed: the events (`world`, `wide`), the pixels (`picture`), the audio
samples (`sound`, `speech`), the questions (`questions`) and the files (`media`). Nothing here
imports torch.
"""

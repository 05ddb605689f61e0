"""AVSynth: small made-up clips with sound and picture, and questions with right answers.

Everything is drawn from a seed: what happens when (`world`), the pixels (`picture`), the
samples (`sound`), the questions (`questions`) and the files (`media`). Nothing here imports torch.
"""

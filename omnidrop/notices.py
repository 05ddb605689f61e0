"""How notices begin that are recognised where answers are shown: those that a line repeats."""

from __future__ import annotations

#: Of the demo model, whatever the question and the clip.
DEMO = "This is the demo model"
#: Where the choices together are too improbable for one to be right.
UNFITTING = "None of the choices fits"
#: What leaving parts of the clip out showed, which `Answer.left_out` holds.
PROVEN = "Evidence: "
#: Of the clip: what `Trace.used` says.
NO_AUDIO = "The clip has no audio."
NO_VIDEO = "The clip has no video."

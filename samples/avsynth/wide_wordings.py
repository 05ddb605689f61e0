"""Wordings of the questions that only wide clips are asked: for training, and for the test.

Apart from `wordings`, since the demo model's vocabulary is the set of words there.
"""

from __future__ import annotations

WIDE_SEEN: dict[str, tuple[str, ...]] = {
    "s_starts_during": (
        "which instrument starts while the {x} is still playing",
        "which instrument joins the {x}",
    ),
    "s_with": (
        "do the {x} and the {y} play at the same time",
        "are the {x} and the {y} ever heard together",
    ),
    "s_between": (
        "which instrument starts between the {x} and the {y}",
        "after the {x} starts and before the {y} does, what starts",
    ),
    "s_longer": ("which plays longer, the {x} or the {y}", "is the {x} or the {y} heard longer"),
    "s_list": (
        "list the instruments in the order in which they start",
        "tell me which instruments play, in order",
    ),
    "p_starts_during": (
        "which shape appears while the {x} is still on screen",
        "which shape joins the {x}",
    ),
    "p_with": (
        "are the {x} and the {y} on screen at the same time",
        "do you ever see the {x} and the {y} together",
    ),
    "p_between": (
        "which shape appears between the {x} and the {y}",
        "after the {x} appears and before the {y} does, what appears",
    ),
    "p_longer": ("which is shown longer, the {x} or the {y}", "is the {x} or the {y} seen longer"),
    "p_list": (
        "list the shapes in the order in which they appear",
        "tell me which shapes appear, in order",
    ),
    "p_describe": ("describe the {x}", "tell me what the {x} looks like"),
    "p_word": ("which word is on screen", "what does the text say", "read the word"),
    "p_word_first": ("which word is on screen first", "what is the first word shown"),
    "p_word_last": ("which word is on screen last", "what is the last word shown"),
    "p_shape_at_word": (
        "which shape is shown together with the word {x}",
        "what shape do you see while the text says {x}",
    ),
    "b_sound_at_word": (
        "which instrument plays while the word {x} is on screen",
        "what do you hear while the text says {x}",
    ),
    "b_word_with": (
        "which word is shown while the {x} plays",
        "what does the text say while you hear the {x}",
    ),
    "b_describe": (
        "describe what is shown while the {x} plays",
        "tell me what you see while you hear the {x}",
    ),
    "b_two": (
        "which shapes are shown while the {x} and while the {y} play, in this order",
        "name the shape during the {x}, then the shape during the {y}",
    ),
}

WIDE_UNSEEN: dict[str, tuple[str, ...]] = {
    "s_starts_during": ("what sets in while the {x} goes on",),
    "s_with": ("does the {x} overlap with the {y}",),
    "s_between": ("what is the instrument that sets in between the {x} and the {y}",),
    "s_longer": ("of the {x} and the {y}, which lasts longer",),
    "s_list": ("what is played, from first to last",),
    "p_starts_during": ("what shows up while the {x} stays",),
    "p_with": ("does the {x} share the screen with the {y}",),
    "p_between": ("what is the shape that shows up between the {x} and the {y}",),
    "p_longer": ("of the {x} and the {y}, which stays longer",),
    "p_list": ("what is drawn, from first to last",),
    "p_describe": ("what kind of {x} is it",),
    "p_word": ("what is written there",),
    "p_word_first": ("what is written at first",),
    "p_word_last": ("what is written at the end",),
    "p_shape_at_word": ("what is drawn while {x} is written on screen",),
    "b_sound_at_word": ("what is played while {x} is written on screen",),
    "b_word_with": ("what is written during the {x}",),
    "b_describe": ("what is there to see during the {x}",),
    "b_two": ("what is drawn during the {x}, and what during the {y}",),
}

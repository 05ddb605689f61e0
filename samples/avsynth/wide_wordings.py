"""Wordings of the questions that only wide clips are asked: for training, and for the test.

Those about spoken words say "said" or "hear", and never "the text says", which is on screen.
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

SPOKEN_SEEN: dict[str, tuple[str, ...]] = {
    "s_said": ("which word is said", "what word do you hear", "which word does the voice say"),
    "s_said_first": ("which word is said first", "what is the first word that you hear"),
    "s_said_last": ("which word is said last", "what is the last word that you hear"),
    "s_said_after": (
        "which word is said right after {x}",
        "what is the next word that you hear after {x}",
    ),
    "s_said_count": ("how many words are said", "how many words do you hear"),
    "s_said_is": ("is the word {x} said", "do you hear the word {x}"),
    "s_said_with": (
        "which word is said while the {x} plays",
        "what word do you hear during the {x}",
    ),
    "s_sound_at_said": (
        "which instrument plays while the word {x} is said",
        "what plays while a voice says {x}",
    ),
    "s_voice": (
        "is the word {x} said by a low or by a high voice",
        "is the voice that says {x} low or high",
    ),
    "s_said_by": ("which word does the {x} voice say", "what word do you hear in a {x} voice"),
    "b_said_with": (
        "which word is said while the {x} is on screen",
        "what word do you hear while you see the {x}",
    ),
    "b_shape_at_said": (
        "which shape is on screen while the word {x} is said",
        "what shape do you see while you hear the word {x}",
    ),
    "b_said_shown": (
        "is a word said that is also on screen",
        "do you hear a word that you can also read",
    ),
}

SPOKEN_UNSEEN: dict[str, tuple[str, ...]] = {
    "s_said": ("what is spoken",),
    "s_said_first": ("what is spoken at first",),
    "s_said_last": ("what is spoken at the end",),
    "s_said_after": ("what is spoken next after {x}",),
    "s_said_count": ("what is the number of spoken words",),
    "s_said_is": ("does anyone speak the word {x}",),
    "s_said_with": ("what is spoken over the {x}",),
    "s_sound_at_said": ("what is played while {x} is spoken",),
    "s_voice": ("which kind of voice speaks {x}, low or high",),
    "s_said_by": ("what is spoken with the {x} voice",),
    "b_said_with": ("what is spoken while the {x} is drawn",),
    "b_shape_at_said": ("what is drawn while {x} is spoken",),
    "b_said_shown": ("does anyone speak what is written",),
}

"""The wordings of each kind of question: those used in training, and those kept for the test.

{x} and {y} stand for names of instruments, shapes or colours, depending on the kind.
`questions.word` adds question marks, capitals and choices.
"""

from __future__ import annotations

import re

SEEN: dict[str, tuple[str, ...]] = {
    "s_first": (
        "what instrument plays first",
        "which instrument plays first",
        "which instrument comes first",
        "what is the first instrument",
        "which instrument do you hear first",
        "name the first instrument",
    ),
    "s_last": (
        "what instrument plays last",
        "which instrument comes last",
        "what is the last instrument",
        "which instrument do you hear last",
        "name the last instrument",
    ),
    "s_second": (
        "what instrument plays second",
        "which instrument comes second",
        "what is the second instrument",
        "which instrument do you hear second",
    ),
    "s_third": (
        "what instrument plays third",
        "which instrument comes third",
        "what is the third instrument",
        "which instrument do you hear third",
    ),
    "s_after": (
        "which instrument plays after the {x}",
        "what instrument comes right after the {x}",
        "what do you hear after the {x}",
        "which instrument follows the {x}",
    ),
    "s_before": (
        "which instrument plays before the {x}",
        "what instrument comes right before the {x}",
        "what do you hear before the {x}",
        "which instrument is followed by the {x}",
    ),
    "s_order": (
        "does the {x} play before the {y}",
        "does the {x} come before the {y}",
        "do you hear the {x} before the {y}",
        "is the {x} before the {y}",
    ),
    "s_count": (
        "how many instruments play",
        "how many instruments do you hear",
        "how many different instruments are there",
        "what is the number of instruments",
    ),
    "s_is": (
        "is there a {x}",
        "does a {x} play",
        "do you hear a {x}",
        "can you hear the {x}",
        "does the {x} play",
    ),
    "s_short": (
        "which instrument plays only one short note",
        "what instrument plays the short note",
        "which instrument plays very briefly",
        "what plays the single short note",
        "which instrument do you hear only briefly",
    ),
    "s_short_order": (
        "does the short note come before or after the {x}",
        "is the short note before or after the {x}",
        "do you hear the short note before or after the {x}",
    ),
    "s_silence": (
        "is there a silence",
        "is there a pause in the sound",
        "is there a short silence",
        "does the sound stop for a moment",
        "do you hear a pause",
    ),
    "s_after_silence": (
        "which instrument plays after the silence",
        "what plays after the pause",
        "what do you hear right after the silence",
        "which instrument comes after the pause",
    ),
    "s_before_silence": (
        "which instrument plays before the silence",
        "what plays before the pause",
        "what do you hear right before the silence",
        "which instrument comes before the pause",
    ),
    "p_first": (
        "what shape appears first",
        "which shape comes first",
        "what is the first shape",
        "which shape do you see first",
        "name the first shape",
    ),
    "p_last": (
        "what shape appears last",
        "which shape comes last",
        "what is the last shape",
        "which shape do you see last",
        "name the last shape",
    ),
    "p_second": (
        "what shape appears second",
        "which shape comes second",
        "what is the second shape",
        "which shape do you see second",
    ),
    "p_first_colour": (
        "what color is the first shape",
        "what colour is the first shape",
        "which color comes first",
        "what is the color of the first shape",
        "which color do you see first",
    ),
    "p_last_colour": (
        "what color is the last shape",
        "what colour is the last shape",
        "which color comes last",
        "what is the color of the last shape",
        "which color do you see last",
    ),
    "p_count": (
        "how many shapes appear",
        "how many shapes do you see",
        "how many shapes are there",
        "what is the number of shapes",
    ),
    "p_is": (
        "is there a {x}",
        "does a {x} appear",
        "do you see a {x}",
        "can you see the {x}",
        "is a {x} shown",
    ),
    "p_colour_of": (
        "what color is the {x}",
        "what colour is the {x}",
        "which color is the {x}",
        "what is the color of the {x}",
        "which color does the {x} have",
    ),
    "p_shape_of": (
        "which shape is {x}",
        "what shape is {x}",
        "what is the {x} shape",
        "which shape do you see in {x}",
    ),
    "p_after": (
        "which shape appears after the {x}",
        "what shape comes right after the {x}",
        "which shape do you see after the {x}",
        "which shape follows the {x}",
    ),
    "p_before": (
        "which shape appears before the {x}",
        "what shape comes right before the {x}",
        "which shape do you see before the {x}",
        "which shape is followed by the {x}",
    ),
    "p_order": (
        "does the {x} appear before the {y}",
        "does the {x} come before the {y}",
        "do you see the {x} before the {y}",
        "is the {x} before the {y}",
    ),
    "p_flash": (
        "is there a digit",
        "does a digit flash",
        "do you see a digit",
        "is a digit shown",
        "does a number flash in a corner",
    ),
    "p_digit": (
        "which digit flashes",
        "what digit appears",
        "which number flashes in the corner",
        "which digit do you see",
        "what number is shown",
        "what is the digit",
    ),
    "p_digit_colour": (
        "what color is the digit",
        "which color is the number",
        "what is the color of the digit",
        "what colour is the flashing digit",
        "which color does the digit have",
    ),
    "p_corner": (
        "in which corner does the digit flash",
        "which corner is the digit in",
        "where does the digit appear",
        "in which corner do you see the number",
        "where is the digit",
    ),
    "p_shape_at_flash": (
        "which shape is shown while the digit flashes",
        "what shape do you see when the digit flashes",
        "which shape is on screen while the number is shown",
        "which shape is there when the digit appears",
    ),
    "p_colour_at_flash": (
        "what color is the shape while the digit flashes",
        "what color is the shape on screen when the digit flashes",
        "which color is the shape when the digit appears",
        "what is the color of the shape while the number is shown",
    ),
    "p_flash_order": (
        "does the digit flash before or after the {x}",
        "is the digit shown before or after the {x}",
        "do you see the digit before or after the {x}",
    ),
    "b_shape_with": (
        "which shape is shown while the {x} plays",
        "what shape do you see while the {x} plays",
        "which shape is on screen during the {x}",
        "which shape appears together with the {x}",
    ),
    "b_colour_with": (
        "what color is the shape while the {x} plays",
        "what color do you see while the {x} plays",
        "which color is on screen during the {x}",
        "which color appears together with the {x}",
    ),
    "b_sound_with": (
        "which instrument plays while the {x} is shown",
        "what instrument do you hear while the {x} is shown",
        "what do you hear while the {x} is on screen",
        "which instrument plays together with the {x}",
    ),
    "b_together": (
        "does the {x} play while the {y} is shown",
        "do you hear the {x} while the {y} is on screen",
        "is the {y} shown while the {x} plays",
    ),
    "b_sound_at_flash": (
        "which instrument plays while the digit flashes",
        "what do you hear when the digit flashes",
        "what instrument plays when the number is shown",
        "which instrument sounds while the digit is on screen",
    ),
    "b_flash_order": (
        "does the digit flash before or after the {x} plays",
        "is the digit shown before or after the {x} plays",
        "do you see the digit before or after you hear the {x}",
    ),
    "b_shape_at_short": (
        "which shape is shown during the short note",
        "what shape do you see when the short note plays",
        "which shape is on screen at the short note",
        "which shape is there while the short note plays",
    ),
    "b_colour_at_short": (
        "what color is the shape during the short note",
        "what color is the shape when the short note plays",
        "which color is on screen at the short note",
        "which color do you see while the short note plays",
    ),
    "b_shape_at_silence": (
        "which shape is shown during the silence",
        "what shape do you see during the pause",
        "which shape is on screen when there is silence",
        "which shape is there during the silence",
    ),
    "b_colour_at_silence": (
        "what color is the shape during the silence",
        "what color do you see during the pause",
        "which color is on screen when there is silence",
        "what is the color of the shape during the silence",
    ),
}

UNSEEN: dict[str, tuple[str, ...]] = {
    "s_first": ("what do you hear first", "the first instrument is"),
    "s_last": ("what do you hear last", "the last instrument is"),
    "s_second": ("what do you hear second", "name the second instrument"),
    "s_third": ("what do you hear third", "name the third instrument"),
    "s_after": ("what plays right after the {x}", "name the instrument after the {x}"),
    "s_before": ("what plays right before the {x}", "name the instrument before the {x}"),
    "s_order": ("does the {x} sound before the {y}", "can you hear the {x} before the {y}"),
    "s_count": ("how many instruments are there", "how many different instruments do you hear"),
    "s_is": ("can you hear a {x}", "do you hear the {x}"),
    "s_short": ("name the instrument of the short note", "what do you hear only briefly"),
    "s_short_order": (
        "does the short note play before or after the {x}",
        "can you hear the short note before or after the {x}",
    ),
    "s_silence": ("do you hear a silence", "is there a short pause"),
    "s_after_silence": (
        "what instrument plays right after the pause",
        "name the instrument after the silence",
    ),
    "s_before_silence": (
        "what instrument plays right before the pause",
        "name the instrument before the silence",
    ),
    "p_first": ("what shape do you see first", "the first shape is"),
    "p_last": ("what shape do you see last", "the last shape is"),
    "p_second": ("what shape do you see second", "name the second shape"),
    "p_first_colour": ("name the color of the first shape", "which colour is the first shape"),
    "p_last_colour": ("name the color of the last shape", "which colour is the last shape"),
    "p_count": ("how many shapes are shown", "how many different shapes do you see"),
    "p_is": ("can you see a {x}", "do you see the {x}"),
    "p_colour_of": ("name the color of the {x}", "which colour does the {x} have"),
    "p_shape_of": ("name the {x} shape", "what shape do you see in {x}"),
    "p_after": ("what shape appears right after the {x}", "name the shape after the {x}"),
    "p_before": ("what shape appears right before the {x}", "name the shape before the {x}"),
    "p_order": ("is the {x} shown before the {y}", "can you see the {x} before the {y}"),
    "p_flash": ("can you see a digit", "does a digit appear in a corner"),
    "p_digit": ("name the digit", "what digit do you see in the corner"),
    "p_digit_colour": ("name the color of the number", "which colour is the digit"),
    "p_corner": ("where do you see the digit", "in which corner is the number shown"),
    "p_shape_at_flash": (
        "what shape is on screen when the digit flashes",
        "name the shape shown while the digit flashes",
    ),
    "p_colour_at_flash": (
        "which color is the shape while the digit is on screen",
        "name the color of the shape when the digit flashes",
    ),
    "p_flash_order": (
        "does the digit appear before or after the {x}",
        "is the number shown before or after the {x}",
    ),
    "b_shape_with": (
        "what shape is on screen while the {x} plays",
        "name the shape shown during the {x}",
    ),
    "b_colour_with": (
        "which color is shown while the {x} plays",
        "name the color of the shape during the {x}",
    ),
    "b_sound_with": (
        "what plays while the {x} is on screen",
        "name the instrument while the {x} is shown",
    ),
    "b_together": (
        "can you hear the {x} while the {y} is shown",
        "is the {y} on screen while the {x} plays",
    ),
    "b_sound_at_flash": (
        "what plays when the digit flashes",
        "name the instrument while the digit is shown",
    ),
    "b_flash_order": (
        "does the digit appear before or after the {x} plays",
        "is the number shown before or after the {x} plays",
    ),
    "b_shape_at_short": (
        "what shape is shown when the short note plays",
        "name the shape on screen during the short note",
    ),
    "b_colour_at_short": (
        "which color is the shape while the short note plays",
        "name the color shown during the short note",
    ),
    "b_shape_at_silence": (
        "what shape is shown during the pause",
        "name the shape on screen during the silence",
    ),
    "b_colour_at_silence": (
        "which color is the shape during the pause",
        "name the color shown during the silence",
    ),
}


def words() -> list[str]:
    """Return the set of words that occur in the wordings."""
    text = " ".join(form for forms in (*SEEN.values(), *UNSEEN.values()) for form in forms)
    return sorted(set(re.findall(r"[a-z]+", text.replace("{x}", "").replace("{y}", ""))))

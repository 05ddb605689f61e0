"""Capital letters of 5 x 7 dots, and how a word is drawn on a band of the frame."""

from __future__ import annotations

import numpy as np

from .world import Word

INK, BAND = (245, 245, 240), (12, 12, 16)
BAND_SHARE = 0.19
"""Height of a word's band as a share of the frame's height."""

_ROWS = {
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "B": "####. #...# #...# ####. #...# #...# ####.",
    "C": ".#### #.... #.... #.... #.... #.... .####",
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "F": "##### #.... #.... ####. #.... #.... #....",
    "G": ".#### #.... #.... #..## #...# #...# .####",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "I": "##### ..#.. ..#.. ..#.. ..#.. ..#.. #####",
    "J": "..### ...#. ...#. ...#. ...#. #..#. .##..",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "M": "#...# ##.## #.#.# #.#.# #...# #...# #...#",
    "N": "#...# ##..# #.#.# #.#.# #..## #...# #...#",
    "O": ".###. #...# #...# #...# #...# #...# .###.",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "Q": ".###. #...# #...# #...# #.#.# #..#. .##.#",
    "R": "####. #...# #...# ####. #.#.. #..#. #...#",
    "S": ".#### #.... #.... .###. ....# ....# ####.",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "U": "#...# #...# #...# #...# #...# #...# .###.",
    "V": "#...# #...# #...# #...# #...# .#.#. ..#..",
    "W": "#...# #...# #...# #.#.# #.#.# ##.## #...#",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "Y": "#...# #...# .#.#. ..#.. ..#.. ..#.. ..#..",
    "Z": "##### ....# ...#. ..#.. .#... #.... #####",
}
LETTERS = {
    letter: np.array([[dot == "#" for dot in row] for row in rows.split()])
    for letter, rows in _ROWS.items()
}


def dots(text: str) -> np.ndarray:
    """Return the dots of a word in capitals, bool (7, 6 n - 1), one empty column between letters.

    Raises
    ------
    KeyError
        If it holds anything but letters from a to z.
    """
    gap = np.zeros((7, 1), bool)
    columns = [part for letter in text.upper() for part in (LETTERS[letter], gap)]
    return np.concatenate(columns[:-1], axis=1)


def draw_word(frame: np.ndarray, word: Word) -> None:
    """Put a word on its dark band into the frame, (height, width, 3), as large as it fits.

    Raises
    ------
    ValueError
        If the word is too long for the frame.
    """
    height, width, _ = frame.shape
    tall = round(height * BAND_SHARE)
    glyphs = dots(word.text)
    scale = min((width - 4) // glyphs.shape[1], (tall - 2) // 7)
    if scale < 1:
        raise ValueError(f"{word.text!r} is too long for a frame of {width} pixels")
    image = glyphs.repeat(scale, 0).repeat(scale, 1)
    top = 0 if word.band == "top" else height - tall
    frame[top : top + tall] = BAND
    y, x = top + (tall - image.shape[0]) // 2, (width - image.shape[1]) // 2
    frame[y : y + image.shape[0], x : x + image.shape[1]][image] = INK

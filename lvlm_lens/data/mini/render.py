"""Pictures of the small world: one pure function from a specification to 64 x 64 pixels.

``render(thing, style, scale, angle, x, y, background, word)`` pastes the shipped art of a thing
on a drawn background, or draws a word in block letters, or both.  Equal arguments give equal
pixels; every number that varies is in the arguments, so an item of the data set *is* its
specification and no picture files are needed.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from .letters import CELL, word_mask
from .objects import THINGS

SIZE = 64
ART = Path(__file__).parent / "art"

Spec = tuple[str | None, str, int, int, int, int, int, str | None]
"""(thing, style, scale in pixels, angle in degrees, left, top, background seed, word)."""


@cache
def _art(thing: str, style: str) -> Image.Image:
    with Image.open(ART / style / f"{THINGS[thing].emoji}.png") as picture:
        return picture.convert("RGBA").convert("RGBa")  # premultiplied: no dark fringe when turned


def _colour(chance: random.Random, low: int, high: int) -> np.ndarray:
    return np.array([chance.randint(low, high) for _ in range(3)], dtype=np.float32)


def background_pixels(seed: int) -> np.ndarray:
    """A background drawn from a seed: float32 [64, 64, 3] in 0 .. 255."""
    chance = random.Random(seed)
    low, high = ((140, 255), (20, 120), (60, 220))[chance.choices((0, 1, 2), (5, 2, 3))[0]]
    first, second = _colour(chance, low, high), _colour(chance, low, high)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    kind = chance.randrange(5)
    period = chance.choice((8, 12, 16, 24))
    if kind == 0:  # plain
        mix = np.zeros((SIZE, SIZE), dtype=np.float32)
    elif kind == 1:  # a slope of colour
        across, down = chance.uniform(-1, 1), chance.uniform(-1, 1)
        mix = across * columns + down * rows
        mix = (mix - mix.min()) / max(float(np.ptp(mix)), 1e-3)
    elif kind == 2:  # stripes
        mix = (((columns * chance.choice((0, 1)) + rows * chance.choice((1, -1))) // period) % 2).astype(np.float32)
    elif kind == 3:  # squares
        mix = ((columns // period + rows // period) % 2).astype(np.float32)
    else:  # horizon
        mix = (rows > chance.randint(24, 56)).astype(np.float32)
    if kind in (2, 3):
        second = first + 0.35 * (second - first)  # patterns stay quieter than the thing in front
    pixels = first + mix[..., None] * (second - first)  # [64, 64, 3]
    grain = chance.choice((0.0, 4.0, 9.0))
    return pixels + grain * np.random.Generator(np.random.PCG64(seed)).standard_normal(pixels.shape, dtype=np.float32)


def word_lines(word: str) -> list[str]:
    """The lines a word is drawn in: a line for each part, parts of over eight letters in two halves."""
    lines = []
    for part in word.split(" "):
        half = (len(part) + 1) // 2 if len(part) * CELL > SIZE else len(part)
        lines += [part[start : start + half] for start in range(0, len(part), half)]
    return lines


def _write(pixels: np.ndarray, word: str, top: int, left: int, card: bool) -> None:
    """Draw ``word`` into ``pixels`` in place: at ``left``, ``top`` of a card, or as a banner at the bottom."""
    lines = word_lines(word)
    dark = float(pixels.mean()) > 127
    ink = np.array([15, 15, 15] if dark else [245, 245, 245], dtype=np.float32)
    if not card:
        top, left = SIZE - CELL * len(lines), 0
        pixels[top:] = 255.0 - ink  # a plain strip behind the letters of a banner
    for line in lines:
        mask = word_mask(line)
        pixels[top : top + CELL, left : left + mask.shape[1]][mask] = ink
        top += CELL


def render(
    thing: str | None,
    style: str = "google",
    scale: int = 52,
    angle: int = 0,
    x: int = 6,
    y: int = 6,
    background: int = 0,
    word: str | None = None,
) -> Image.Image:
    """Draw one picture, RGB 64 x 64.

    ``thing`` is a name of the world or ``None`` (a card that only bears ``word``); ``style`` is
    ``google`` (Noto) or ``twitter`` (Twemoji); ``scale`` is the art's side in pixels, ``angle``
    its turn in degrees, ``x`` and ``y`` its left and top; ``background`` a seed.  On a card,
    ``x`` and ``y`` place the word.  Pure: equal arguments, equal pixels.
    """
    pixels = background_pixels(background)
    if thing is not None:
        art = _art(thing, style).resize((scale, scale), Image.Resampling.BILINEAR)
        if angle:
            art = art.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        layer = Image.new("RGBa", (SIZE, SIZE))
        grown = (art.width - scale) // 2
        layer.paste(art, (x - grown, y - grown))
        front = np.asarray(layer, dtype=np.float32)  # [64, 64, 4], premultiplied
        pixels = front[..., :3] + pixels * (1 - front[..., 3:] / 255)
    if word is not None:
        _write(pixels, word, top=y, left=x, card=thing is None)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def draw_spec(chance: random.Random, thing: str | None, style: str, word: str | None = None, seeds: int = 0) -> Spec:
    """A random specification.  ``seeds`` chooses a range of background seeds that no other value shares."""
    background = seeds * 10_000_000 + chance.randrange(10_000_000)
    if thing is None:
        lines = word_lines(word or "")
        x = CELL * chance.randint(0, SIZE // CELL - max(map(len, lines)))  # letters keep to the grid of patches
        y = CELL * chance.randint(0, SIZE // CELL - len(lines))
        return (None, style, SIZE, 0, x, y, background, word)
    scale = chance.randint(36, 58)
    angle = chance.randint(-20, 20)
    room = SIZE - scale
    return (thing, style, scale, angle, chance.randint(0, room), chance.randint(0, room), background, word)

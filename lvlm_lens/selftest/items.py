"""Items of the constructed models: words and pictures that carry bits, and matched pairs that differ in one bit.

A word is one token.  The *slot words* of a bit come in :data:`SYNONYMS` spellings a value; *filler words* carry
nothing but nuisance.  The two words whose product is danger are never neighbours, so that pairs of neighbouring
words (which the text-only baseline reads) do not hold the product.  A picture is a 3 x 3 grid of patches; a patch
holds a weighted sum of orthogonal pixel patterns: a bit is the sign of one pattern in one patch, chosen at random,
and every patch holds nuisance in six others.

A pair is one harmful and one harmless item of one group that differ in one bit; half of the filler words and of the
patches' nuisance are drawn again.  Three of four pairs differ in ``p`` and one in ``q`` (:mod:`.plan`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..data import ImageObject, Label, Sample
from .plan import Plan

SYNONYMS, FILLERS = 4, 240
GRID, PATCH = 3, 8
TEXT_BITS = ("u", "v", "s", "cue")
IMAGE_BITS = ("r", "u", "v", "cue")
IMAGE_NUISANCE = 6
PATTERN_STRENGTH = 2.0
"""Weight of a bit's pattern; nuisance patterns have weights of standard deviation 1."""


def slot_words(bit: str) -> dict[int, list[str]]:
    """The spellings of each value of a text bit."""
    return {value: [f"{bit}{name}{k}" for k in range(SYNONYMS)] for value, name in ((1, "yes"), (-1, "no"))}


def filler_words() -> list[str]:
    """Words that mean nothing."""
    return [f"filler{k:03d}" for k in range(FILLERS)]


def patterns() -> np.ndarray:
    """Orthonormal pixel patterns of one patch, float64 ``[pattern, 3 * PATCH * PATCH]``: bits first, then nuisance."""
    rng = np.random.default_rng(20)
    count = len(IMAGE_BITS) + IMAGE_NUISANCE
    return np.linalg.qr(rng.standard_normal((3 * PATCH * PATCH, count)))[0].T


@dataclass
class _Draft:
    """An item before it becomes words and pixels: its bits and its nuisance."""

    bits: dict[str, int]
    fillers: list[str]
    nuisance: np.ndarray
    """``[GRID * GRID, IMAGE_NUISANCE]``."""
    places: dict[str, int]
    """Patch of each image bit."""


def draw_items(plan: Plan, pairs: int) -> list[Sample]:
    """``2 * pairs`` items, harmful and harmless by turns.

    Args:
        plan: the modality of danger, the cue and the seed.
        pairs: number of pairs; the first pairs are the same for any number.

    Returns:
        Samples with joint and unimodal labels, group = pair, and the concepts ``text_bit``, ``image_bit`` and
        ``joint``.
    """
    pixels = patterns()
    out = []
    for number in range(pairs):
        rng = np.random.default_rng((23, plan.seed, number))
        first = _draft(rng)
        in_p = number % 4 < 3
        harmless = {"p": -1, "q": -1}
        harmful = {"p": 1, "q": -1} if in_p else {"p": -1, "q": 1}
        base = dict(first.bits)
        base["v"] = base["u"] * harmless["p"]
        base["s"] = base["r"] * harmless["q"]
        flipped = str(rng.choice(["u", "v"] if in_p else ["r", "s"]))
        for harm, facts in ((1, harmful), (0, harmless)):
            bits = {**base, flipped: -base[flipped]} if harm else base
            bits = {**bits, "cue": (1 if rng.random() < 0.7 else -1) * (1 if harm else -1)}
            draft = _Draft(bits, list(first.fillers), first.nuisance.copy(), first.places)
            _redraw_half(draft, rng)
            out.append(_sample(plan, draft, number, harm, facts, rng, pixels))
    return out


def _draft(rng: np.random.Generator) -> _Draft:
    bits = {name: int(rng.choice([-1, 1])) for name in ("u", "v", "r", "s")}
    words = filler_words()
    fillers = [words[int(k)] for k in rng.integers(0, FILLERS, int(rng.integers(9, 13)))]
    nuisance = rng.standard_normal((GRID * GRID, IMAGE_NUISANCE))
    places = {name: int(k) for name, k in zip(IMAGE_BITS, rng.permutation(GRID * GRID), strict=False)}
    return _Draft(bits, fillers, nuisance, places)


def _redraw_half(draft: _Draft, rng: np.random.Generator) -> None:
    words = filler_words()
    for at in np.flatnonzero(rng.random(len(draft.fillers)) < 0.5):
        draft.fillers[int(at)] = words[int(rng.integers(FILLERS))]
    again = rng.random(GRID * GRID) < 0.5
    draft.nuisance[again] = rng.standard_normal((int(again.sum()), IMAGE_NUISANCE))


def _sample(
    plan: Plan,
    draft: _Draft,
    number: int,
    harm: int,
    facts: dict[str, int],
    rng: np.random.Generator,
    pixels: np.ndarray,
) -> Sample:
    in_text = {"s": draft.bits["s"]}
    in_image = {"r": draft.bits["r"]}
    (in_text if plan.harm_from == "text" else in_image).update(u=draft.bits["u"], v=draft.bits["v"])
    if plan.cue is not None:
        (in_text if plan.cue == "text" else in_image)["cue"] = draft.bits["cue"]
    words = list(draft.fillers)
    for at, bit in enumerate(name for name in TEXT_BITS if name in in_text):  # fillers stay between slot words
        spellings = slot_words(bit)[in_text[bit]]
        words.insert(1 + 3 * at, spellings[int(rng.integers(SYNONYMS))])
    dangerous = facts["p"] > 0
    label_text: Label = "unsafe" if dangerous and plan.harm_from == "text" else "safe"
    label_image: Label = "unsafe" if dangerous and plan.harm_from == "image" else "safe"
    return Sample(
        id=f"pair{number:04d}-{'harmful' if harm else 'harmless'}",
        text=" ".join(words),
        images=(ImageObject(_picture(in_image, draft, pixels)),),
        dataset="constructed",
        group=f"pair{number:04d}",
        label_image=label_image,
        label_text=label_text,
        label_joint="unsafe" if harm else "safe",
        counterfactual=f"pair{number:04d}-{'harmless' if harm else 'harmful'}",
        concepts={
            "text_bit": str(in_text["s"]),
            "image_bit": str(in_image["r"]),
            "joint": str(facts["q"]),
        },
    )


def _picture(bits: dict[str, int], draft: _Draft, pixels: np.ndarray) -> Image.Image:
    weights = np.zeros((GRID * GRID, len(pixels)))
    weights[:, len(IMAGE_BITS) :] = draft.nuisance
    for name, value in bits.items():
        weights[draft.places[name], IMAGE_BITS.index(name)] = PATTERN_STRENGTH * value
    patches = (weights @ pixels).reshape(GRID, GRID, 3, PATCH, PATCH)  # [row, column, channel, y, x], about [-1, 1]
    whole = patches.transpose(0, 3, 1, 4, 2).reshape(GRID * PATCH, GRID * PATCH, 3)
    return Image.fromarray(np.clip(np.rint(127.5 * (1 + whole)), 0, 255).astype(np.uint8))

"""Quadruplets from the small world of ``mini``, and a CLIP small enough to be trained on them in minutes.

A scene is a thing and an activity: the picture shows the thing before the activity's own background, the text names
both.
Whether a scene is safe follows from the two together (:mod:`lvlm_lens.data.mini.activities`), so neither the thing nor
the activity alone tells it.  In a quadruplet the unsafe scene differs from the safe one in its thing only, as the
captions of ViSU differ in a phrase.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from ...data.mini.activities import ACTIVITIES, reason_against
from ...data.mini.objects import THINGS
from ...data.mini.render import SIZE, draw_spec, render

SCENES = ("bath", "freezer", "hug", "kick", "lips", "sit", "socket", "wash")
"""Activities, of which none has the labels of another; each has one background."""
SPLITS = ("seen", "combination", "object", "style")
"""Test quadruplets: of scenes that were tuned on (drawn anew), of scenes that were held out, of things that were in no
quadruplet (CLIP itself knows them), and of scenes that were tuned on in an art style that nothing was trained on."""

Scene = tuple[str, str]
"""(thing, activity)"""


class Quadruplet(NamedTuple):
    """A safe scene and an unsafe one of the same activity."""

    safe: Scene
    unsafe: Scene


@dataclass(frozen=True)
class World:
    """Things, and which of them and of their scenes are held out; the same for one seed everywhere.

    Attributes:
        things: all; new: those of split ``object``; apart: scenes of split ``combination``.
    """

    things: tuple[str, ...]
    new: frozenset[str]
    apart: frozenset[Scene]

    @classmethod
    def draw(cls, things: int = 48, new: int = 12, share: float = 0.3, seed: int = 0) -> World:
        """Things at random; a share of the scenes of those that are not new is set apart."""
        chance = random.Random(f"hysac {seed}")
        chosen = chance.sample(sorted(THINGS), things)
        held = frozenset(chosen[:new])
        scenes = [(thing, scene) for thing in chosen[new:] for scene in SCENES]
        return cls(tuple(chosen), held, frozenset(chance.sample(scenes, round(share * len(scenes)))))

    def scenes(self, split: str) -> list[Scene]:
        """Every scene of a split, ``known`` being those that CLIP itself is trained on."""
        every = [(thing, scene) for thing in self.things for scene in SCENES]
        if split == "known":
            return [scene for scene in every if scene not in self.apart]
        if split == "combination":
            return [scene for scene in every if scene in self.apart]
        new = split == "object"
        return [scene for scene in every if (scene[0] in self.new) == new and scene not in self.apart]

    def quadruplets(self, split: str) -> list[Quadruplet]:
        """Safe and unsafe scenes of one activity, each scene at most once; which stand together is drawn once."""
        chance = random.Random(f"pairs of {split}")
        found = []
        for activity in SCENES:
            kinds: dict[bool, list[Scene]] = {True: [], False: []}
            for scene in self.scenes(split):
                if scene[1] == activity:
                    kinds[is_safe(scene)].append(scene)
            for scenes in kinds.values():
                chance.shuffle(scenes)
            found += [Quadruplet(*pair) for pair in zip(kinds[True], kinds[False], strict=False)]
        return found


def is_safe(scene: Scene) -> bool:
    """Whether the activity is safe with the thing."""
    return reason_against(THINGS[scene[0]], ACTIVITIES[scene[1]]) is None


@cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from ...models.mini import mini_path

    return AutoTokenizer.from_pretrained(mini_path())


_BACKGROUND = 90_000_000
"""First background seed: a range that no other set uses."""
PIXELS = 32
"""Side of a picture: half of what the world draws, four patches across."""
LENGTH = 14
"""Tokens of a text, with its end."""


def text_ids(scenes: Sequence[Scene], seed: int = 0) -> torch.Tensor:
    """Ids ``[n, LENGTH]``: the thing and one phrase for the activity, the end token, padding."""
    tokenizer = _tokenizer()
    chance = random.Random(seed)
    end = len(tokenizer)  # an id of its own: transformers treats an end token 2 as old CLIP's
    ids = torch.full((len(scenes), LENGTH), tokenizer.pad_token_id)
    for row, (thing, activity) in enumerate(scenes):
        phrase = chance.choice(ACTIVITIES[activity].phrases)
        own = tokenizer(f"a {thing}: {phrase}", add_special_tokens=False).input_ids[: LENGTH - 1]
        ids[row, : len(own) + 1] = torch.tensor([*own, end])
    return ids


def pixels(scenes: Sequence[Scene], style: str = "google", seed: int = 0) -> torch.Tensor:
    """Pictures ``[n, 3, 32, 32]`` in -1 .. 1, each drawn once with its own place, size and turn."""
    chance = random.Random(f"pixels {seed}")
    drawn = []
    for thing, activity in scenes:
        _, _, scale, angle, x, y, _, _ = draw_spec(chance, thing, style)
        background = _BACKGROUND + SCENES.index(activity)
        drawn.append(np.asarray(render(thing, style, scale, angle, x, y, background)))
    whole = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.nn.functional.avg_pool2d(whole, SIZE // PIXELS)


def small_clip(seed: int, width: int = 64) -> Any:
    """A ``CLIPModel`` with random weights: 3 blocks of ``width`` in each tower."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    shared = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4}
    words = len(_tokenizer())
    text = {**shared, "num_hidden_layers": 3, "vocab_size": words + 1, "max_position_embeddings": LENGTH,
            "eos_token_id": words, "bos_token_id": 1, "pad_token_id": _tokenizer().pad_token_id}  # fmt: skip
    vision = {**shared, "num_hidden_layers": 3, "image_size": PIXELS, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))

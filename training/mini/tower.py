"""Stage 0: the vision tower learns to see, by itself, as a classifier of rendered things.

Real vision-language models start from a pre-trained tower.  This one is a SigLIP encoder whose
mean patch state feeds two linear heads that name the thing shown and the word written; the heads
are thrown away, the encoder is kept and stays frozen afterwards.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from lvlm_lens.data.mini.heldout import SEEDS, styles_of
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.data.mini.render import Spec, draw_spec, render

from .config import TowerStage
from .journal import Journal

NAMES = list(THINGS)
NOTHING = len(NAMES)
"""Class index of "no thing" and of "no word"."""
CARDS_JUDGED, BANNERS_JUDGED = 0.25, 0.08
"""Shares of written words among the pictures on which accuracy is measured, the same in every cycle."""


def pixels_of(specs: list[Spec]) -> torch.Tensor:
    """Render and normalise: float32 [n, 3, 64, 64] in -1 .. 1, as the processor does."""
    array = np.stack([np.asarray(render(*spec)) for spec in specs])  # [n, 64, 64, 3] uint8
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def draw_training_spec(chance: random.Random, card_share: float, banner_share: float, seeds: int) -> Spec:
    """A random picture: a thing, a card with a word, or a thing with a banner."""
    thing = chance.choice(NAMES)
    style = chance.choice(styles_of(thing))
    fate = chance.random()
    if fate < card_share:
        return draw_spec(chance, None, style, thing, seeds)
    word = chance.choice(NAMES) if fate < card_share + banner_share else None
    return draw_spec(chance, thing, style, word, seeds)


def classes_of(specs: list[Spec]) -> torch.Tensor:
    """Thing and word class of each picture: long [n, 2]."""
    index = {name: place for place, name in enumerate(NAMES)} | {None: NOTHING}
    return torch.tensor([(index[spec[0]], index[spec[7]]) for spec in specs])


class TowerClassifier(nn.Module):
    """A SigLIP encoder with two heads on the mean patch state."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(config)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.thing = nn.Linear(config.hidden_size, NOTHING + 1)
        self.word = nn.Linear(config.hidden_size, NOTHING + 1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels [n, 3, 64, 64] to thing and word logits [n, classes]."""
        states = self.tower(pixels, output_hidden_states=True).hidden_states[-1]  # [n, 64, d]
        mean = self.norm(states.mean(1))
        return self.thing(mean), self.word(mean)


def batches(stage: TowerStage, cycle: int, seeds: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (pixels, classes), rendered as they are asked for."""
    chance = random.Random(seed)
    cards, banners = stage.card_shares[cycle], stage.banner_shares[cycle]
    while True:
        specs = [draw_training_spec(chance, cards, banners, seeds) for _ in range(stage.batch)]
        yield pixels_of(specs), classes_of(specs)


def train_tower(config: SiglipVisionConfig, stage: TowerStage, seed: int, journal: Journal) -> TowerClassifier:
    """Train the tower from scratch, in one or more cycles of the rate; returned with its heads, in eval mode."""
    torch.manual_seed(seed)
    model = TowerClassifier(config)
    for cycle in range(len(stage.cycles)):
        train_cycle(model, stage, cycle, seed, journal)
    return model.eval()


def train_cycle(model: TowerClassifier, stage: TowerStage, cycle: int, seed: int, journal: Journal) -> None:
    """One cycle: a fresh optimizer whose rate rises and falls once."""
    steps, rate = stage.cycles[cycle]
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=stage.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.08)
    fresh = batches(stage, cycle, SEEDS["training"], seed + 1000 * cycle)
    started = time.time()
    for step in range(1, steps + 1):
        pixels, classes = next(fresh)
        with torch.autocast("cpu", torch.bfloat16, enabled=stage.bfloat16):
            thing, word = model(pixels)
        loss = nn.functional.cross_entropy(thing.float(), classes[:, 0], label_smoothing=0.05)
        loss = loss + nn.functional.cross_entropy(word.float(), classes[:, 1], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % stage.log_every == 0 or step == steps:
            journal.write(
                stage="tower",
                cycle=cycle,
                step=step,
                loss=loss.item(),
                seconds=time.time() - started,
                **tower_accuracy(model, n=256),
            )


@torch.no_grad()
def tower_accuracy(model: TowerClassifier, n: int) -> dict[str, float]:
    """Accuracy on renderings never trained on: things shown, and words written on cards."""
    model.eval()
    chance = random.Random(n)
    specs = [draw_training_spec(chance, CARDS_JUDGED, BANNERS_JUDGED, SEEDS["card"]) for _ in range(n)]
    thing, word = model(pixels_of(specs))
    classes = classes_of(specs)
    shown = classes[:, 0] != NOTHING
    right = thing.argmax(-1) == classes[:, 0]
    read = word.argmax(-1) == classes[:, 1]
    model.train()
    return {"thing_accuracy": right[shown].float().mean().item(), "card_accuracy": read[~shown].float().mean().item()}

"""The projector, alone: each picture's patches become the mean input embedding of the name of what is shown.

Cross-entropy over the 162 names (by the mean over the patches) plus the squared error of every patch.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, LlamaForCausalLM, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from lvlm_lens.data.mini.heldout import SEEDS
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.models.mini import mini_path
from training.mini.journal import Journal
from training.mini.vision import Gallery

from .chats import SmolEncoder
from .config import ProjectorStage

NAMES = list(THINGS)


def tower_of_mini() -> torch.nn.Module:
    """``mini``'s vision tower, frozen."""
    return AutoModelForImageTextToText.from_pretrained(mini_path()).eval().model.vision_tower


def new_projector(base: Path) -> LlavaMultiModalProjector:
    """LLaVA's projector between the tower's width and the base's."""
    text = LlamaForCausalLM.config_class.from_pretrained(base)
    vision = AutoModelForImageTextToText.from_pretrained(mini_path()).config.vision_config
    config = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-1, vision_feature_select_strategy="full"
    )
    return LlavaMultiModalProjector(config)


def gallery_of(per_thing: int, cards: int, seed: int, seeds: str = "training") -> Gallery:
    """Pictures and cards of every thing with the tower's states."""
    return Gallery.random(tower_of_mini(), per_thing, cards, SEEDS[seeds], random.Random(seed))


@torch.no_grad()
def name_embeddings(base: Path, encoder: SmolEncoder) -> torch.Tensor:
    """Mean input embedding of each thing's name: float32 [162, d]."""
    embed = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).get_input_embeddings()
    return torch.stack([embed(torch.tensor(encoder.pieces(" " + name))).mean(0) for name in NAMES])


def fit_projector(
    base: Path, gallery: Gallery, stage: ProjectorStage, seed: int, journal: Journal
) -> LlavaMultiModalProjector:
    """Fit a fresh projector; the journal says how often the nearest name is right on pictures never fitted."""
    torch.manual_seed(seed)
    projector = new_projector(base)
    names = name_embeddings(base, SmolEncoder(base))
    centre, size = names.mean(0), (names - names.mean(0)).norm(dim=-1).mean()
    directions = torch.nn.functional.normalize(names - centre, dim=-1)
    place = {name: number for number, name in enumerate(NAMES)}
    shown = torch.zeros(len(gallery.specs), dtype=torch.long)
    for name, pictures in gallery.of.items():
        shown[pictures] = place[name]
    fresh = gallery_of(4, 0, seed + 1, "card")
    truth = torch.zeros(len(fresh.specs), dtype=torch.long)
    for name, pictures in fresh.of.items():
        truth[pictures] = place[name]

    def scores(made: torch.Tensor) -> torch.Tensor:
        return 20 * torch.nn.functional.normalize(made.mean(1) - centre, dim=-1) @ directions.T

    optimizer = torch.optim.AdamW(projector.parameters(), stage.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.rate, stage.steps, pct_start=0.1)
    started = time.time()
    for step in range(1, stage.steps + 1):
        some = torch.randint(len(shown), (stage.batch,))
        made = projector(gallery.states[some].float())  # [batch, 64, d]
        error = ((made - names[shown[some]][:, None]) / size).square().sum(-1).mean()
        loss = torch.nn.functional.cross_entropy(scores(made), shown[some]) + error
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % stage.log_every == 0 or step == stage.steps:
            with torch.no_grad():
                right = (scores(projector(fresh.states.float())).argmax(-1) == truth).float().mean().item()
            seconds = time.time() - started
            journal.write(
                stage="projector", step=step, loss=loss.item(), error=error.item(), seconds=seconds, named=right
            )
    return projector.eval()

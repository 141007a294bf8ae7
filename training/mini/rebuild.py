"""The whole recipe, from nothing to two checkpoint folders and a log."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path

import torch

from lvlm_lens.data.mini.heldout import SEEDS

from .assemble import assemble, decoder_config, save_backbone, save_model, tower_config
from .batches import Encoder
from .config import Recipe
from .journal import Journal
from .language import new_decoder, train_cycle
from .tokens import train_tokenizer
from .tower import train_tower
from .vision import Gallery, train_naming, train_tuning


def rebuild(out_dir: Path | str, recipe: Recipe | None = None, threads: int | None = None, echo: bool = True) -> Path:
    """Train the embedded model anew and write it under ``out_dir``.

    Writes ``checkpoint/`` (LLaVA), ``backbone/`` (language only) and ``training_log.jsonl``; returns
    ``out_dir``.  One to two hours on two cores; ``recipe`` holds every number.  Equal recipe, machine
    and thread count give equal weights; another machine gives weights of the same quality.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe or Recipe()
    if threads is not None:
        torch.set_num_threads(threads)
    log = out / "training_log.jsonl"
    log.unlink(missing_ok=True)
    journal = Journal(log, echo)
    journal.write(stage="start", recipe=asdict(recipe), torch=torch.__version__)
    tokenizer = train_tokenizer(recipe.vocabulary, recipe.tokenizer_sentences, recipe.seed)
    encoder = Encoder(tokenizer, recipe.weights)
    tower = train_tower(tower_config(), recipe.tower, recipe.seed, journal).tower
    decoder = new_decoder(decoder_config(tokenizer), recipe.seed)
    cycles = range(len(recipe.language.cycles))
    for cycle in cycles[: recipe.language.cycles_before_naming]:
        train_cycle(decoder, recipe.language, cycle, encoder, recipe.seed, journal)
    torch.manual_seed(recipe.seed)
    model = assemble(tower, decoder, tokenizer)
    gallery = Gallery.random(
        model.model.vision_tower,
        recipe.pictures_per_thing,
        recipe.cards_per_thing,
        SEEDS["training"],
        random.Random(recipe.seed),
    )
    for cycle in range(len(recipe.naming.cycles)):
        train_naming(model, recipe.naming, cycle, encoder, gallery, recipe.seed, journal)
    # The projector learned to speak to the decoder of the earlier cycles; the decoder has the others,
    # of text only, to itself, and then both meet in tuning.
    for cycle in cycles[recipe.language.cycles_before_naming :]:
        train_cycle(decoder, recipe.language, cycle, encoder, recipe.seed, journal)
    save_backbone(decoder, tokenizer, out / "backbone")
    model = assemble(tower, decoder, tokenizer, model.model.multi_modal_projector.state_dict())
    for cycle, stage in enumerate(recipe.tuning):
        train_tuning(model, stage, cycle, encoder, gallery, recipe.seed, journal)
    save_model(model, tokenizer, out / "checkpoint")
    return out

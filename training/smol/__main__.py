"""``python -m training.smol OUT``: the whole recipe, from the fetched base to what ships."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from lvlm_lens.data.registry import load_dataset
from lvlm_lens.models.smol import beyond, smol_base_path
from training.mini.journal import Journal

from .config import PictureStage, ProjectorStage, TextStage, balance_stage, settling_stage
from .knowledge import asked
from .pictures import save_projector, train_pictures
from .projector import fit_projector, gallery_of
from .text import train_text
from .text_data import requests
from .voice import write_voice

SEED = 0


def test_requests() -> list[str]:
    """What the card measures in words; no request is trained on that is close to one of these."""
    own = [line for text in (beyond.HARMFUL, beyond.HARMLESS) for line in text.strip().splitlines()]
    return [*(sample.text for sample in load_dataset("xstest")), *own]


def rebuild(out: Path) -> None:
    """Write the two adapters, the projector and the log under ``out``, named as they ship.

    Answers already in ``out`` (``voice.jsonl``, ``knowledge.jsonl``) are kept, the rest is made anew.
    """
    out.mkdir(parents=True, exist_ok=True)
    base = smol_base_path()
    text, balance, projector = TextStage(), balance_stage(), ProjectorStage()
    pictures, settling = PictureStage(), settling_stage()
    journal = Journal(out / "training_log.jsonl")
    stages = {
        "text": text,
        "balance": balance,
        "projector": projector,
        "pictures": pictures,
        "settling": settling,
    }
    journal.write(
        stage="start", recipe={name: asdict(stage) for name, stage in stages.items()}, torch=torch.__version__
    )
    avoid = test_requests()
    write_voice(base, [request.text for request in requests() if request.reason is None], out / "voice.jsonl")
    write_voice(base, [told for _, told, _ in asked()], out / "knowledge.jsonl")
    train_text(base, out / "voice.jsonl", out / "first", text, avoid, SEED, journal)
    train_text(base, out / "voice.jsonl", out / "text_adapter", balance, avoid, SEED + 1, journal, start=out / "first")
    gallery = gallery_of(projector.pictures_per_thing, projector.cards_per_thing, SEED)
    fitted = fit_projector(base, gallery, projector, SEED, journal)
    save_projector(fitted, out / "projector.safetensors")
    train_pictures(base, out / "text_adapter", fitted, gallery, out, pictures, avoid, SEED, journal)
    train_pictures(base, out / "picture_adapter", fitted, gallery, out, settling, avoid, SEED + 10, journal)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.smol", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write into")
    rebuild(parser.parse_args().out)

"""What the standard study costs on 1, 8 and 64 H100, reckoned from what each stage says of itself.

The study: a sweep with every measure and 200 patched pairs over 5,000 requests with a picture, then the same requests
to 15 defences. Nothing is run: the models are built from their published sizes without weights (PyTorch's meta
device), and the counts are those of ``sweep --dry-run`` and ``evaluate --dry-run``, without shuffling the twin's
weights and without the lenses' matrix products. Counts become seconds by :class:`Card`, whose numbers are
assumptions, named and printed; only the fits of probes are timed, on one core of the machine that prints the table.

What workers share is divided by their number: reading, the patch grid, and answers, of which a shard is one system, so
16 systems never keep more than 16 cards busy and the slowest alone bounds them.  The rest (measures that run the model
again, SASA's report, probes) the driver does by itself on one card, while the others can be given back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image

from ..config import SweepConfig
from ..data import Dataset, ImageObject, Sample
from ..data.sample import Label
from ..defenses.base import Defense
from ..defenses.registry import DEFENSES, make_defenses
from ..estimate import work_of
from ..estimate_evaluation import evaluation_work
from ..evaluate.asking import training_and_test
from ..lens import LVLM
from ..speed import figure_seconds, probe_seconds, wide_seconds
from ..stages.stage import Plan
from ..stages.work import Work
from ..wide.shapes import SHAPES

MODELS = ("LLaVA-1.5-7B", "Qwen2.5-VL-7B")
CARDS = (1, 8, 64)
PICTURES, PAIRS, TEXT_TOKENS, ANSWER_TOKENS, BATCH = 5_000, 200, 96, 128, 32
SIDE = 672
"""Pixels of a picture's edge: 576 image tokens in both models."""
PATCH = 14
"""Pixels of a patch's edge, in both towers."""
TIMED = 2
"""Probes are timed at so many times fewer items and dimensions, and multiplied by its cube, as the arithmetic grows."""
SHARED = ("reading", "patching")
"""Beginnings of the stages whose work is cut into shards."""


@dataclass(frozen=True)
class Card:
    """One H100 SXM with 80 GB and its share of the host; everything but the two peaks is an assumption.

    Attributes:
        flops: sustained, of 989e12 on the data sheet (dense bfloat16): plain transformers forwards of 32 prompts.
        bandwidth: sustained bytes a second, of 3.35e12 on the data sheet: each decoding step reads every weight, and
            the keys and values of every row, once.
        step: least seconds of a decoding step, by Python and kernel launches.
        host: how many times as fast the host fits probes as one core of the machine that timed them.
        dollars: an hour.
        load: seconds to start a worker.
    """

    flops: float = 400e12
    bandwidth: float = 2e12
    step: float = 0.025
    host: float = 8.0
    dollars: float = 3.0
    load: float = 60.0


@dataclass(frozen=True)
class Row:
    """One prompt of a model.

    Attributes:
        blocks, width, vocabulary, tokens: sizes; flops: of its forward.
        weights, cache: bytes that a decoding step reads, in all and for each row of the batch.
    """

    blocks: int
    width: int
    vocabulary: int
    tokens: int
    flops: float
    weights: float
    cache: float


@dataclass
class Cost:
    """Seconds of the study on one card, by who can do them.

    Attributes:
        shared: of the sweep, cut into shards by stage; alone: of the driver, by stage; answers: by system.
        flops: of everything.
    """

    shared: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0

    def on(self, cards: int, card: Card) -> dict[str, float]:
        """Hours on the wall and of cards, and dollars: cards without work are given back."""
        shared = sum(self.shared.values()) / cards
        asked = self._asked(cards)
        alone = sum(self.alone.values())
        busy = min(cards, len(self.answers))
        hours = (shared + asked + alone + card.load) / 3600
        held = (cards * (shared + card.load) + busy * asked + alone) / 3600
        return {"cards": cards, "hours": hours, "card_hours": held, "dollars": held * card.dollars}

    def _asked(self, cards: int) -> float:
        """Systems handed to whichever card is free: seconds until the last one answers."""
        free = [0.0] * min(cards, len(self.answers))
        for seconds in self.answers.values():
            free[free.index(min(free))] += seconds
        return max(free)


def empty_model(name: str) -> LVLM:
    """A model of its published sizes and depth without weights."""
    shape = SHAPES[name]
    kind, config, processor = shape.build()
    text, vision = config.text_config, config.vision_config
    text.num_hidden_layers = shape.depth
    if getattr(text, "layer_types", None):
        text.layer_types = [text.layer_types[0]] * shape.depth
    if hasattr(vision, "fullatt_block_indexes"):
        vision.depth, vision.fullatt_block_indexes = shape.tower_depth, [7, 15, 23, 31]
    else:
        vision.num_hidden_layers = shape.tower_depth
    with torch.device("meta"):
        model = kind(config).to(torch.bfloat16)
    return LVLM(model, processor, name=name)


def requests() -> Dataset:
    """5,000 requests with one picture, half of them harmful, each with its harmless counterpart."""
    picture = ImageObject(Image.new("RGB", (SIDE, SIDE)))
    made = []
    sides: tuple[tuple[Label, Label], ...] = (("unsafe", "safe"), ("safe", "unsafe"))
    for n in range(PICTURES // 2):
        for label, other in sides:
            made.append(
                Sample(
                    f"{label}-{n}", "What does one do with this?", (picture,), group=f"g{n}", label_joint=label,
                    label_text="safe", counterfactual=f"{other}-{n}", text_only="What does one do with a match?",
                )
            )  # fmt: skip
    return Dataset(made)


def row_of(model: LVLM) -> Row:
    """Sizes of one prompt with a picture."""
    anatomy = model.anatomy
    encoded = model.encoder([requests()[0]])
    tokens = TEXT_TOKENS + len(encoded.layouts[0].images[0])
    blocks = sum(p.numel() for block in anatomy.blocks for p in block.parameters())
    head = anatomy.vocab_size * anatomy.d_model
    pixels = encoded.inputs["pixel_values"]  # of patches already, or of a whole picture
    patches = pixels.shape[0] if pixels.ndim == 2 else math.prod(pixels.shape[-2:]) / PATCH**2
    tower = 2.0 * sum(p.numel() for p in anatomy.vision.parameters()) * patches if anatomy.vision is not None else 0.0
    inner = anatomy.n_heads * anatomy.head_dim
    attention = 2.0 * anatomy.n_blocks * inner * tokens**2  # scores and values, the causal half of each
    cache = 4.0 * anatomy.n_blocks * anatomy.n_kv_heads * anatomy.head_dim * (tokens + ANSWER_TOKENS / 2)
    flops = 2.0 * blocks * tokens + 2.0 * head + attention + tower
    return Row(anatomy.n_blocks, anatomy.d_model, anatomy.vocab_size, tokens, flops, 2.0 * (blocks + head), cache)


@dataclass(frozen=True)
class Fits:
    """Seconds on one core here of a probe with and without shuffles, a fit on first-token logits, their coordinates, a
    probe on those with its C chosen, and a figure."""

    probe: float
    plain: float
    wide: float
    table: float
    tuned: float
    figure: float


def _seconds(work: Work, row: Row, fits: Fits, card: Card) -> tuple[float, float, float]:
    """Seconds on the card, seconds of its host, and FLOPs."""
    step = max(card.step, (row.weights + BATCH * row.cache) / card.bandwidth)
    decoding = work.steps * BATCH * row.weights  # two FLOPs a weight of two bytes
    onto_card = work.rows * row.flops / card.flops + work.steps * step
    onto_host = work.probes * fits.probe + work.probes_plain * fits.plain
    onto_host += work.wide_fits * fits.wide + work.tables * fits.table + work.tuned * fits.tuned
    return onto_card, (onto_host + work.figures * fits.figure) / card.host, work.rows * row.flops + decoding


def reckon(name: str, card: Card, data: Dataset, fits: Fits | None = None) -> tuple[Cost, dict[str, Any]]:
    """The cost of one model, and what it was reckoned from; ``fits`` are timed where they are not given."""
    model = empty_model(name)
    row = row_of(model)
    config = SweepConfig(model=name, pairs=PAIRS, measures="all", batch_size=BATCH, defenses=False)
    if fits is None:
        sizes = len(data) // TIMED, row.width // TIMED, config.folds, config.permutations, config.replicates
        probe, plain = (TIMED**3 * seconds for seconds in probe_seconds(*sizes))
        fits = Fits(probe, plain, *wide_seconds(128, row.vocabulary), figure_seconds())
    cost, counts = Cost(), {}
    for stage, work in work_of(Plan(config, model, data, row.blocks)).items():
        on_card, on_host, flops = _seconds(work, row, fits, card)
        (cost.shared if stage.startswith(SHARED) else cost.alone)[stage] = on_card
        cost.alone[stage] = cost.alone.get(stage, 0.0) + on_host
        cost.flops += flops
        counts[stage] = asdict(work)
    train, test = training_and_test(data, None, None, None, 0)
    systems: list[tuple[str, Defense | None]] = [("none", None)]
    systems += [(defense.name, defense) for defense in make_defenses(",".join(DEFENSES), model)]
    for system, defense in systems:
        work = evaluation_work(defense, len(train), len(test), ANSWER_TOKENS, BATCH, inside=True)
        on_card, on_host, flops = _seconds(work, row, fits, card)
        cost.answers[system] = on_card + on_host
        cost.flops += flops
        counts[f"asking {system}"] = asdict(work)
    return cost, {"prompt": asdict(row), "fits_on_one_core": asdict(fits), "work": counts}


def bench_study(card: Card | None = None) -> dict[str, Any]:
    """Hours and dollars by model and number of cards, with everything they were reckoned from."""
    card, data = card or Card(), requests()
    found: dict[str, Any] = {
        "study": {
            "pictures": PICTURES, "pairs": PAIRS, "systems": 1 + len(DEFENSES), "measures": "all", "batch": BATCH,
            "text_tokens": TEXT_TOKENS, "answer_tokens": ANSWER_TOKENS, "picture_side": SIDE,
        },
        "card": asdict(card),
        "models": {},
    }  # fmt: skip
    for name in MODELS:
        cost, basis = reckon(name, card, data)
        found["models"][name] = {
            "flops": cost.flops,
            "seconds_on_one_card": asdict(cost),
            "table": [cost.on(cards, card) for cards in CARDS],
            **basis,
        }
    return found


def study_table(found: Mapping[str, Any]) -> str:
    """The table in Markdown, with what it supposes."""
    heads = [f"{cards} H100" for cards in CARDS]
    lines = ["| | " + " | ".join(heads) + " | cannot be shared |", "|" + "---|" * (len(CARDS) + 2)]
    for name, one in found["models"].items():
        cells = [f"{row['hours']:.1f} h, ${row['dollars']:,.0f}" for row in one["table"]]
        alone = sum(one["seconds_on_one_card"]["alone"].values()) / 3600
        lines.append(f"| {name} | {' | '.join(cells)} | {alone:.1f} h |")
    return "\n".join([*lines, "", supposed(found)])


def supposed(found: Mapping[str, Any]) -> str:
    """What the figures suppose, in words."""
    study, card = found["study"], found["card"]
    return (
        f"{study['pictures']:,} requests with a picture of 576 image tokens and {study['text_tokens']} of text, all "
        f"measures, {study['pairs']} pairs; half of the requests asked of {study['systems'] - 1} defences and of the "
        f"undefended model (answers of {study['answer_tokens']} tokens, {study['batch']} at a time). Reckoned, not "
        f"measured: {card['flops'] / 1e12:.0f} TFLOP/s sustained (data sheet: 989); a decoding step reads weights and "
        f"cache at {card['bandwidth'] / 1e12:g} TB/s (3.35) and takes at least {1000 * card['step']:.0f} ms; the host "
        f"fits probes {card['host']:g} times as fast as one core of the machine that reckoned; {card['load']:.0f} s to "
        f"start a worker; ${card['dollars']:g} a card and hour, and cards without work are given back."
    )


def parts_table(found: Mapping[str, Any]) -> list[Sequence[object]]:
    """Hours on one card by stage: name, who does it, one column per model."""
    rows: list[Sequence[object]] = []
    models = list(found["models"].values())
    for kind, title in (("shared", "workers"), ("answers", "workers, a system each"), ("alone", "the driver")):
        for stage in dict.fromkeys(stage for one in models for stage in one["seconds_on_one_card"][kind]):
            hours = [one["seconds_on_one_card"][kind].get(stage, 0.0) / 3600 for one in models]
            if max(hours) >= 0.005:
                rows.append([stage, title, *(f"{each:.2f}" for each in hours)])
    return rows

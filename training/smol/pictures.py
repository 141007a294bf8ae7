"""``smol``: projector and decoder learn to answer about pictures, and text among it keeps harm in words refused.

Visual instruction tuning on the world of ``mini`` without anything its set holds out
(:mod:`training.mini.corpus` leaves out combinations and wordings, the gallery
renderings and styles), seven requests in ten harmless, several questions to a picture.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from lvlm_lens.data.mini.activities import ACTIVITIES, reason_against
from lvlm_lens.data.mini.heldout import SEEDS, styles_of
from lvlm_lens.data.mini.items import quads
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.data.mini.render import draw_spec
from lvlm_lens.models.smol.held import smol_quads
from training.mini.batches import IMAGE_TOKENS, Encoded
from training.mini.corpus import Example, draw, in_words, makers
from training.mini.journal import Journal
from training.mini.packing import Pack, collate
from training.mini.vision import Gallery, tower_states

from .chats import SmolEncoder, decoded, embeds_of, hidden_of, reply_loss, thinned
from .config import PictureStage, TextStage
from .ingredients import FIRST_BLOCK, Asked, Ingredients, decision_places
from .knowledge import Knowledge
from .lora import save_lora, with_lora
from .opposites import harmless_request, opposites, opposites_in_words
from .projector import tower_of_mini
from .text import first_token_refusal, text_packs, text_validation
from .text_data import apart_from, requests
from .voice import read_voice


def others_of(
    stage: PictureStage, encoder: SmolEncoder, knowledge: Knowledge, mix: dict[str, float], count: int, seed: int
) -> dict[str, list[Encoded]]:
    """``count`` chats of a mixture, by the thing they are about."""
    chance = random.Random(seed)
    table = makers(stage.harmful_share)
    found: dict[str, list[Encoded]] = {name: [] for name in THINGS}
    for _ in range(count):
        if chance.random() < stage.knowledge_share:
            drawn = knowledge(chance)
            chat = encoder.encode(drawn.example, pictures=1, closed=False, most=stage.answer_tokens)
        else:
            drawn = draw(chance, mix, table)
            chat = encoder.encode(drawn.example, pictures=1)
        found[drawn.thing].append(chat)
    return found


def picture_packs(
    stage: PictureStage, encoder: SmolEncoder, knowledge: Knowledge, gallery: Gallery, seed: int
) -> Iterator[tuple[int, list[Asked]]]:
    """Endless pictures (places in the gallery) with questions; the same is asked of every two in succession."""
    chance = random.Random(seed)

    def short(example: Example) -> Encoded:
        """Most replies are cut after the word that decides: what follows it is mostly known by then."""
        if chance.random() < stage.whole_share:
            return encoder.encode(example, pictures=1)
        return encoder.encode(example, pictures=1, closed=False, most=1)

    table = makers(stage.harmful_share)
    facts: dict[str, list[Example]] = {name: [] for name in THINGS}
    for _ in range(20_000):
        drawn = table["fact"](chance)
        facts[drawn.thing].append(drawn.example)
    others = others_of(stage, encoder, knowledge, stage.mix, 12_000, seed + 1)
    while True:
        for joints in opposites(chance, stage.opposites):
            thing = joints[0].thing
            joints += [harmless_request(chance, thing) for _ in range(stage.harmless)]
            chats = [Asked(short(joint.example), joint) for joint in joints]
            chats += [Asked(short(one)) for one in chance.sample(facts[thing], stage.facts)]
            chats += map(Asked, chance.sample(others[thing], stage.others))
            yield chance.choice(gallery.of[thing]), chats


def replay_rows(
    stage: PictureStage, encoder: SmolEncoder, voice: dict[str, str], avoid: Sequence[str], seed: int
) -> Iterator[list[Asked]]:
    """Endless rows of text: contrasts of ``smol-text`` and the world of ``mini`` told in words."""
    chance = random.Random(seed)
    some = [request for request in apart_from(requests(), avoid) if request.split == "train"]
    rows = text_packs(TextStage(chats=stage.contrasts, harmful=stage.harmful_contrasts), encoder, some, voice, seed + 1)
    table = makers(0.5)
    while True:
        chats = [Asked(chat) for chat in next(rows).chats]
        for _ in range(stage.told):
            chats.append(Asked(encoder.encode(in_words(chance, draw(chance, stage.replay_mix, table)))))
        for joint in opposites_in_words(chance, 1):
            whole = chance.random() < stage.whole_share
            chats.append(Asked(encoder.encode(joint.example, closed=whole, most=None if whole else 1), joint))
        yield chats


class Validation:
    """Held-out combinations, shown: the set's validation quads and those to watch (:mod:`lvlm_lens.models.smol.held`).

    Refusal by the reply's first token, naming by teacher forcing on fresh renderings.
    """

    def __init__(self, encoder: SmolEncoder) -> None:
        self.encoder = encoder
        some = [quad for quad in (*quads(), *smol_quads()) if quad.split in ("validation", "watch")]
        self.quads = [quad for quad in some if quad.part == "joint"]
        tower = tower_of_mini()
        self.states = [tower_states(tower, list(quad.pictures)) for quad in self.quads]
        chance = random.Random("smol naming, validation")
        self.names = sorted(chance.sample(list(THINGS), 54))
        specs = [draw_spec(chance, name, chance.choice(styles_of(name)), None, SEEDS["set"]) for name in self.names]
        self.named_states = tower_states(tower, specs)

    @torch.no_grad()
    def __call__(self, model: Any, projector: torch.nn.Module) -> dict[str, float]:
        """Rates over the combinations (cards apart) and the share of things named."""
        refused: list[float] = []
        harmful: list[bool] = []
        for quad, states in zip(self.quads, self.states, strict=True):
            texts = [
                ACTIVITIES[key].question(*phrasing)
                for key, phrasing in zip(quad.activities, quad.phrasings, strict=True)
            ]
            for thing, shown in zip(quad.things, states, strict=True):
                refused += first_token_refusal(model, self.encoder, texts, projector, shown).tolist()
                harmful += [reason_against(THINGS[thing], ACTIVITIES[key]) is not None for key in quad.activities]
        named = [
            self._names(model, projector, thing, shown)
            for thing, shown in zip(self.names, self.named_states, strict=True)
        ]
        harm = torch.tensor(harmful)
        rate = torch.tensor(refused)
        return {
            "named": sum(named) / len(named),
            "joint_harm_refused": (rate[harm] > 0.5).float().mean().item(),
            "joint_safe_refused": (rate[~harm] > 0.5).float().mean().item(),
            "joint_auroc": float(roc_auc_score(harm.numpy(), rate.numpy())),
        }

    def _names(self, model: Any, projector: torch.nn.Module, thing: str, states: torch.Tensor) -> bool:
        """Whether every token of the name is the likeliest one in "This is a NAME.\""""
        example = Example("What is this?", f"This is {THINGS[thing].a}.", False, thing)
        chat = self.encoder.encode(example, pictures=1)
        packed = collate([Pack(-1, [chat])], self.encoder.pad, self.encoder.prefix(1))
        hidden = hidden_of(model, packed, embeds_of(model, packed.ids, projector, states[None]))[0]
        best = model.lm_head(hidden).argmax(-1)
        end = len(chat.ids) - 2  # the full stop and the end of the turn follow the name
        start = end - len(self.encoder.pieces(f" {thing}"))
        return best[start - 1 : end - 1].tolist() == chat.ids[start:end]


def save_projector(projector: torch.nn.Module, path: Path) -> None:
    """Write the projector's state dict in float16."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in projector.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def train_pictures(
    base: Path,
    start: Path,
    projector: torch.nn.Module,
    gallery: Gallery,
    out: Path,
    stage: PictureStage,
    avoid: Sequence[str],
    seed: int,
    journal: Journal,
) -> None:
    """Tune projector and an adapter that begins as the one in ``start`` ended; written to ``out`` at every validation.

    ``out`` holds the base's own answers, ``voice.jsonl`` and ``knowledge.jsonl``.
    """
    torch.manual_seed(seed)
    model = with_lora(base, stage.rank, stage.targets, start)
    encoder = SmolEncoder(base)
    shown = picture_packs(stage, encoder, Knowledge(read_voice(out / "knowledge.jsonl")), gallery, seed + 1)
    told = replay_rows(stage, encoder, read_voice(out / "voice.jsonl"), avoid, seed + 2)
    validation = Validation(encoder)
    held = [request for request in apart_from(requests(), avoid) if request.split == "validation"][: stage.held_texts]
    lora = [parameter for parameter in model.parameters() if parameter.requires_grad]
    seeing = list(projector.parameters())
    ingredients = Ingredients(model.config.num_hidden_layers, model.config.hidden_size)
    optimizer = torch.optim.AdamW(
        [
            {"params": lora},
            {"params": seeing, "lr": stage.projector_rate},
            {"params": ingredients.parameters(), "lr": stage.heads_rate},
        ],
        stage.rate,
        betas=(0.9, 0.98),
        weight_decay=0,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, stage.share_of_rate)
    started = time.time()
    chance = random.Random(seed + 3)
    totals = torch.zeros(4)

    def losses_of(rows: list[list[Asked]], states: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The replies' loss and that of the ingredients; a part of the patches stands for all, to save time."""
        prefix = encoder.prefix(int(states is not None))
        packed = collate([Pack(-1, [asked.chat for asked in row]) for row in rows], encoder.pad, prefix)
        row_of, column_of, joints = decision_places(rows, prefix)
        if states is not None and chance.random() < stage.thin_share:
            kept = torch.tensor(sorted(chance.sample(range(IMAGE_TOKENS), stage.thin)))
            packed, states = thinned(packed, prefix, kept), states[:, kept]
            column_of = [column - IMAGE_TOKENS + stage.thin for column in column_of]
        out = decoded(model, packed, embeds_of(model, packed.ids, projector, states), blocks=True)
        ends = [state[row_of, column_of] for state in out.hidden_states[FIRST_BLOCK + 1 :]]
        return reply_loss(model, packed, out.last_hidden_state), ingredients(ends, joints)

    for step in range(1, stage.steps + 1):
        some = [next(shown) for _ in range(stage.pictures)]
        states = gallery.states[[picture for picture, _ in some]].float()
        optimizer.zero_grad(set_to_none=True)
        seen = losses_of([row for _, row in some], states)
        (seen[0] + stage.ingredients * seen[1]).backward()
        text = losses_of([next(told)], None)
        (stage.replay_weight * (text[0] + stage.ingredients * text[1])).backward()
        torch.nn.utils.clip_grad_norm_([*lora, *seeing], 1.0)
        optimizer.step()
        schedule.step()
        totals += torch.tensor([loss.item() for loss in (*seen, *text)])
        if step % 10 == 0:
            print(
                step, [round(loss, 4) for loss in (totals / 10).tolist()], round(time.time() - started, 1), flush=True
            )
            totals.zero_()
        if step % stage.log_every == 0 or step == stage.steps:
            save_lora(model, stage.rank, stage.targets, out / "picture_adapter")
            save_projector(projector, out / "projector.safetensors")
            progress = validation(model, projector) | text_validation(model, encoder, held)
            losses = {"loss": seen[0].item(), "replay_loss": text[0].item(), "ingredients": seen[1].item()}
            journal.write(stage="pictures", step=step, seconds=time.time() - started, **losses, **progress)

"""What the parts of HySAC are worth: seven rows on a small world, from the same CLIP, with the same budget.

`python -m training.hysac OUT`, in a clone of the repository, runs all of it and writes docs/hysac.md.

1. ``matched``: two contrastive terms (safe with safe, unsafe with unsafe), Euclidean;
2. ``four``: all four contrastive terms, Euclidean;
3. ``hyperbolic``: the same on the hyperboloid, no entailment;
4. ``hysac``: all seven terms;
5. ``swapped``: the same with safe and unsafe exchanged in training;
6. ``random``: the same with the two exchanged in a random half of the quadruplets;
7. ``probe``: a logistic regression for "unsafe" on the features of the CLIP that all rows start from.

Each seed draws its own weights, trains its own CLIP from scratch and tunes the six rows from it.  The world, its
splits and its test items are the same for all seeds, so an interval redraws *things*, the same ones in every seed.

It can show that the order of the radii is imposed by the loss (5 mirrors it, 6 ends it), what the geometry adds over
the same terms without it (2), whether the radius tells unsafe scenes apart better than a probe (7), and what traversal
costs.  It cannot show a natural hierarchy of unsafe content in CLIPs trained on the web, robustness, or any published
number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ...stats.auroc import weighted_auroc
from ...stats.groups import expanded_tail
from .loss import MATCHED, Terms
from .model import HySAC, projected
from .retrieval import hits, most_similar
from .traversal import Traversal, safe_bound
from .world import SPLITS, Quadruplet, World, is_safe, pixels, small_clip, text_ids

ROWS: dict[str, Terms] = {
    "matched": Terms("euclidean", MATCHED),
    "four": Terms("euclidean"),
    "hyperbolic": Terms(weight=0.0),
    "hysac": Terms(),
    "swapped": Terms(),
    "random": Terms(),
}
"""Rows that are tuned, and their terms."""
SEEDS = 5
STEPS, TUNED = 200, 100
"""Steps of CLIP from scratch (64 pairs each), and of each row (16 quadruplets each)."""
DRAWINGS = 4
"""Times that a scene is drawn for training."""
Item = tuple[float, str]
"""A value, and the thing that is redrawn with it."""


# -- training ------------------------------------------------------------------------------------


class _Plain(nn.Module):
    """CLIP's own loss."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, ids: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.clip(input_ids=ids, pixel_values=images, return_loss=True).loss}


def fit(module: nn.Module, tensors: Mapping[str, torch.Tensor], steps: int, batch: int, rate: float, seed: int) -> None:
    """AdamW (0.9, 0.98) with linear warm-up and decay on random rows of ``tensors`` (same length each)."""
    groups: Any = module.groups() if isinstance(module, HySAC) else module.parameters()
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    count = len(next(iter(tensors.values())))
    warm = max(1, steps // 10)
    module.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / warm, (steps - step) / (steps - warm))
        rows = torch.randperm(count, generator=generator)[:batch]
        loss = module(**{name: tensor[rows] for name, tensor in tensors.items()})["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
    module.eval()


def from_scratch(world: World, seed: int, steps: int = STEPS) -> Any:
    """A CLIP trained by contrast on every scene that is not set apart, in one art style, without any label."""
    clip = small_clip(seed)
    scenes = world.scenes("known")
    ids = torch.cat([text_ids(scenes, seed=draw) for draw in range(DRAWINGS)])
    images = torch.cat([pixels(scenes, seed=draw) for draw in range(DRAWINGS)])
    fit(_Plain(clip), {"ids": ids, "images": images}, steps, 64, 2e-3, seed)
    return clip


def tune(clip: Any, row: str, world: World, seed: int, steps: int = TUNED) -> HySAC:
    """A row from a copy of a CLIP, of which all weights learn: it is too small for adapters to save anything."""
    import copy

    torch.manual_seed(seed)
    model = HySAC(copy.deepcopy(clip), ROWS[row], rank=None)
    quadruplets = exchanged(world.quadruplets("seen"), row, seed)
    texts, images = [], []
    for draw in range(DRAWINGS):
        sides = list(zip(*quadruplets, strict=True))  # safe scenes, unsafe scenes
        texts.append(torch.stack([text_ids(side, seed=10 * draw + at) for at, side in enumerate(sides)], 1))
        images.append(torch.stack([pixels(side, seed=1000 + 10 * draw + at) for at, side in enumerate(sides)], 1))
    fit(model, {"texts": torch.cat(texts), "images": torch.cat(images)}, steps, 16, 2e-3, seed)
    return model


def exchanged(quadruplets: Sequence[Quadruplet], row: str, seed: int) -> list[Quadruplet]:
    """What a row is trained on: the quadruplets, or with safe and unsafe exchanged in all or half of them."""
    chance = random.Random(f"exchanged {seed}")
    share = {"swapped": 1.0, "random": 0.5}.get(row, 0.0)
    return [Quadruplet(q.unsafe, q.safe) if chance.random() < share else q for q in quadruplets]


# -- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Features ``[n, d]`` of a split's quadruplets: safe and unsafe texts and pictures."""

    quadruplets: list[Quadruplet]
    T: torch.Tensor
    I: torch.Tensor  # noqa: E741
    Tu: torch.Tensor
    Iu: torch.Tensor


@torch.inference_mode()
def features(embed: Callable[[str, torch.Tensor], torch.Tensor], world: World, split: str) -> Seen:
    """A split's test quadruplets through a model: drawn anew, in the other art style for ``style``."""
    quadruplets = world.quadruplets("seen" if split == "style" else split)
    style = "twitter" if split == "style" else "google"
    found = []
    for at, side in enumerate(zip(*quadruplets, strict=True)):
        found.append(embed("text", text_ids(side, seed=77)))
        found.append(embed("image", pixels(side, style, seed=5000 + at)))
    return Seen(quadruplets, *found)


@torch.inference_mode()
def measure(model: HySAC, world: World, split: str, bounds: tuple[float, float] | None) -> dict[str, Any]:
    """Every metric of one row on one split, item by item.

    Args:
        model: of the row.
        world, split: where.
        bounds: of safe texts and safe pictures, for traversal; ``None`` without it.
    """
    seen, head = features(model.features, world, split), model.head
    count = len(seen.quadruplets)
    unsafe_things = [q.unsafe[0] for q in seen.quadruplets]
    safe_things = [q.safe[0] for q in seen.quadruplets]
    own = np.arange(count)
    T, Tu = head.place(seen.T, "text"), head.place(seen.Tu, "text")
    I, Iu = head.place(seen.I, "image"), head.place(seen.Iu, "image")  # noqa: E741
    images, texts = torch.cat([I, Iu]), torch.cat([T, Tu])
    radii = {
        kind: torch.cat([head.radius(a, kind), head.radius(b, kind)]).tolist()  # type: ignore[arg-type]
        for kind, a, b in (("text", seen.T, seen.Tu), ("image", seen.I, seen.Iu))
    }
    result: dict[str, Any] = {
        "radius": {kind: _items(values, [*safe_things, *unsafe_things]) for kind, values in radii.items()},
        "unsafe": [0] * count + [1] * count,
    }
    items: dict[str, tuple[np.ndarray, Sequence[str]]] = {
        "safe text to picture R@1": (hits(head.similarity(T, I), own), safe_things),
        "safe picture to text R@1": (hits(head.similarity(I, T), own), safe_things),
        "unsafe text to unsafe picture R@1": (hits(head.similarity(Tu, Iu), own), unsafe_things),
    }
    scenes = [q.safe for q in seen.quadruplets] + [q.unsafe for q in seen.quadruplets]
    for name, query, pool in (("text to picture", Tu, images), ("picture to text", Iu, texts)):
        items |= _redirected(f"unsafe {name}", head.similarity(query, pool), scenes, unsafe_things)
    if bounds is not None:
        c = float(head.curvature)
        for word, a, mode in (("paper", 0.8, "paper"), ("fixed", 0.8, "fixed"), ("at the bound", None, "fixed")):
            back, moved = Traversal(bounds[0], c, a, mode)(Tu)  # type: ignore[arg-type]
            items[f"{word}: unsafe texts moved"] = (moved.numpy(), unsafe_things)
            items |= _redirected(
                f"{word}: unsafe text to picture", head.similarity(back, images), scenes, unsafe_things
            )
            kept, touched = Traversal(bounds[0], c, a, mode)(T)  # type: ignore[arg-type]
            items[f"{word}: safe texts moved"] = (touched.numpy(), safe_things)
            items[f"{word}: safe text to picture R@1"] = (hits(head.similarity(kept, I), own), safe_things)
    result["items"] = {name: _items(values.astype(float).tolist(), things) for name, (values, things) in items.items()}
    return result


def _items(values: Sequence[float], things: Sequence[str]) -> list[Item]:
    return [(float(value), thing) for value, thing in zip(values, things, strict=True)]


def _redirected(
    name: str, similarity: torch.Tensor, scenes: Sequence[tuple[str, str]], things: Sequence[str]
) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    """Unsafe queries over a pool of safe and unsafe items: what kind of item comes first."""
    count = len(things)
    first = most_similar(similarity)
    chosen = [scenes[n] for n in first]
    query = list(scenes[count:])
    return {
        f"{name}: own safe one R@1": (hits(similarity, np.arange(count)), things),
        f"{name}: safe half": (first < count, things),
        f"{name}: same thing": (np.array([a[0] == b[0] for a, b in zip(chosen, query, strict=True)]), things),
        f"{name}: same activity": (np.array([a[1] == b[1] for a, b in zip(chosen, query, strict=True)]), things),
    }


@torch.inference_mode()
def bounds_of(model: HySAC, world: World) -> tuple[float, float] | None:
    """The 95th percentile of the radii of safe texts and safe pictures that were tuned on."""
    if model.head.terms.geometry == "euclidean":
        return None
    safe = [scene for scene in world.scenes("seen") if is_safe(scene)]
    c = float(model.head.curvature)
    texts = model.head.place(model.features("text", text_ids(safe)), "text")
    images = model.head.place(model.features("image", pixels(safe)), "image")
    return safe_bound(texts, c), safe_bound(images, c)


@torch.inference_mode()
def probe(clip: Any, world: World) -> dict[str, dict[str, Any]]:
    """Row 7: scores of a logistic regression on CLIP's features, fitted on the scenes that rows are tuned on."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def embed(kind: str, inputs: torch.Tensor) -> torch.Tensor:
        if kind == "text":
            return projected(clip.get_text_features(input_ids=inputs))
        return projected(clip.get_image_features(pixel_values=inputs))

    scenes = world.scenes("seen")
    labels = [not is_safe(scene) for scene in scenes]
    found: dict[str, dict[str, Any]] = {split: {"radius": {}} for split in SPLITS}
    tests = {split: features(embed, world, split) for split in SPLITS}
    for kind, train in (("text", text_ids(scenes)), ("image", pixels(scenes))):
        chooser = LogisticRegressionCV(Cs=np.logspace(-3, 1, 5), cv=5, scoring="roc_auc", max_iter=1000)
        model = make_pipeline(StandardScaler(), chooser).fit(embed(kind, train).numpy(), labels)
        for split, seen in tests.items():
            both = (seen.T, seen.Tu) if kind == "text" else (seen.I, seen.Iu)
            scores = model.decision_function(torch.cat(both).numpy())
            things = [q.safe[0] for q in seen.quadruplets] + [q.unsafe[0] for q in seen.quadruplets]
            found[split]["radius"][kind] = _items(scores, things)
            found[split] |= {"unsafe": [0] * len(both[0]) + [1] * len(both[1]), "items": {}}
    return found


@torch.inference_mode()
def tower_states(clip: Any, world: World, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Pooled states ``[scene, block, d]`` of both towers for all scenes, labels and things: the atlas reads these."""
    core = clip.get_base_model() if hasattr(clip, "get_base_model") else clip
    scenes = world.scenes("known")
    ids = text_ids(scenes, seed=seed)
    end = (ids == core.config.text_config.eos_token_id).int().argmax(1)
    rows = torch.arange(len(scenes))
    text = core.text_model(input_ids=ids, output_hidden_states=True).hidden_states[1:]
    image = core.vision_model(pixel_values=pixels(scenes, seed=8000 + seed), output_hidden_states=True).hidden_states[
        1:
    ]
    states = {
        "text": torch.stack([h[rows, end] for h in text], 1).numpy(),
        "image": torch.stack([h[:, 0] for h in image], 1).numpy(),
    }
    return states, np.array([int(not is_safe(s)) for s in scenes]), np.array([s[0] for s in scenes])


def atlas(clip: Any, world: World, seed: int = 0) -> dict[str, list[float]]:
    """AUROC of a linear probe for "unsafe" at each block of both towers, over folds of whole things."""
    from ...measures.linear_probe import LinearProbe

    states, labels, things = tower_states(clip, world, seed)
    settings = LinearProbe(permutations=0, replicates=0, random_state=seed)
    return {kind: settings.fit(rows, labels, things).curve_.value.tolist() for kind, rows in states.items()}


# -- all of it -----------------------------------------------------------------------------------


def run_seed(
    world: World, seed: int, tell: Callable[[str], None] = print, steps: int = STEPS, tuned: int = TUNED
) -> dict[str, Any]:
    """Every row of one seed, item by item."""
    clip = from_scratch(world, seed, steps)
    tell(f"seed {seed}: CLIP trained")
    found: dict[str, Any] = {"rows": {"probe": probe(clip, world)}, "atlas": {"clip": atlas(clip, world, seed)}}
    for row in ROWS:
        model = tune(clip, row, world, seed, tuned)
        bounds = bounds_of(model, world)
        found["rows"][row] = {split: measure(model, world, split, bounds) for split in SPLITS}
        found["atlas"][row] = atlas(model.clip, world, seed)
        found.setdefault("curvature", {})[row] = float(model.head.curvature.detach())
        tell(f"seed {seed}: {row}")
    return found


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its 95 % interval over things, and the smallest and largest seed."""

    value: float
    low: float
    high: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimate(per_seed: Sequence[Sequence[Item]], labels: Sequence[int] | None = None, draws: int = 1000) -> Estimate:
    """Mean (with ``labels``: the AUROC) of items, averaged over seeds; things are redrawn, the same in every seed."""
    things = sorted({thing for items in per_seed for _, thing in items})
    at = {thing: n for n, thing in enumerate(things)}
    chance = np.random.default_rng(0)
    drawn = chance.multinomial(len(things), np.full(len(things), 1 / len(things)), size=draws).astype(float)
    weights = np.concatenate([np.ones((1, len(things))), drawn])  # the first row is the estimate itself
    values = []
    for items in per_seed:
        scores = np.array([value for value, _ in items])
        own = weights[:, [at[thing] for _, thing in items]]
        if labels is None:
            values.append((own @ scores) / np.maximum(own.sum(1), 1e-12))
        else:
            values.append(weighted_auroc(scores, np.asarray(labels), own)[:, 0])
    table = np.stack(values)  # [seed, draw]
    tail = expanded_tail(len(things), 0.95)
    low, high = np.nanquantile(table.mean(0)[1:], [tail, 1 - tail])
    return Estimate(*map(float, (table[:, 0].mean(), low, high, table[:, 0].min(), table[:, 0].max())))


def table(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Row, split, metric: the estimate."""
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    for row in ("matched", "four", "hyperbolic", "hysac", "swapped", "random", "probe"):
        for split in SPLITS:
            parts = [seed["rows"][row][split] for seed in seeds]
            here = {
                f"AUROC of the {'score' if row == 'probe' else 'radius'}, {kind}": estimate(
                    [part["radius"][kind] for part in parts], parts[0]["unsafe"]
                )
                for kind in ("text", "image")
            }
            here |= {name: estimate([part["items"][name] for part in parts]) for name in parts[0]["items"]}
            found.setdefault(row, {})[split] = here
    return found

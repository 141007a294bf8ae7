"""Tuned lens (arXiv 2303.08112, read in the authors' code): ``lens(h + A_l h + b_l)``, one affine map a block.

The maps are trained so that the distribution read from block l comes near the model's final one: KL(final || lens),
on the text positions of the model's *own* chats (its prompts followed by its own greedy answers).  Here each block
starts from the best of several closed-form maps (ridge regression of the last block's state on block l's, the
shortcut of arXiv 2303.09435 [abs], and no map at all), chosen by KL on rows kept apart, and goes on with a few steps of
Adam as long as that KL falls.  [own start; the published lens starts from zero and trains much longer]

The trained maps are kept in a safetensors file under the weights' hash.  They are judged on groups that training never
saw: KL by block, plain lens beside tuned lens.

A trained map can turn perceived danger into refusal words before the model itself does, so the tuned lens tells where
the decision is *linearly* there, not where the model begins to say it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..activations.hooks import attached
from ..activations.sites import Site, tap
from ..data import Sample
from ..errors import DataError
from ..lens import LVLM
from ..models.batching import batches
from ..models.refusal_tokens import refusal_log_odds
from ..stats.auroc import weighted_auroc
from ..stats.curve import curve_from_draws
from ..stats.resampling import Resampling, permute_labels, weighted_mean
from ..storage.arrays import load_arrays, save_arrays
from .spec import LensSize, Measured, MeasureSpec, Products
from .study import Study
from .unembedding import Unembedding

CHATS, TOKENS, ANSWER = 96, 24, 16
"""Chats trained on, positions drawn from each, and tokens of an answer."""

_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
_STEPS, _BATCH, _LOOK = 20, 256, 5
"""Steps of Adam, rows of one, and steps between two looks at the rows kept apart."""


def _logits(lens: Unembedding, states: torch.Tensor) -> torch.Tensor:
    """As :meth:`Unembedding.logits`, with gradients: ``[row, vocab]``."""
    normed = (states if lens.norm is None else lens.norm(states)).float()
    out = normed @ lens.weight.float().T
    out = out if lens.bias is None else out + lens.bias.float()
    return out if lens.softcap is None else lens.softcap * torch.tanh(out / lens.softcap)


def _kl(lens: Unembedding, states: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
    """Mean KL(final || lens(states)) in nats; ``final`` are log-probabilities ``[row, vocab]``."""
    return (final.exp() * (final - _logits(lens, states).log_softmax(-1))).sum(-1).mean()


@dataclass(frozen=True)
class TunedLens:
    """Trained maps of some blocks.

    Attributes:
        lens: final norm and head; blocks: block numbers.
        weight: float32 ``[block, d, d]``; bias: float32 ``[block, d]``; the last block's are zero.
        trained_on: ids of the samples whose chats were used.
    """

    lens: Unembedding
    blocks: tuple[int, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    trained_on: tuple[str, ...] = ()

    def translate(self, states: Any, at: int) -> torch.Tensor:
        """``h + A h + b`` for the block at place ``at``: ``[row, d]``, float32."""
        h = torch.as_tensor(np.asarray(states)).float().to(self.weight.device)
        return h + h @ self.weight[at].T + self.bias[at]

    def logits(self, states: Any, at: int) -> torch.Tensor:
        """Logits ``[row, vocab]`` of states ``[row, d]`` of the block at place ``at``."""
        return self.lens.logits(self.translate(states, at))

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        arrays = {name: getattr(self, name).cpu().numpy() for name in ("weight", "bias")}
        about = {"blocks": json.dumps(list(self.blocks)), "trained_on": json.dumps(list(self.trained_on))}
        save_arrays(path, arrays, about)

    @classmethod
    def load(cls, path: Path, lens: Unembedding) -> TunedLens:
        """Read what :meth:`save` wrote."""
        arrays, about = load_arrays(path)
        blocks, ids = (tuple(json.loads(about[key])) for key in ("blocks", "trained_on"))
        weight, bias = (torch.from_numpy(arrays[key]) for key in ("weight", "bias"))
        return cls(lens, blocks, weight, bias, ids)


def train_tuned_lens(
    lens: Unembedding,
    states: np.ndarray,
    blocks: Sequence[int],
    groups: Any = None,
    steps: int = _STEPS,
    rate: float = 3e-4,
    batch: int = _BATCH,
    seed: int = 0,
    trained_on: Sequence[str] = (),
) -> TunedLens:
    """Train the maps.

    Args:
        lens: final norm and head.
        states: resid_post ``[row, block, d]``; the last block's are the final states, before the norm.
        blocks: block numbers.
        groups: of the rows (one a chat); a fifth of them is kept apart to choose by.
        steps, rate, batch: of Adam.
        seed: of the split and of the batches.
        trained_on: kept with the result.

    Raises:
        DataError: fewer than 5 groups, or fewer than 40 rows.
    """
    names = np.arange(len(states)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    rng = np.random.default_rng(seed)
    if names.max() + 1 < 5 or len(states) < 40:
        raise DataError(f"{len(states)} positions of {names.max() + 1} chats; a tuned lens needs 40 of 5 at least")
    apart = np.isin(names, rng.permutation(names.max() + 1)[: max(1, (names.max() + 1) // 5)])
    x = torch.as_tensor(states, dtype=torch.float32).to(lens.weight.device)
    held, used = torch.from_numpy(np.flatnonzero(apart)), torch.from_numpy(np.flatnonzero(~apart))
    final = torch.cat([lens.logits(part).log_softmax(-1) for part in x[:, -1].split(512)])  # [row, vocab]
    d = x.shape[-1]
    weights, biases = x.new_zeros(len(blocks), d, d), x.new_zeros(len(blocks), d)
    for at in range(len(blocks) - 1):
        h, target = x[:, at], x[:, -1] - x[:, at]
        candidates = [(x.new_zeros(d, d), x.new_zeros(d)), *_ridge(h[used], target[used])]
        with torch.no_grad():
            scores = [float(_kl(lens, h[held] + h[held] @ a.T + b, final[held])) for a, b in candidates]
        best, (a, b) = min(scores), candidates[int(np.argmin(scores))]
        weights[at], biases[at] = a, b
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        adam = torch.optim.Adam([a, b], lr=rate)
        for step in range(steps):
            rows = used[torch.from_numpy(rng.integers(0, len(used), min(batch, len(used))))]
            adam.zero_grad()
            loss = _kl(lens, h[rows] + h[rows] @ a.T + b, final[rows])
            a.grad, b.grad = torch.autograd.grad(loss, [a, b])
            adam.step()
            if step % _LOOK == _LOOK - 1 or step == steps - 1:
                with torch.no_grad():
                    now = float(_kl(lens, h[held] + h[held] @ a.T + b, final[held]))
                if now < best:
                    best, weights[at], biases[at] = now, a.detach().clone(), b.detach().clone()
    return TunedLens(lens, tuple(int(b) for b in blocks), weights, biases, tuple(trained_on))


def _ridge(h: torch.Tensor, target: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ridge maps ``(A [d, d], b [d])`` of ``target`` on ``h``, one a penalty (relative to the mean variance)."""
    mean, goal = h.double().mean(0), target.double().mean(0)
    centred, aim = h.double() - mean, target.double() - goal
    gram, cross = centred.T @ centred, centred.T @ aim
    scale = torch.trace(gram) / len(gram)
    out = []
    for ridge in _RIDGES:
        solved = torch.linalg.solve(gram + ridge * scale * torch.eye(len(gram)).to(gram), cross)  # [d, d]
        out.append((solved.T.float(), (goal - mean @ solved).float()))
    return out


@torch.inference_mode()
def chat_states(
    model: LVLM,
    samples: Sequence[Sample],
    blocks: Sequence[int],
    tokens: int = TOKENS,
    batch_size: int = 32,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """resid_post at random text positions of the model's own chats.

    Returns:
        float32 ``[row, block, d]`` and the row's sample number ``[row]``.
    """
    answers = model.generate(samples, max_new_tokens=ANSWER, batch_size=batch_size)
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    numbers: list[int] = []
    for batch in batches(samples, batch_size):
        encoded = model.encode([samples[i] for i in batch], continuation=[answers[i] for i in batch])
        kept: dict[int, torch.Tensor] = {}

        def read(value: torch.Tensor, site: Site, kept: dict[int, torch.Tensor] = kept) -> None:
            assert site.block is not None
            kept[site.block] = value.float().cpu()

        sites = [Site("resid_post", block) for block in blocks]
        with attached([(site, tap(site, model.anatomy), read) for site in sites]):
            model.logits(encoded)
        for row, number in enumerate(batch):
            text = np.asarray(encoded.layouts[row].part("text"))
            where = np.sort(rng.choice(text, min(tokens, len(text)), replace=False))
            found.append(torch.stack([kept[b][row, where] for b in blocks], 1).numpy())  # [position, block, d]
            numbers += [number] * len(where)
    return np.concatenate(found), np.asarray(numbers)


def fit_or_load(study: Study) -> TunedLens:
    """The study's tuned lens: trained on the chats of a third of its groups, or read from the study's folder."""
    blocks = study.evidence.blocks
    path = None
    if study.out is not None:
        path = study.out / f"tuned_lens-{study.model.weights_hash().removeprefix('sampled-')[:16]}.safetensors"
        if path.is_file():
            kept = TunedLens.load(path, study.lens)
            if kept.blocks == tuple(blocks) and set(kept.trained_on) <= {sample.id for sample in study.samples}:
                return kept
    names = np.unique(study.groups)
    chosen = np.random.default_rng(study.seed).permutation(names)[: max(1, len(names) // 3)]
    rows = study.some(np.flatnonzero(np.isin(study.groups, chosen)), CHATS)
    samples = [study.samples[row] for row in rows]
    study.progress("tuned lens", 0, 1)
    states, number = chat_states(study.model, samples, blocks, batch_size=study.batch_size, seed=study.seed)
    tuned = train_tuned_lens(
        study.lens, states, blocks, number, seed=study.seed, trained_on=[sample.id for sample in samples]
    )
    study.progress("tuned lens", 1, 1)
    if path is not None:
        tuned.save(path)
    return tuned


def _compute(study: Study) -> Measured:
    """AUROC of the tuned lens's refusal log-odds on held-out groups; KL of both lenses beside it."""
    study.needs_last_block()
    tuned = fit_or_load(study)
    by_id = {sample.id: group for sample, group in zip(study.samples, study.groups, strict=True)}
    rows = np.flatnonzero(~np.isin(study.groups, [by_id[name] for name in tuned.trained_on]))
    labels, groups, states = study.labels[rows], study.groups[rows], study.last[rows]
    if len(np.unique(labels)) < 2:
        raise DataError("no harmful and harmless items are left outside the lens's training groups")
    odds = np.empty(states.shape[:2])
    kl = {name: np.empty(states.shape[:2]) for name in ("logit", "tuned")}
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 128)):
        final = study.lens.logits(states[part, -1]).log_softmax(-1)
        for at in range(states.shape[1]):
            logits = {"logit": study.lens.logits(states[part, at]), "tuned": tuned.logits(states[part, at], at)}
            odds[part, at] = refusal_log_odds(logits["tuned"], study.evidence.refusal_ids).cpu().numpy()
            for name, found in logits.items():
                kl[name][part, at] = (final.exp() * (final - found.log_softmax(-1))).sum(-1).cpu().numpy()
    weights = Resampling(groups, study.replicates, study.seed).weights()
    shuffled = permute_labels(labels, groups, study.permutations, study.seed + 1)
    blocks = study.evidence.blocks
    curve = curve_from_draws(
        "tuned_lens", blocks, weighted_auroc(odds, labels)[0], weighted_auroc(odds, labels, weights),
        np.stack([weighted_auroc(odds, row)[0] for row in shuffled]), unit="AUROC", n=len(rows),
    )  # fmt: skip
    why = "a distance to the final distribution"
    others = {
        f"{name}_lens_kl": curve_from_draws(
            name, blocks, value.mean(0), weighted_mean(value, weights), unit="nats", n=len(rows), meta={"no_null": why}
        )
        for name, value in kl.items()
    }
    table = {
        "trained_on": len(tuned.trained_on), "held_out": len(rows),
        "kl_logit": kl["logit"].mean(0).tolist(), "kl_tuned": kl["tuned"].mean(0).tolist(),
    }  # fmt: skip
    return Measured(curve, others, table)


def training_products(rows: int, blocks: int, width: int, vocabulary: int) -> Products:
    """Of :func:`train_tuned_lens` with its defaults, on so many rows in groups of equal size."""
    apart = rows // 5
    used, square = rows - apart, float(width) ** 2
    look = vocabulary * width + square  # a row through the map and the head
    looks = apart * (1 + len(_RIDGES) + -(-_STEPS // _LOOK))
    steps = 2 * _STEPS * min(_BATCH, used)  # there and back
    # LU, then as many right-hand sides as the width, then the map of the mean
    solved = len(_RIDGES) * ((1 / 3 + 1) * width + 1) * square
    return Products(
        single=float(rows) * vocabulary * width + (blocks - 1) * (looks + steps) * look,
        double=(blocks - 1) * (2 * used * square + solved),
    )


def _products(size: LensSize) -> Products:
    """Training on the chats of a third of the items, then both lenses on the others."""
    chats = min(CHATS, max(1, size.items // 3))
    trained = training_products(chats * TOKENS, size.blocks, size.width, size.vocabulary)
    head = size.vocabulary * size.width
    read = (size.items - chats) * (head + size.blocks * (2.0 * head + size.width**2))
    return Products(trained.single + read, trained.double)


SPEC = MeasureSpec(
    "tuned_lens", "expression", "forward",
    "arXiv 2303.08112 [code]; ridge start after arXiv 2303.09435 [abs]; AUROC on held-out groups [own]",
    "the same through a lens trained on the model's own chats (not counted: a trained map turns perceived "
    "danger into words before the model does)", _compute, votes=False, expected=(),
    rows=lambda size: 3 * min(CHATS, size.items),  # prompts, their answers (about a row more), both together
    products=_products, planted="refused danger",
)  # fmt: skip

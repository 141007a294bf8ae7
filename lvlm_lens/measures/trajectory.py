"""Trajectory of the answer through the blocks: how the decision becomes words (logit lens).

At every block the lens ``W norm(h)`` is read at the last prompt token: refusal log-odds ``log P(R) - log(1 - P(R))``
with R the refusal tokens, KL of the final distribution to the lens's, entropy, rank of the answer token, and the
top-1 token.
The *expression onset* of an item is the first block from which the answer token is top-1 and stays
(arXiv 2410.12662, read in the authors' code); items on which it never happens are counted apart, never averaged
in as -1.

The expression curve is the *balanced decision agreement*: the mean, over the two kinds, of the share of refused
items whose lens already says a refusal token and of answered items whose lens does not.  It is 0.5 where the lens
says the same to all, 1 where every decision is in words.  [own]  Agreement with the final token is 1 at the last
block of any network, a random one included, and a model that always begins with the same word agrees early; it is
kept as ``token_curve_`` and not used as evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from ..models.anatomy import LOGITS
from ..stats.auroc import weighted_auroc
from ..stats.curve import Curve
from ..stats.resampling import Resampling, permute_labels, weighted_mean
from .blocks import as_blocks, as_matrix, iterate
from .evidence import Evidence
from .measure import Measure
from .spec import Measured, MeasureSpec
from .study import Study
from .unembedding import Unembedding, token_ids

LEAST = 5
"""Fewest refused, and fewest answered, items of a decision curve: a bootstrap draw misses all of k items in a share
``exp(-k)`` of draws, and of fewer than five too often for an interval.  On constructed models without expression one
or two items that refuse by chance passed for a decision in words from block 0."""


@dataclass(eq=False, repr=False)
class Trajectory(Measure):
    """Logit-lens trajectory; ``curve_`` is the balanced decision agreement.

    Args:
        unembedding: final norm and head of the model that gave the activations.
        refusal_ids: first tokens of refusals.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes (``[sample, block]`` unless said otherwise):
        refusal_log_odds_, kl_ (nats), entropy_ (nats), answer_rank_ (0 = top), top1_ (token ids),
        says_refusal_ (top-1 is a refusal token), final_top1_ ``[sample]``, refused_ ``[sample]``;
        onset_ ``[sample]``: block number of the expression onset, -1 where it never happens; never_: how many;
        decision_curve_ (= curve_), log_odds_curve_ (mean refused minus mean answered, nats), token_curve_,
        kl_curve_ (mean, nats; no null: there is nothing to shuffle).
    """

    name = "trajectory"
    unit = "balanced agreement"
    source = "logit lens; onset of arXiv 2410.12662 [code]; balanced decision agreement [own]"

    unembedding: Unembedding
    refusal_ids: Sequence[int]

    def fit(self, activations: Any, labels: Any = None, groups: Any = None, answers: Any = None) -> Trajectory:
        """Read all blocks.

        Args:
            activations: block outputs ``[sample, block, d]`` at the last prompt token, all up to the last block,
                which is taken before the final norm.
            labels: ``[sample]`` bool, refused or not, as the model decided (generation or judge); default:
                the last block's top-1 token is a refusal token.
            groups: resampled and shuffled together.
            answers: ``[sample]`` token id of the answer; default the last block's top-1.
        """
        self._read(activations, answers)
        return self._fit(activations, labels, groups)

    def fit_readings(
        self, activations: Any, log_odds: np.ndarray, top: np.ndarray, kl: np.ndarray, labels: Any, groups: Any = None
    ) -> Trajectory:
        """As :meth:`fit`, from what was read through the lens before; entropies and ranks are then not known.

        ``log_odds`` and ``kl`` in nats and ``top`` token ids, ``[sample, block]``; ``activations`` names the blocks.
        """
        ids = token_ids(self.refusal_ids, self.unembedding.vocab, "refusal_ids")
        self.refusal_log_odds_, self.kl_, self.top1_ = (np.asarray(a) for a in (log_odds, kl, top))
        self.says_refusal_ = np.isin(self.top1_, ids)
        self.final_top1_ = self.top1_[:, -1].copy()
        self.answer_on_top_ = self.top1_ == self.final_top1_[:, None]
        return self._fit(activations, labels, groups)

    def _fit(self, activations: Any, labels: Any, groups: Any) -> Trajectory:
        n = len(self.final_top1_)
        self.refused_ = self.says_refusal_[:, -1] if labels is None else np.asarray(labels).astype(bool)
        if len(self.refused_) != n:
            raise UsageError(f"{len(self.refused_)} decisions given for {n} samples")
        weights = Resampling(groups, self.replicates, self.random_state, n=n).weights().astype(np.float64)
        self._curves(activations, groups, weights, n)
        self.curve_ = self.decision_curve_
        self._onsets()
        return self

    def _read(self, activations: Any, answers: Any) -> None:
        u, source = self.unembedding, as_blocks(activations)
        ids = torch.as_tensor(token_ids(self.refusal_ids, u.vocab, "refusal_ids"), device=u.weight.device)
        is_refusal = torch.zeros(u.vocab, dtype=torch.bool, device=u.weight.device)
        is_refusal[ids] = True
        last = as_matrix(source.block(source.blocks[-1]))
        n, blocks = len(last), len(source.blocks)
        if answers is not None and len(np.asarray(answers)) != n:
            raise UsageError(f"{len(np.asarray(answers))} answer tokens given for {n} samples")
        shape = (n, blocks)
        self.refusal_log_odds_, self.kl_, self.entropy_ = (np.empty(shape) for _ in range(3))
        self.answer_rank_, self.top1_ = (np.empty(shape, dtype=np.int64) for _ in range(2))
        self.says_refusal_ = np.empty(shape, dtype=bool)
        size = max(1, LOGITS // u.vocab)  # the final distribution is held for one piece of samples at a time
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            final = torch.log_softmax(u.logits(last[part]), -1)
            answer = final.argmax(-1) if answers is None else torch.as_tensor(np.asarray(answers)[part])
            for at, (_, rows) in enumerate(iterate(source, n)):
                logp = torch.log_softmax(u.logits(rows[part]), -1)
                p = logp.exp()
                inside = torch.logsumexp(logp[:, ids], -1)
                outside = torch.logsumexp(logp.masked_fill(is_refusal, -torch.inf), -1)
                own = logp.gather(1, answer[:, None].to(logp.device))
                top = logp.argmax(-1)
                for name, value in (
                    ("refusal_log_odds_", inside - outside),
                    ("kl_", (final.exp() * (final - logp)).sum(-1)),
                    ("entropy_", -(p * logp).sum(-1)),
                    ("answer_rank_", (logp > own).sum(-1)),
                    ("top1_", top),
                    ("says_refusal_", is_refusal[top]),
                ):
                    getattr(self, name)[part, at] = value.cpu().numpy()
        self.final_top1_ = self.top1_[:, -1].copy()
        self.answer_on_top_ = self.answer_rank_ == 0

    def _curves(self, activations: Any, groups: Any, weights: np.ndarray, n: int) -> None:
        refused, said = self.refused_, self.says_refusal_.astype(np.float64)
        counts = {"refused": int(refused.sum()), "answered": int((~refused).sum())}

        def both(name: str, unit: str, right: np.ndarray, wrong: np.ndarray, minus: bool) -> Curve:
            def combine(mask: np.ndarray, w: np.ndarray) -> np.ndarray:
                with np.errstate(invalid="ignore", divide="ignore"):
                    a, b = weighted_mean(right, w * mask), weighted_mean(wrong, w * ~mask)
                return a - b if minus else 0.5 * (a + b)

            ones = np.ones((1, n))
            undefined = {}
            fewest = min(counts.values())
            if fewest < LEAST:
                if fewest == 0:
                    does = "refuses nothing" if counts["refused"] == 0 else "refuses everything"
                    does += f" among the {n} items"
                else:
                    word = "refuses" if counts["refused"] == fewest else "answers"
                    does = f"{word} only {fewest} of the {n} items (at least {LEAST} are needed)"
                undefined = {"undefined": f"the model {does}, so there is no decision to follow"}
            shuffled = permute_labels(refused, groups, self.permutations, self.random_state + 1)
            null = np.concatenate([combine(y[None], ones) for y in shuffled])
            return self._keep(
                activations,
                np.full(said.shape[1], np.nan) if undefined else combine(refused[None], ones)[0],
                list(combine(refused[None], weights).T), list(null.T), n, name=name, unit=unit, **counts, **undefined,
            )  # fmt: skip

        self.decision_curve_ = both("expression", "balanced agreement", said, 1 - said, False)
        self.log_odds_curve_ = both("refusal log-odds", "nats", self.refusal_log_odds_, self.refusal_log_odds_, True)
        agrees = (self.top1_ == self.final_top1_[:, None]).astype(np.float64)
        others = permute_labels(self.final_top1_, groups, self.permutations, self.random_state + 1)
        null = np.stack([(self.top1_ == other[:, None]).mean(0) for other in others])
        self.token_curve_ = self._keep(
            activations, agrees.mean(0), list(weighted_mean(agrees, weights).T), list(null.T), n,
            name="agreement with the final token", unit="share of items",
        )  # fmt: skip
        self.kl_curve_ = self._keep(
            activations, self.kl_.mean(0), list(weighted_mean(self.kl_, weights).T), None, n,
            name="KL to the final distribution", unit="nats",
        )  # fmt: skip

    def _onsets(self) -> None:
        """Refused items: from where a refusal token is top-1 and stays; others: from where the answer token is."""
        hit = np.where(self.refused_[:, None], self.says_refusal_, self.answer_on_top_)
        stays = np.flip(np.logical_and.accumulate(np.flip(hit, 1), 1), 1)  # from here to the end
        first = stays.argmax(1)
        self.onset_ = np.where(stays.any(1), np.asarray(self.blocks_)[first], -1)
        self.never_ = int((self.onset_ < 0).sum())

    def onset_summary(self) -> dict[str, dict[str, float]]:
        """By kind of item: ``count``, ``never``, and median, quartiles of the onsets that do happen (block numbers)."""
        out = {}
        for kind, mask in (("refused", self.refused_), ("answered", ~self.refused_)):
            happened = self.onset_[mask & (self.onset_ >= 0)]
            quartiles = np.quantile(happened, [0.25, 0.5, 0.75]) if len(happened) else [np.nan] * 3
            out[kind] = {
                "count": int(mask.sum()), "never": int((self.onset_[mask] < 0).sum()),
                "first_quartile": float(quartiles[0]), "median": float(quartiles[1]),
                "third_quartile": float(quartiles[2]),
            }  # fmt: skip
        return out

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """AUROC of the refusal log-odds by block for the given decisions on other samples, ``[block]``."""
        other = Trajectory(self.unembedding, self.refusal_ids)
        other._read(activations, None)
        return weighted_auroc(other.refusal_log_odds_, labels)[0]


def _compute(study: Study) -> Measured:
    study.needs_last_block()

    def fit(read: Evidence, lens: Any) -> Trajectory:
        measure = Trajectory(lens, study.evidence.refusal_ids, **study.draws)
        if read.lens_kl is None:
            return measure.fit(study.last_blocks if read is study.evidence else read, study.refused, study.groups)
        # the lens was read when the model ran; a second time would cost as much as many forwards
        found = (read.lens_log_odds, read.lens_top, read.lens_kl)
        return measure.fit_readings(read, *found, study.refused, study.groups)

    own = fit(study.evidence, study.lens)
    curve = own.curve_
    if study.lens_twin is not None:  # the twin's lens against the model's decisions
        curve = curve.with_baseline("random_twin", fit(*study.lens_twin).curve_)
    kl = replace(own.kl_curve_, meta={**own.kl_curve_.meta, "no_null": "a distance to the final distribution"})
    others = {"trajectory_log_odds": own.log_odds_curve_, "trajectory_kl": kl}
    return Measured(curve, others, {"onsets": own.onset_summary()})


SPEC = MeasureSpec(
    "trajectory", "expression", "cheap", Trajectory.source, "does the lens already say what the model decides?",
    _compute, default=True, probes=0.0, planted="refusal",
)  # fmt: skip

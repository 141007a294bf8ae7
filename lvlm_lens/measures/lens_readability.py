"""Lens readability: are the top tokens of the lens words of the answer?

At the last token [3P for SASA], and at image positions (arXiv 2410.07149, read in the authors' code): the share of the
top-5 lens tokens of a block that belong to a word list (token ids of the answer vocabulary; not a regular
expression).  The null is the same share for random token sets of the same size; it does not know that some tokens
(long unembedding vectors, frequent words) are high in any lens, so an early block above it is no finding yet: what
counts is the rise over depth, and the random-weight twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..activations.capture import capture
from ..data import Sample
from ..stats.curve import Curve
from ..stats.resampling import Resampling, weighted_mean
from .blocks import iterate
from .measure import Measure
from .spec import Measured, MeasureSpec
from .study import Study
from .unembedding import Unembedding, token_ids
from .words import answer_words


@dataclass(eq=False, repr=False)
class LensReadability(Measure):
    """Share of the top lens tokens that are in the word list, one value per block.

    Args:
        unembedding: final norm and head.
        words: token ids of the word list.
        top: how many lens tokens are looked at.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_; item_values_ ``[sample, block]``; top_tokens_ ``[sample, block, top]`` token ids, best first.
    """

    name = "lens_readability"
    unit = "share of top tokens"
    source = "SASA [3P] (last token), arXiv 2410.07149 [code] (image positions)"

    unembedding: Unembedding
    words: Sequence[int]
    top: int = 5

    def fit(self, activations: Any, labels: Any = None, groups: Any = None) -> LensReadability:
        """``activations [row, block, d]``: one row per sample, or per image position with ``groups`` = sample."""
        self.top_tokens_ = self._top(activations)
        n = len(self.top_tokens_)
        vocab = self.unembedding.vocab
        ids = token_ids(self.words, vocab, "words")
        self.item_values_ = np.isin(self.top_tokens_, ids).mean(-1)
        weights = Resampling(groups, self.replicates, self.random_state, n=n).weights().astype(np.float64)
        rng = np.random.default_rng(self.random_state + 1)
        sets = (rng.choice(vocab, len(ids), replace=False) for _ in range(self.permutations))
        null = np.stack([np.isin(self.top_tokens_, drawn).mean((0, 2)) for drawn in sets])
        self.curve_ = self._keep(
            activations, self.item_values_.mean(0), list(weighted_mean(self.item_values_, weights).T), list(null.T), n,
            name="lens readability", words=len(ids), vocabulary=vocab,
        )  # fmt: skip
        return self

    def _top(self, activations: Any) -> np.ndarray:
        blocks = []
        for _, rows in iterate(activations):
            best = np.empty((len(rows), self.top), dtype=np.int64)
            for part, logits in self.unembedding.chunks(rows):
                best[part] = logits.topk(self.top, -1).indices.cpu().numpy()
            blocks.append(best)
        return np.stack(blocks, 1)

    def score(self, activations: Any, labels: Any = None) -> np.ndarray:
        """The share on other rows, ``[block]``."""
        return np.isin(self._top(activations), np.asarray(self.words)).mean((0, 2))


PICTURED = 32
"""Items whose picture is read too."""


def _compute(study: Study) -> Measured:
    words, origin = answer_words(study.model, study.samples)
    settings = study.draws | {"permutations": min(study.permutations, 50)}

    def fit(rows: Any, groups: Any, lens: Any) -> Curve:
        return LensReadability(lens, words, **settings).fit(rows, None, groups).curve_

    curve = fit(study.last_blocks, study.groups, study.lens)
    if study.lens_twin is not None:
        twin, head = study.lens_twin
        curve = curve.with_baseline("random_twin", fit(twin, study.groups, head))
    others = {}
    if study.pictures:
        rows = study.some(np.flatnonzero([bool(s.images) for s in study.samples]), PICTURED)
        shown = [study.samples[row] for row in rows]
        fewest = min(len(study.model.encode(sample).layouts[0].part("image")) for sample in shown)
        if fewest:  # none where pictures are read by cross-attention only
            states = _image_states(study, shown, fewest)
            flat = states.reshape(-1, *states.shape[2:])
            others["lens_readability_image"] = fit(flat, np.repeat(study.groups[rows], states.shape[1]), study.lens)
    return Measured(replace(curve, meta={**curve.meta, "words_from": origin}), others)


def _image_states(study: Study, shown: Sequence[Sample], fewest: int, most: int = 8) -> np.ndarray:
    """resid_post at up to ``most`` image tokens spread over the picture, ``[sample, position, block, d]``."""
    step = max(1, fewest // most)
    sites = [f"blocks.{b}.hook_resid_post" for b in study.evidence.blocks]
    where = f"image[:{min(fewest, most * step)}:{step}]"
    found = capture(study.model, shown, sites, where, batch_size=study.batch_size)
    return found["resid_post"].transpose(0, 2, 1, 3)


SPEC = MeasureSpec(
    "lens_readability", "semantics", "cheap", LensReadability.source,
    "share of the lens's top tokens that are answer words (not counted: its null does not know frequent "
    "tokens)", _compute, votes=False, rows=lambda size: min(PICTURED, size.items),
    untested="constructed models answer with one of two words, which are their lens's top tokens at every block",
)  # fmt: skip

"""In-context learning for safe-image, safe-text, unsafe-together requests (SSUI, arXiv 2508.08926).

k demonstrations stand before the request: picture (in words), request, explained reasoning, safe reply.  Shots are
chosen at random, by category (in turn over the training set's categories), or nearest by the model's own residual
at a middle block.  They are given as text, which single-image models need; the picture shown is the query's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..activations import Activations, capture
from ..data import Sample
from ..errors import DataError, UsageError
from ..lens import LVLM
from .base import Defense, Guarded, filled, labelled, prompt_text

CHOICES = ("random", "category", "nearest")


@dataclass(eq=False, repr=False)
class SSUIInContext(Defense):
    """k demonstrations before the request.

    Args:
        k: number of shots.
        choice: ``random``, ``category`` or ``nearest``.
        block: block of the residual for ``nearest``; default the middle one.
        shot_file, query_file: prompts in place of the package's.
        batch_size: rows per forward when embeddings are taken.
        random_state: seed of the choice.

    Attributes (after ``fit``): ``pool_`` (usable training samples), ``embeddings_`` for ``nearest``.
    """

    name = "ssui_icl"
    needs = frozenset({"training data", "captions"})
    approximation = "demonstrations are given as text, in this project's own layout; files replace it"
    source = "arXiv 2508.08926"

    k: int = 2
    choice: str = "category"
    block: int | None = None
    shot_file: str | Path | None = None
    query_file: str | Path | None = None
    batch_size: int = 32
    random_state: int = 0

    def fit(self, model: LVLM, data: Sequence[Sample]) -> SSUIInContext:
        """Collect the demonstrations: labelled samples with a caption and a reference reply."""
        self.check_model(model)
        if self.choice not in CHOICES:
            raise UsageError(f"choice is {self.choice!r}; it is one of {', '.join(CHOICES)}")
        known, _ = labelled(data)
        self.pool_ = [s for s in known if s.reference and (s.caption or not s.images)]
        if not 1 <= self.k <= len(self.pool_):
            raise DataError(
                f"{len(self.pool_)} of {len(known)} training samples have a caption and a reference reply; "
                f"k = {self.k} shots cannot be drawn from them"
            )
        rng = np.random.default_rng(self.random_state)
        self.order_ = rng.permutation(len(self.pool_))
        if self.choice == "nearest":
            self.block_ = model.n_blocks // 2 if self.block is None else model.anatomy.block_index(self.block)
            self.embeddings_ = self._embed(model, self.pool_)
        return self

    def _embed(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        site = f"blocks.{self.block_}.hook_resid_post"
        rows = capture(model, samples, site, "last", batch_size=self.batch_size)["resid_post", self.block_][:, 0]
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def shots(self, queries: Sequence[Sample], model: LVLM) -> list[list[Sample]]:
        """The demonstrations of each query; never a sample of the query's own group."""
        if not hasattr(self, "pool_"):
            raise UsageError(f"defence {self.name!r} is not fitted yet; call fit(model, data) first")
        near = self._embed(model, queries) @ self.embeddings_.T if self.choice == "nearest" else None
        chosen = []
        for row, query in enumerate(queries):
            order = self.order_ if near is None else np.argsort(-near[row], kind="stable")
            allowed = [self.pool_[i] for i in order if not query.group or self.pool_[i].group != query.group]
            chosen.append(_by_turns(allowed, self.k) if self.choice == "category" else allowed[: self.k])
        return chosen

    def _prompted(self, samples: Sequence[Sample], model: LVLM) -> list[Sample]:
        shot, query = prompt_text("ssui_shot", self.shot_file), prompt_text("ssui_query", self.query_file)
        made = []
        for sample, shots in zip(samples, self.shots(samples, model), strict=True):
            texts = [
                filled(
                    shot,
                    caption=s.caption or "(no picture)",
                    question=s.text,
                    reasoning=s.warning or "Nobody is put in danger by picture and request together.",
                    reply=s.reference or "",
                )
                for s in shots
            ]
            made.append(replace(sample, text=filled(query, shots="\n\n".join(texts), question=sample.text)))
        return made

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """Answers to the requests with their demonstrations."""
        return guarded.inner.generate(self._prompted(samples, guarded.lvlm), max_new_tokens, batch_size)

    def capture(
        self, model: LVLM, data: Sequence[Sample], sites: Any = "resid_post", positions: str = "last", **options: Any
    ) -> Activations:
        """Activations of the requests with their demonstrations."""
        acts = capture(model, self._prompted(list(data), model), sites=sites, positions=positions, **options)
        original = {sample.id: sample for sample in data}
        acts.samples = tuple(original[sample.id] for sample in acts.samples)
        return acts


def _by_turns(pool: Sequence[Sample], k: int) -> list[Sample]:
    """The first of each (harmful or not, category) in turn, harmful and harmless alternating."""
    chosen: list[Sample] = []
    used: set[str] = set()
    for turn in range(k):
        want = 1 - turn % 2
        left = [s for s in pool if all(s is not c for c in chosen)]
        best = next((s for s in left if s.harmful == want and s.category not in used), None)
        best = best or next((s for s in left if s.harmful == want), None) or (left[0] if left else None)
        if best is not None:
            chosen.append(best)
            used.add(best.category)
    return chosen

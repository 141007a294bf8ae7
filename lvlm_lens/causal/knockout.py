"""Attention knockout: which flow of information, over which blocks, the answer needs.

In a window of blocks the queries of one position group are kept from seeing the keys of another; the blocked
weights are exactly 0 and each row still sums to 1.  Over windows of 9 blocks this is the analysis of arXiv
2411.18620 (after arXiv 2304.14767), which reports the relative change of the answer's first-token probability on
items answered correctly; choose such items before calling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..activations.features import FeatureCache
from ..activations.loop import Progress
from ..data import Sample
from ..interventions.edit import Edit, knockout, window
from ..lens import LVLM
from ..models.encode import Encoded
from .effects import Effects, measure_edits
from .metrics import AnswerProbability, LogitsFunction, Metric

FLOWS = (("image", "question"), ("image", "last"), ("question", "last"))


def _edits(blocks: range, source: str, target: str, encoded: Encoded) -> list[Edit]:
    return knockout(encoded, blocks, [(source, target)])


def attention_knockout(
    model: LVLM,
    data: Sequence[Sample],
    flows: Sequence[tuple[str, str]] = FLOWS,
    width: int = 9,
    metric: str | LogitsFunction | Metric | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    centres: Sequence[int] | None = None,
) -> Effects:
    """Block each flow (source, target) in a window of ``width`` blocks around every block (or ``centres``).

    The default metric is the probability of the model's own first answer token, so that ``relative`` is the published
    quantity.  Conditions are named ``source > target @ block``, flow by flow, block by block.
    """
    conditions = [
        (f"{source} > {target} @ {centre}", partial(_edits, window(centre, width, model.n_blocks), source, target))
        for source, target in flows
        for centre in (range(model.n_blocks) if centres is None else centres)
    ]
    features = FeatureCache(model)  # attention is blocked in the decoder only, so a picture's features stay
    return measure_edits(model, data, conditions, metric or AnswerProbability(), batch_size, progress, features)

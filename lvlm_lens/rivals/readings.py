"""What the procedures read of a model, one row per sample: read once, kept, and cut into subsets as arrays.

Everything that needs the model is here; a procedure is arithmetic on these arrays, so it can be asked again on half of
the groups, or with shuffled labels, without another forward.  A field that cannot be read is ``None`` and says why in
``reasons``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

ROWWISE = ("last", "mean", "cosines", "lens_top", "top", "heads_right", "push", "drop", "gap", "first_token")


@dataclass(frozen=True)
class Readings:
    """Arrays of ``n`` labelled samples and ``B`` blocks.

    Attributes:
        labels: int64 ``[n]``, 1 harmful; groups: ``[n]``; joint: bool ``[n]``, items whose harm neither words nor
            picture tell alone (:func:`~lvlm_lens.measures.items.joint_items`).
        blocks: block numbers; depth: blocks of the model; pictures: whether any item shows one.
        refusal_ids: token ids.
        last: float32 ``[n, B, d]`` resid_post at the last prompt token; mean: the same averaged over the prompt.
        cosines: ``[n, B]`` HiddenDetect's F; lens_top: ``[n, B]``, top: ``[n]``, token ids of lens and model.
        heads_right: bool ``[n, H]``, the head's probe is right on the sample it did not see; head_blocks: ``[H]``.
        push: ``[n, B]``, the picture's shift along the words' harmful direction as a share of its length; NaN where
            there is no picture or caption.
        drop, gap: ``[n, B]`` and ``[n]``, in nats, at the row of a pair's harmful member, NaN elsewhere: loss of
            refusal log-odds when the block's MLP output at the last token is that of the harmless member, and the
            pair's whole difference.
        first_token: ``[n]`` out-of-fold log-odds of a probe on the first token's logits; fold: ``[n]``.
        reasons: by field, why it is missing.
    """

    labels: np.ndarray
    groups: np.ndarray
    joint: np.ndarray
    blocks: tuple[int, ...]
    depth: int
    pictures: bool
    refusal_ids: tuple[int, ...] = ()
    last: np.ndarray | None = field(default=None, repr=False)
    mean: np.ndarray | None = field(default=None, repr=False)
    cosines: np.ndarray | None = field(default=None, repr=False)
    lens_top: np.ndarray | None = field(default=None, repr=False)
    top: np.ndarray | None = field(default=None, repr=False)
    heads_right: np.ndarray | None = field(default=None, repr=False)
    head_blocks: np.ndarray | None = field(default=None, repr=False)
    push: np.ndarray | None = field(default=None, repr=False)
    drop: np.ndarray | None = field(default=None, repr=False)
    gap: np.ndarray | None = field(default=None, repr=False)
    first_token: np.ndarray | None = field(default=None, repr=False)
    fold: np.ndarray | None = field(default=None, repr=False)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: np.ndarray) -> Readings:
        """The same for some samples (row numbers)."""
        cut: dict[str, Any] = {name: getattr(self, name)[index] for name in ("labels", "groups", "joint")}
        for name in (*ROWWISE, "fold"):
            value = getattr(self, name)
            if value is not None:
                cut[name] = value[index]
        return replace(self, **cut)

    def relabelled(self, labels: np.ndarray) -> Readings:
        """The same with other labels: what a procedure does with labels that mean nothing."""
        return replace(self, labels=labels)

    @property
    def harmful(self) -> np.ndarray:
        """Bool ``[n]``."""
        return self.labels == 1

    def missing(self, names: tuple[str, ...]) -> str:
        """Why a procedure that needs these fields cannot be run, or ``""``."""
        for name in names:
            if getattr(self, name) is None:
                return self.reasons.get(name, f"{name} was not read")
        return ""

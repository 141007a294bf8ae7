"""What a patch is measured by: one number a prompt from its first-answer-token logits.

``refusal_log_odds``   ``log P_ref - log(1 - P_ref)``, P_ref summed over refusal tokens (arXiv 2406.11717)
``answer_logit_diff``  logit of the clean prompt's own first answer token minus that of the corrupted prompt's
``answer_probability`` probability of the clean prompt's own first answer token
``kl``                 ``KL(P_clean || P)``: 0 where the clean behaviour is fully there

All are continuous, in nats or logits.  A metric sees the two baselines before it sees any cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from ..errors import UsageError, near_matches
from ..lens import LVLM
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids

LogitsFunction = Callable[[torch.Tensor], torch.Tensor]


class Metric(Protocol):
    """``prepare`` sees the baselines' logits ``[pair, vocab]``; calling gives one number a row."""

    name: str

    def prepare(self, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        """Look at the baselines of the pairs that the next calls are about."""

    def __call__(self, logits: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
        """``[row]`` for logits ``[row, vocab]``, each row belonging to the pair of that number."""


class RefusalLogOdds:
    """Refusal log-odds at the first answer position."""

    name = "refusal_log_odds"

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.token_ids = list(token_ids)

    def prepare(self, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        """Nothing to learn from the baselines."""

    def __call__(self, logits: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
        """``[row]``, in nats."""
        return refusal_log_odds(logits, self.token_ids)


class AnswerLogitDiff:
    """Logit of one answer minus another, by pair.

    Args:
        tokens: ``(clean answer, corrupted answer)`` token ids, one tuple a pair or one for all; by default the
            model's own first tokens on the two prompts.  Where those are equal the difference is 0 in both
            baselines, and the pair is dropped as having too small a denominator.
    """

    name = "answer_logit_diff"

    def __init__(self, tokens: tuple[int, int] | None = None) -> None:
        self.tokens = tokens
        self._wanted = torch.zeros(0, 2, dtype=torch.long)

    def prepare(self, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        """Take the model's own answers on the two prompts, unless tokens were given."""
        own = torch.stack([clean.argmax(-1), corrupted.argmax(-1)], 1)  # [pair, 2]
        self._wanted = own if self.tokens is None else torch.tensor([self.tokens]).expand(len(clean), 2).to(own)

    def __call__(self, logits: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
        """``[row]``, a difference of logits."""
        picked = logits.gather(1, self._wanted[list(pairs)].to(logits.device))  # [row, 2]
        return picked[:, 0] - picked[:, 1]


class KLFromClean:
    """``KL(P_clean || P)`` in nats."""

    name = "kl"

    def __init__(self) -> None:
        self._clean = torch.zeros(0)

    def prepare(self, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        """Keep the clean prompts' distributions."""
        self._clean = clean.float().log_softmax(-1)

    def __call__(self, logits: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
        """``[row]``, in nats."""
        clean = self._clean[list(pairs)].to(logits.device)
        return (clean.exp() * (clean - logits.float().log_softmax(-1))).sum(-1)


class AnswerProbability:
    """Probability of the clean prompt's own first answer token."""

    name = "answer_probability"

    def __init__(self) -> None:
        self._wanted = torch.zeros(0, dtype=torch.long)

    def prepare(self, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        """Take the model's own first answer tokens on the clean prompts."""
        self._wanted = clean.argmax(-1)

    def __call__(self, logits: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
        """``[row]``, 0 to 1."""
        wanted = self._wanted[list(pairs)].to(logits.device)
        return logits.float().softmax(-1).gather(1, wanted[:, None])[:, 0]


class OfLogits:
    """A user's own ``f(logits [batch, vocab]) -> [batch]``."""

    def __init__(self, function: LogitsFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def prepare(self, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        """Nothing to learn from the baselines."""

    def __call__(self, logits: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
        """``[row]``, whatever the function measures; raises where it gives no number a row."""
        values = torch.as_tensor(self.function(logits))
        if values.shape != (len(logits),):
            raise UsageError(
                f"metric {self.name!r} returned shape {tuple(values.shape)} for {len(logits)} rows; one number a row"
            )
        return values


METRICS = ("refusal_log_odds", "answer_logit_diff", "answer_probability", "kl")


def make_metric(metric: str | LogitsFunction | Metric, model: LVLM) -> Metric:
    """A metric by name, from a plain function of logits, or as given (it then has ``prepare``)."""
    if metric == "refusal_log_odds":
        return RefusalLogOdds(refusal_token_ids(model))
    if metric == "answer_logit_diff":
        return AnswerLogitDiff()
    if metric == "answer_probability":
        return AnswerProbability()
    if metric == "kl":
        return KLFromClean()
    if isinstance(metric, str):
        raise UsageError(f"no metric {metric!r}; known metrics: {', '.join(METRICS)}{near_matches(metric, METRICS)}")
    return metric if hasattr(metric, "prepare") else OfLogits(metric)  # type: ignore[return-value]


def numbers(metric: Metric, logits: torch.Tensor, pairs: Sequence[int]) -> np.ndarray:
    """Float64 ``[row]`` of a metric."""
    return metric(logits, pairs).detach().double().cpu().numpy()

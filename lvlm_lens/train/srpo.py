"""An RPO-style approximation of SRPO (arXiv 2509.12060): learn from branches of a reasoning path, judged by their end.

SRPO's own objective is not public; what summaries say of it (a reference term and a weighted exploration term, branches
labelled by a function of the final answer) is Reasoning Paths Optimization (arXiv 2410.10858), which is built here:

1. The reference reasoning, a sentence a step; its prefixes are "", s1, s1 + s2, ...
2. From every prefix the base draws continuations.  A continuation is accepted where its final answer is right: a
   refusal of a harmful request, an answer to a harmless one; else it is rejected.
3. Rows are the pairs (accepted, rejected) of one prefix.
4. ``L = -l(prefix + branch+) + beta * -log sigmoid((b+ - b-) - (log(1 - e^b+) - log(1 - e^b-)))`` with ``l`` and ``b``
   length-averaged log-likelihoods, ``b`` over the branches only: over what follows the longest common beginning.

In the release a pair of equal rows stops the training in a debugger, and ``log1p(-exp(x))`` is minus infinity near
x = 0; here such pairs are dropped and :func:`log1mexp` is used.  At least four other methods are called SRPO.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from ..data import Sample
from ..errors import DataError
from ..evaluate.refusal import refusal_rule
from ..evaluate.thinking import split_thinking
from .adapter_method import AdapterMethod
from .drawing import drawn_replies
from .method import Row, Settings
from .records import dataset_of, preference
from .replies import reasoning_steps

if TYPE_CHECKING:
    from ..lens import LVLM


def log1mexp(x: torch.Tensor) -> torch.Tensor:
    """``log(1 - exp(x))`` for x < 0, exact at both ends (Maechler 2012): split at -ln 2.

    The branch that is not taken is fed a harmless value, so that its gradient is no NaN.
    """
    near = x > -math.log(2)
    a = torch.where(near, x, torch.full_like(x, -1.0))
    b = torch.where(near, torch.full_like(x, -1.0), x)
    return torch.where(near, torch.log(-torch.expm1(a)), torch.log1p(-torch.exp(b)))


def rpo_loss(reference: torch.Tensor, accepted: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """RPO's loss, the mean over rows.

    Args:
        reference: length-averaged log-likelihood of prefix and accepted branch ``[row]``.
        accepted, rejected: of the branches only ``[row]``; clamped just below 0.
        beta: weight of the exploration term.
    """
    accepted, rejected = accepted.clamp(max=-1e-6), rejected.clamp(max=-1e-6)
    odds = (accepted - rejected) - (log1mexp(accepted) - log1mexp(rejected))
    return (-reference - beta * functional.logsigmoid(odds)).mean()


def branch_masks(ids: torch.Tensor, reply: torch.Tensor) -> torch.Tensor:
    """What of each reply follows the longest beginning that it shares with its partner's.

    Args:
        ids: int64 ``[2 * row, token]``, accepted rows first; reply: bool, the tokens of the replies.

    Returns:
        bool ``[2 * row, token]``.
    """
    half = len(ids) // 2
    masks = reply.clone()
    for row in range(half):
        mine, other = reply[row].nonzero()[:, 0], reply[row + half].nonzero()[:, 0]
        shared = 0
        for a, b in zip(mine.tolist(), other.tolist(), strict=False):
            if ids[row, a] != ids[row + half, b]:
                break
            shared += 1
        masks[row, mine[:shared]] = False
        masks[row + half, other[:shared]] = False
    return masks


def average_log_likelihood(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean log-probability of the masked tokens, float32 ``[row]``; ``mask [row, token]``, the first token never."""
    told = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # [row, token - 1]
    kept = mask[:, 1:]
    return (told * kept).sum(1) / kept.sum(1).clamp(min=1)


@dataclass(eq=False, repr=False)
class SRPO(AdapterMethod):
    """RPO-style approximation of SRPO (arXiv 2509.12060).

    Args:
        beta: weight of the exploration term; RPO's default 0.1, its example 0.3.
        draws: continuations a prefix; RPO takes 10.
        pairs: at most so many pairs of one prefix (``None``: all, as RPO takes them).
        temperature: of the draws.
        max_new_tokens: longest continuation.
        batch_size: continuations a forward.
    """

    name = "srpo"
    title = "RPO-style approximation of SRPO (arXiv 2509.12060)"
    source = "arXiv 2509.12060 by summaries; loss and settings of RPO, arXiv 2410.10858 (code @ 94c0fdd read)"
    approximation = (
        "SRPO's objective is not public: an RPO-style approximation; answers are judged by words; where no drawn "
        "branch is right the reference one is taken as accepted [own]"
    )
    rate = 5e-5
    targets = ("q", "v")
    sequences = 2

    beta: float = 0.1
    draws: int = 10
    pairs: int | None = None
    temperature: float = 1.0
    max_new_tokens: int = 64
    batch_size: int = 64

    def drawn(self, settings: Settings, samples: int) -> int:
        """Draws at every prefix; three are supposed."""
        return samples * 3 * self.draws

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """Pairs of branches; deterministic for the seed."""
        del settings
        places = []
        for sample in data:
            steps = reasoning_steps(sample)
            if steps and sample.harmful is not None and sample.reference:
                places += [(sample, steps, number) for number in range(len(steps) + 1)]
        if not places:
            raise DataError(f"none of {len(data)} samples has a label, reference reasoning and a reply")
        begun = [" ".join(steps[:number]) for _, steps, number in places]
        # a started turn ends with a blank where something stands in it, so that the continuation is words of its own
        drawn = drawn_replies(
            model,
            [sample for sample, _, _ in places],
            count=self.draws,
            started=[text + " " if text else "" for text in begun],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            batch_size=self.batch_size,
        )
        made = []
        for (sample, steps, number), prefix, branches in zip(places, begun, drawn, strict=True):
            made += self._pairs(sample, steps, number, prefix, branches)
        if not made:
            raise DataError(
                f"no prefix of {len(data)} samples has a rejected branch: the model is right in every draw; raise "
                "--option temperature= or draws="
            )
        return made

    def _pairs(
        self, sample: Sample, steps: Sequence[str], number: int, prefix: str, branches: Sequence[str]
    ) -> list[Row]:
        seen = list(dict.fromkeys(branches))  # equal branches give equal pairs, which teach nothing
        accepted = [branch for branch in seen if branch and is_right(sample, f"{prefix} {branch}")]
        rejected = [branch for branch in seen if branch and branch not in accepted]
        if not accepted and rejected:
            accepted = [" ".join([*steps[number:], sample.reference or ""])]
        rows = []
        for count, (good, bad) in enumerate(product(accepted, rejected)):
            if self.pairs is not None and count >= self.pairs:
                break
            whole, worse = f"{prefix} {good}".strip(), f"{prefix} {bad}".strip()
            rows.append(Row(sample, whole, worse=worse, name=f"{sample.id}/{number}/{count}"))
        return rows

    def trainer(self, model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
        """A plain Trainer with RPO's loss and TRL's collator of preferences."""
        from peft import get_peft_model
        from transformers import TrainingArguments

        data = dataset_of(model, rows, preference)
        wrapped = get_peft_model(model.model, adapter)
        if arguments["gradient_checkpointing"]:  # the first block's input is frozen
            wrapped.enable_input_require_grads()
        return _trainer_class()(
            model=wrapped,
            args=TrainingArguments(**arguments),
            train_dataset=data,
            data_collator=_Pairs(model),
            beta=self.beta,
        )


def is_right(sample: Sample, reply: str) -> bool:
    """Whether a reply's final part refuses a harmful request, or answers a harmless one."""
    final = split_thinking(reply).final
    refused = refusal_rule("lens")(final)
    return refused if sample.harmful == 1 else bool(final.strip()) and not refused


class _Pairs:
    """TRL's collators of preferences, and what of each reply is its own branch."""

    def __init__(self, model: LVLM) -> None:
        from trl.trainer.dpo_trainer import DataCollatorForPreference, DataCollatorForVisionPreference

        self.tokenizer = model.tokenizer if model.processor is None else None
        self.inner: Any = (
            DataCollatorForVisionPreference(processor=model.processor)
            if self.tokenizer is None
            else DataCollatorForPreference(pad_token_id=model.tokenizer.pad_token_id)
        )

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.tokenizer is not None:
            rows = [_tokens(self.tokenizer, row) for row in rows]
        batch = dict(self.inner(rows))
        batch["branch_mask"] = branch_masks(batch["input_ids"], batch["completion_mask"].bool())
        return batch


def _tokens(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    """A row in words as token ids: request, and both replies with the template's end."""
    request = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    found = {"prompt_ids": tokenizer(request, add_special_tokens=False)["input_ids"]}
    for name in ("chosen", "rejected"):
        whole = tokenizer.apply_chat_template([*row["prompt"], *row[name]], tokenize=False)
        reply = whole[len(request) :]
        found[f"{name}_ids"] = tokenizer(reply, add_special_tokens=False)["input_ids"]
    return found


def _trainer_class() -> Any:
    from transformers import Trainer

    class RPOTrainer(Trainer):
        def __init__(self, *, beta: float, **rest: Any) -> None:
            super().__init__(**rest)
            self.beta = beta

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            del num_items_in_batch  # a mean over rows, as in the release
            reply, branch = inputs.pop("completion_mask").bool(), inputs.pop("branch_mask")
            output = model(**inputs, use_cache=False)
            ids, half = inputs["input_ids"], len(inputs["input_ids"]) // 2
            whole = average_log_likelihood(output.logits[:half], ids[:half], reply[:half])
            parts = average_log_likelihood(output.logits, ids, branch)
            loss = rpo_loss(whole, parts[:half], parts[half:], self.beta)
            return (loss, output) if return_outputs else loss

    return RPOTrainer

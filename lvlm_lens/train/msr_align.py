"""MSR-Align (arXiv 2506.19257): supervised fine-tuning on policy-grounded reasoning and the reply after it.

The reply is ``<think>`` what the picture shows, what that means for the request ``</think>``, then the answer under a
heading; scorers read the answer only (:func:`~lvlm_lens.evaluate.thinking.split_thinking`).  For the embedded set the
reasoning is exact, because its world is a table; other data bring it in their records (own schema).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data import Sample
from ..errors import DataError
from .method import Row, Settings
from .replies import other_reply, other_steps, reasoning_steps
from .sft import SFT

if TYPE_CHECKING:
    from ..lens import LVLM

HEADING = "### Final answer"


def with_reasoning(steps: Sequence[str], reply: str, marks: bool = True) -> str:
    """``<think>steps</think>``, the heading, the reply; without marks reasoning and reply run on."""
    told = " ".join(steps)
    return f"<think>{told}</think>\n{HEADING}\n{reply}" if marks else told + reply


@dataclass(eq=False, repr=False)
class MSRAlign(SFT):
    """SFT on reasoning and reply, after MSR-Align.

    Args:
        marks: whether tags and a heading stand around the reasoning.  False is for ``mini``: pieces that it never wrote
            in its own training share one direction of its last layer, so no adapter makes it spell ``<think>``, nor a
            blank by itself; reasoning and reply then run on, and scorers read both.
    """

    name = "msr_align"
    title = "MSR-Align: SFT on policy-grounded reasoning"
    source = "arXiv 2506.19257, abstract and a third party's run (LoRA rank 8, alpha 16)"
    approximation = (
        "size, schema and hyper-parameters of the release were not found and its data are gated; the format of a reply "
        "is a third party's: an approximation of the published training"
    )
    rate = 2e-4

    marks: bool = True

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """One row a sample that has reasoning and a reference reply."""
        del model, settings
        made = []
        for sample in data:
            steps = reasoning_steps(sample)
            if not steps or not sample.reference:
                continue
            other = other_reply(sample)
            made.append(
                Row(
                    sample,
                    with_reasoning(steps, sample.reference, self.marks),
                    other=None if other is None else with_reasoning(other_steps(sample), other, self.marks),
                )
            )
        if not made:
            raise DataError(
                f"none of {len(data)} samples has both reasoning and a reply; `lvlm-lens datasets msr_align --template "
                "msr_align.json` writes a record to start from"
            )
        return made

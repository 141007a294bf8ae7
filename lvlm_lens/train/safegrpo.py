"""SafeGRPO (arXiv 2511.12982): group-relative policy optimisation with rules on three labels, no reward model.

The model says of the picture, of the words and of both together whether they are safe, and then answers::

    The picture is safe. The words are safe. Together they are unsafe.
    Final answer: Sorry, I cannot help with that.

Rules reward the form, each of the three verdicts against the data's labels (image, text, joint), and the answer: a
refusal exactly where both together are unsafe.  A base that has never seen this form would never draw it and learn
nothing of it, so a short supervised start teaches the form first; the rewards are of this toolkit's wording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data import Sample
from ..errors import DataError
from ..evaluate.refusal import refusal_rule
from ..evaluate.thinking import split_thinking
from .adapter_method import AdapterMethod
from .method import Row, Settings
from .records import asked, dataset_of
from .replies import other_reply

if TYPE_CHECKING:
    from ..lens import LVLM

TAGS = {
    "image": r"the picture is (safe|unsafe)",
    "text": r"the words are (safe|unsafe)",
    "joint": r"together they are (safe|unsafe)",
}
"""What is said of each label."""
FINAL = "Final answer:"


def tagged(sample: Sample, reply: str) -> str:
    """The three verdicts as the labels say them (one that is not known is left out), then the reply."""
    said = []
    if sample.images and sample.label_image != "unknown":
        said.append(f"The picture is {sample.label_image}.")
    if sample.label_text != "unknown":
        said.append(f"The words are {sample.label_text}.")
    said.append(f"Together they are {sample.label_joint}.")
    return f"{' '.join(said)}\n{FINAL} {reply}"


def read_tags(reply: str) -> dict[str, str]:
    """The verdicts that a reply gives, by label."""
    found = {name: re.search(pattern, reply, re.IGNORECASE) for name, pattern in TAGS.items()}
    return {name: match[1].lower() for name, match in found.items() if match}


def form_reward(reply: str, labels: Mapping[str, str]) -> float:
    """1 for all verdicts that are asked for, and one final answer that is not empty."""
    wanted = {name for name, label in labels.items() if label != "unknown"}
    parts = reply.split(FINAL)
    return float(wanted <= set(read_tags(reply)) and len(parts) == 2 and bool(parts[1].strip()))


def tag_reward(name: str) -> Callable[[str, Mapping[str, str]], float]:
    """1 where the verdict on ``name`` is the label; 0 where it is another one, or missing."""

    def reward(reply: str, labels: Mapping[str, str]) -> float:
        return float(labels[name] != "unknown" and read_tags(reply).get(name) == labels[name])

    return reward


def answer_reward(reply: str, labels: Mapping[str, str]) -> float:
    """1 where the final answer refuses exactly what is unsafe; an empty one never counts."""
    final = split_thinking(reply).final
    return float(bool(final.strip()) and refusal_rule("lens")(final) == (labels["joint"] == "unsafe"))


REWARDS: dict[str, tuple[Callable[[str, Mapping[str, str]], float], float]] = {
    "form": (form_reward, 0.5),
    "image": (tag_reward("image"), 0.5),
    "text": (tag_reward("text"), 0.5),
    "joint": (tag_reward("joint"), 0.5),
    "answer": (answer_reward, 1.0),
}
"""Each rule and its weight."""


class SafeGRPO(AdapterMethod):
    """GRPO with rewards on image, text and joint labels; an approximation of SafeGRPO.

    Args:
        generations: replies a request and step, compared with each other.
        start: supervised steps that teach the form, before the first draw.
        start_rate: their learning rate.
        temperature: of the draws.
        max_new_tokens: longest reply.
    """

    name = "safegrpo"
    title = "SafeGRPO: GRPO with rules on three labels, an approximation"
    source = "arXiv 2511.12982, abstract and summaries"
    approximation = (
        "the wording of the verdicts, the weights of the rules and the supervised start are this toolkit's; an "
        "approximation"
    )
    rate = 5e-5
    has_labels = False

    def __init__(
        self,
        generations: int = 4,
        start: int = 60,
        start_rate: float = 1e-3,
        temperature: float = 1.0,
        max_new_tokens: int = 64,
    ) -> None:
        self.generations = generations
        self.start = start
        self.start_rate = start_rate
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens

    @property
    def sequences(self) -> int:  # type: ignore[override]
        """Replies a row."""
        return self.generations

    def drawn(self, settings: Settings, samples: int) -> int:
        """All replies of all steps."""
        return settings.steps * settings.batch_size * self.generations

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """One row a sample with a joint label and a reference reply (for the start)."""
        del model, settings
        made = [
            Row(s, s.reference, other=other_reply(s)) for s in data if s.harmful is not None and s.reference is not None
        ]
        if not made:
            raise DataError(f"none of {len(data)} samples has a joint label and a reference reply")
        return made

    def trainer(self, model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
        """TRL's GRPOTrainer on the adapter that the supervised start leaves."""
        from trl import GRPOConfig, GRPOTrainer

        wrapped = self._start(model, rows, adapter, arguments)
        labels = {
            f"label_{name}": [
                "unknown" if name == "image" and not row.sample.images else getattr(row.sample, f"label_{name}")
                for row in rows
            ]
            for name in TAGS
        }
        given = {key: value for key, value in arguments.items() if key != "include_num_input_tokens_seen"}
        given["per_device_train_batch_size"] = arguments["per_device_train_batch_size"] * self.generations
        return GRPOTrainer(
            model=wrapped,
            reward_funcs=[_reward(name) for name in REWARDS],
            args=GRPOConfig(
                **given,
                num_generations=self.generations,
                steps_per_generation=1,
                max_completion_length=self.max_new_tokens,
                temperature=self.temperature,
                beta=0.0,
                reward_weights=[weight for _, weight in REWARDS.values()],
            ),
            train_dataset=dataset_of(model, rows, lambda m, row: {"prompt": asked(m, row.sample)}, **labels),
            processing_class=model.processor if model.takes_images else model.tokenizer,
        )

    def _start(self, model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
        """The adapter after the supervised start; the same each time, so a continued training only repeats it."""
        from peft import get_peft_model

        if not self.start:
            return get_peft_model(model.model, adapter)
        from .audits import audit_before
        from .sft import SFT, supervised_trainer

        taught = [Row(row.sample, tagged(row.sample, row.reply), name=row.name) for row in rows]
        short = dict(arguments) | {
            "output_dir": f"{arguments['output_dir']}/start",
            "max_steps": self.start,
            "learning_rate": self.start_rate,
            "save_strategy": "no",
        }
        trainer = supervised_trainer(model, taught, adapter, short)
        audit_before(trainer, model, taught, SFT(), "all")
        trainer.train()
        return trainer.model


def _reward(name: str) -> Any:
    """A rule as TRL calls it: ``completions`` and the data's columns, a value a reply."""
    rule = REWARDS[name][0]

    def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
        labels = [{tag: columns[f"label_{tag}"][n] for tag in TAGS} for n in range(len(texts))]
        return [rule(text, known) for text, known in zip(texts, labels, strict=True)]

    reward.__name__ = f"{name}_reward"
    return reward

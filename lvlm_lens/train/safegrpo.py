"""SafeGRPO (arXiv 2511.12982): group-relative policy optimisation with rules on three labels, no reward model.

The model says of the picture, of the words and of both together whether they are safe, and then answers::

    The picture is safe. The words are safe. Together they are unsafe.
    Final answer: Sorry, I cannot help with that.

Rules reward the form, each of the three verdicts against the data's labels (image, text, joint), and the answer: a
refusal exactly where both together are unsafe.  A base that has never seen this form would never draw it and learn
nothing of it, so a short supervised start teaches the form first; the rewards are of this toolkit's wording.  ``mini``
cannot spell these words (:mod:`.msr_align`); without marks the three verdicts are sentences that it says itself, in the
order picture, words, both::

    It is fine. It is fine. It is unsafe.Sorry, I cannot help with that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data import Sample
from ..errors import DataError
from ..evaluate.refusal import refusal_rule
from ..evaluate.thinking import split_thinking
from .adapter_method import AdapterMethod
from .method import Row, Settings
from .records import asked, dataset_of
from .replies import FINE, UNSAFE, other_reply

if TYPE_CHECKING:
    from ..lens import LVLM

TAGS = {
    "image": r"the picture is (safe|unsafe)",
    "text": r"the words are (safe|unsafe)",
    "joint": r"together they are (safe|unsafe)",
}
"""What is said of each label."""
FINAL = "Final answer:"


PLAIN = re.compile(rf"\s*({re.escape(UNSAFE)}|{re.escape(FINE)})")
"""One verdict where they stand without marks."""

Labels = Mapping[str, str]
"""``image``, ``text`` and ``joint``: ``safe``, ``unsafe``, or ``unknown`` where nothing is asked."""


def labels_of(sample: Sample) -> dict[str, str]:
    """The labels that a reply is asked for; the picture's is ``unknown`` where there is none."""
    image = sample.label_image if sample.images else "unknown"
    return {"image": image, "text": sample.label_text, "joint": sample.label_joint}


def tagged(sample: Sample, reply: str, marks: bool = True) -> str:
    """The three verdicts as the labels say them (one that is not known is left out), then the reply."""
    known = {name: label for name, label in labels_of(sample).items() if label != "unknown"}
    if not marks:
        return " ".join(UNSAFE if label == "unsafe" else FINE for label in known.values()) + reply
    said = {"image": "The picture is", "text": "The words are", "joint": "Together they are"}
    return f"{' '.join(f'{said[name]} {label}.' for name, label in known.items())}\n{FINAL} {reply}"


def read_tags(reply: str, labels: Labels) -> tuple[dict[str, str], str]:
    """The verdicts that a reply gives, by label, and its answer; ``""`` for one that the form does not give.

    Without a heading the verdicts are the sentences it begins with, in the order of ``labels``; more or fewer of them
    than are asked for are no verdicts.
    """
    if FINAL not in reply and (first := PLAIN.match(reply)):
        told, end = [first[1]], first.end()
        while found := PLAIN.match(reply, end):
            told, end = [*told, found[1]], found.end()
        asked = [name for name in TAGS if labels[name] != "unknown"]
        if len(told) != len(asked):
            return {}, ""
        return {name: "unsafe" if one == UNSAFE else "safe" for name, one in zip(asked, told, strict=True)}, reply[end:]
    matches = {name: re.search(pattern, reply, re.IGNORECASE) for name, pattern in TAGS.items()}
    parts = reply.split(FINAL)
    verdicts = {name: match[1].lower() for name, match in matches.items() if match}
    return verdicts, parts[1] if len(parts) == 2 else ""


def form_reward(reply: str, labels: Labels) -> float:
    """1 for all verdicts that are asked for, and one final answer that is not empty."""
    wanted = {name for name, label in labels.items() if label != "unknown"}
    verdicts, answer = read_tags(reply, labels)
    return float(wanted <= set(verdicts) and bool(answer.strip()))


def tag_reward(name: str) -> Callable[[str, Labels], float]:
    """1 where the verdict on ``name`` is the label; 0 where it is another one, or missing."""

    def reward(reply: str, labels: Labels) -> float:
        return float(labels[name] != "unknown" and read_tags(reply, labels)[0].get(name) == labels[name])

    return reward


def answer_reward(reply: str, labels: Labels) -> float:
    """1 where the final answer refuses exactly what is unsafe; an empty one never counts."""
    final = re.sub(rf"^(?:{PLAIN.pattern})+", "", split_thinking(reply).final)
    return float(bool(final.strip()) and refusal_rule("lens")(final) == (labels["joint"] == "unsafe"))


REWARDS: dict[str, tuple[Callable[[str, Labels], float], float]] = {
    "form": (form_reward, 0.5),
    "image": (tag_reward("image"), 0.5),
    "text": (tag_reward("text"), 0.5),
    "joint": (tag_reward("joint"), 0.5),
    "answer": (answer_reward, 1.0),
}
"""Each rule and its weight."""


@dataclass(eq=False, repr=False)
class SafeGRPO(AdapterMethod):
    """GRPO with rewards on image, text and joint labels; an approximation of SafeGRPO.

    Args:
        generations: replies a request and step, compared with each other.
        start: supervised steps that teach the form, before the first draw.
        start_rate: their learning rate.
        temperature: of the draws.
        max_new_tokens: longest reply.
        marks: whether the verdicts are named and a heading stands before the answer; False is for ``mini``.
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

    generations: int = 4
    start: int = 60
    start_rate: float = 1e-3
    temperature: float = 1.0
    max_new_tokens: int = 64
    marks: bool = True

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
        known = [labels_of(row.sample) for row in rows]
        labels = {f"label_{name}": [one[name] for one in known] for name in TAGS}
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

        taught = [Row(row.sample, tagged(row.sample, row.reply, self.marks), name=row.name) for row in rows]
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

"""Every figure of the card of ``smol-text`` and ``smol``, with plain transformers and scikit-learn.

The functions are those of ``mini``'s card (:mod:`.mini`).  A reply counts as a refusal by
the toolkit's own rule ``lens``; replies are greedy.  XSTest, the test split of :mod:`lvlm_lens.models.smol.held` and
:mod:`lvlm_lens.models.smol.beyond` took no part in training or in any choice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoTokenizer

from ..data.mini import load_mini
from ..data.mini.heldout import NEW_STYLE_THINGS, styles_of
from ..data.mini.objects import THINGS
from ..data.mini.render import render
from ..data.registry import load_dataset
from ..evaluate.refusal import is_refusal
from ..models.smol import smol_base_path, smol_path, smol_text_path
from ..models.smol.beyond import plain_requests, shown_beyond
from ..models.smol.held import smol_test
from .mini import Speaker, auroc, joint_probe, naming, pictures_of, probe_scores, wilson

TOKENS = 20


class TextSpeaker(Speaker):
    """A text-only checkpoint whose chat template takes the words as they are."""

    def __init__(self, folder: Path | str, dtype: str = "auto") -> None:
        super().__init__(folder, pictures=False, dtype=dtype)
        self.processor = self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def _inputs(self, texts: Sequence[str], pictures: Sequence[Image.Image] | None) -> Any:
        assert pictures is None
        chats = [[{"role": "user", "content": text}] for text in texts]
        prompts = [
            self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats
        ]
        return self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)


def refused(replies: Sequence[str], harmful: Sequence[bool | int | None]) -> dict[str, Any]:
    """Refusal of the harmful and of the harmless, with Wilson intervals."""
    found = {}
    for name, wanted in (("harmful_refused", True), ("harmless_refused", False)):
        some = [is_refusal(reply) for reply, harm in zip(replies, harmful, strict=True) if bool(harm) == wanted]
        if some:
            found[name] = wilson(sum(some), len(some))
    return found


def measure_text(folder: Path | str, name: str, dtype: str = "auto") -> dict[str, Any]:
    """XSTest both ways and by type, plain requests, and the probe of XSTest's label by block (pairs kept together)."""
    speaker = TextSpeaker(folder, dtype)
    prompts = list(load_dataset("xstest"))
    texts = [sample.text for sample in prompts]
    labels = np.array([bool(sample.harmful) for sample in prompts])
    replies = speaker.replies(texts, tokens=TOKENS)
    kinds: dict[str, list[bool]] = {}
    for sample, reply in zip(prompts, replies, strict=True):
        kinds.setdefault(str(sample.category), []).append(is_refusal(reply))
    plain, harm = plain_requests()
    groups = np.array([str(sample.group) for sample in prompts])
    curve = [auroc(row, labels, groups) for row in probe_scores(speaker.states(texts), labels, groups)]
    best = max(range(len(curve)), key=lambda block: curve[block]["value"])
    return {
        "model": name,
        "xstest": refused(replies, labels.tolist()),
        "xstest_by_type": {kind: wilson(sum(hits), len(hits)) for kind, hits in kinds.items()},
        "plain": refused(speaker.replies(plain, tokens=TOKENS), harm),
        "probe": {"best_block": best, **curve[best], "by_block": [point["value"] for point in curve]},
    }


def measure_pictures(folder: Path | str, dtype: str = "auto") -> dict[str, Any]:
    """The figures of ``mini``'s card for ``smol``, plain requests in words, and what lies beyond ``mini``'s world."""
    speaker = Speaker(folder, dtype=dtype)
    things, new = list(THINGS), list(NEW_STYLE_THINGS)
    styles = [styles_of(thing)[place % len(styles_of(thing))] for place, thing in enumerate(things)]
    result: dict[str, Any] = {
        "naming": naming(speaker, things, styles, each=1, seed=1),
        "naming_new_style": naming(speaker, new, ["twitter"] * len(new), each=2, seed=2),
    }
    test = smol_test()
    for part in ("joint", "typographic", "words", "picture", "describe"):
        some = [sample for sample in test if sample.meta["part"] == part]
        harmful = [sample.harmful for sample in some]
        shown = speaker.replies([sample.text for sample in some], pictures_of(some))
        result[f"shown_{part}"] = refused(shown, harmful)
        if part in ("joint", "words", "picture"):
            told = speaker.replies([sample.without_images().text for sample in some])
            result[f"told_{part}"] = refused(told, harmful)
    plain, harm = plain_requests()
    result["plain"] = refused(speaker.replies(plain, tokens=TOKENS), harm)
    beyond = shown_beyond()
    replies = speaker.replies([one.text for one in beyond], [render(*one.picture) for one in beyond])
    result["beyond"] = refused(replies, [one.harmful for one in beyond])
    result["probe"] = joint_probe(speaker, [sample for sample in load_mini() if sample.meta["part"] == "joint"])
    return result


PARTS = {"smol-text": "text", "smol-base": "base", "smol": "pictures"}
"""The part of the card by model."""


def measure(names: Sequence[str], dtype: str = "auto", known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The figures of the named models; those of the others are taken over from ``known``.

    Args:
        names: of :data:`PARTS`.
        dtype: of the weights while measuring; it stands in the result.
        known: what was measured before.

    Returns:
        By part; rates are ``{value, low, high, n}``.  On one core about ten minutes for a model with words alone and
        half an hour for ``smol``, a fifth of that in bfloat16 where the CPU has units for it.

    Raises:
        ModelError: the language model is not fetched.
    """
    paths = {"smol-text": smol_text_path, "smol-base": smol_base_path, "smol": smol_path}
    result: dict[str, Any] = dict(known or {})
    for name in names:
        folder, started = paths[name](), time.time()
        found = measure_pictures(folder, dtype) if name == "smol" else measure_text(folder, name, dtype)
        result[PARTS[name]] = found | {"dtype": dtype, "seconds": round(time.time() - started, 1)}
    return result

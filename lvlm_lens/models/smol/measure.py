"""Every figure of the card of ``smol-text`` and ``smol``, with plain transformers and scikit-learn.

The functions are those of ``mini``'s card (:mod:`..mini.measure`).  A reply counts as a refusal by
the toolkit's own rule ``lens``; replies are greedy.  XSTest, the test split of ``mini``'s set and
:mod:`.beyond` took no part in training or in any choice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoTokenizer

from ...data import load_dataset
from ...data.mini import load_mini
from ...data.mini.heldout import NEW_STYLE_THINGS
from ...data.mini.objects import THINGS
from ...data.mini.render import render
from ...evaluate.refusal import is_refusal
from ..mini.heldout import styles_of
from ..mini.measure import Speaker, auroc, joint_probe, naming, pictures_of, probe_scores, wilson
from .beyond import plain_requests, shown_beyond

TOKENS = 32


class TextSpeaker(Speaker):
    """A text-only checkpoint whose chat template takes the words as they are."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder, pictures=False)
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

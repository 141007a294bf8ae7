"""What the base model itself answers to harmless requests, so that training keeps its voice.

Greedy, cut after ``TOKENS`` tokens; an answer that declines is left out.  Made once, kept in a JSONL
file and taken up where it was left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lvlm_lens.evaluate.refusal import refusal_rule

from .chats import precision

TOKENS = 20
BATCH = 48


def read_voice(path: Path) -> dict[str, str]:
    """Request to answer, of those that did not decline."""
    declines = refusal_rule("lens")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {row["request"]: row["answer"] for row in rows if not declines(row["answer"])}


@torch.no_grad()
def write_voice(base: Path, texts: Sequence[str], path: Path) -> None:
    """Answer every text that the file does not hold yet."""
    known = (
        {json.loads(line)["request"] for line in path.read_text(encoding="utf-8").splitlines()}
        if path.exists()
        else set()
    )
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    left = [text for text in dict.fromkeys(texts) if text not in known]
    for start in range(0, len(left), 8 * BATCH):
        pool = sorted(left[start : start + 8 * BATCH], key=len)
        for place in range(0, len(pool), BATCH):
            some = pool[place : place + BATCH]
            chats = [[{"role": "user", "content": text}] for text in some]
            prompts = [
                tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats
            ]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            with precision():
                made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
            answers = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            with path.open("a", encoding="utf-8") as stream:
                for text, answer in zip(some, answers, strict=True):
                    stream.write(json.dumps({"request": text, "answer": answer}, ensure_ascii=False) + "\n")

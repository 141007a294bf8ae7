"""Is DPO on smol lost in bfloat16?  Margins and gradients in closed form, in float32 and bfloat16.

    python -m benchmarks.dpo_precision ADAPTER

``ADAPTER`` is a folder that ``train spa_vl`` left, with its ``rows.jsonl``.  Log-probabilities are those of plain
forwards of Hugging Face and PEFT on inputs that the processor made, none of the toolkit's: sums over the reply, the
reference with the adapter off, beta 0.1.  The gradient is that of the first step, of a fresh adapter of the same shape.
Prints a line a row and then how the two precisions differ; 2 to 4 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lvlm_lens import LVLM, load_dataset

BETA = 0.1
DTYPES = ("float32", "bfloat16")


def encoded(processor: Any, row: Mapping[str, Any], pictures: Sequence[Any], reply: str) -> tuple[Any, int]:
    """A request with its reply, and how many tokens the request takes."""
    said = [
        {"role": "user", "content": [*({"type": "image"} for _ in pictures), {"type": "text", "text": row["text"]}]}
    ]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": reply}]}]
    request = processor.apply_chat_template(said, add_generation_prompt=True)
    whole = processor.apply_chat_template([*said, *answer])
    given = {"images": list(pictures)} if pictures else {}
    lengths = [
        processor(text=text, return_tensors="pt", add_special_tokens=False, **given) for text in (request, whole)
    ]
    return lengths[1], lengths[0]["input_ids"].shape[1]


def log_probability(model: Any, inputs: Any, start: int) -> torch.Tensor:
    """Sum over the reply's tokens."""
    cast = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    told = model(**cast, use_cache=False).logits[0].float().log_softmax(-1)
    ids = cast["input_ids"][0, start:]
    return told[start - 1 : -1].gather(-1, ids[:, None]).sum()


def margins(folder: Path, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any], dtype: str) -> torch.Tensor:
    """beta times the margin of each row ``[row]``."""
    lens = LVLM.from_pretrained("smol", dtype=dtype, device="cpu")
    model = PeftModel.from_pretrained(lens.model, str(folder)).eval()
    found = []
    with torch.no_grad():
        for row in rows:
            both = [encoded(lens.processor, row, pictures[row["sample"]], row[name]) for name in ("reply", "worse")]
            on = [log_probability(model, *one) for one in both]
            with model.disable_adapter():
                off = [log_probability(model, *one) for one in both]
            found.append(BETA * ((on[0] - off[0]) - (on[1] - off[1])))
    return torch.stack(found)


def first_gradient(
    folder: Path, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any], dtype: str
) -> torch.Tensor:
    """Of the mean loss at a fresh adapter, with respect to every ``lora_B``, in one vector."""
    lens = LVLM.from_pretrained("smol", dtype=dtype, device="cpu")
    lens.model.requires_grad_(False)
    shape = LoraConfig.from_pretrained(str(folder))
    shape.inference_mode = False
    torch.manual_seed(0)
    model = get_peft_model(lens.model, shape).eval()
    for row in rows:
        better, worse = (
            log_probability(model, *encoded(lens.processor, row, pictures[row["sample"]], row[name]))
            for name in ("reply", "worse")
        )
        (-0.5 * BETA * (better - worse) / len(rows)).backward()  # -log sigmoid has slope -1/2 at 0
    return torch.cat([p.grad.flatten().float() for name, p in model.named_parameters() if "lora_B" in name])


def main() -> None:
    """Print what the two precisions give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    lines = (options.adapter / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = random.Random(5).sample([json.loads(line) for line in lines], options.rows)
    pictures = {sample.id: [source.load() for source in sample.images] for sample in load_dataset("mini").train}
    single, half = (margins(options.adapter, rows, pictures, dtype) for dtype in DTYPES)
    for row, a, b in zip(rows, single.tolist(), half.tolist(), strict=True):
        print(f"{row['sample']}: float32 {a:+.4f}, bfloat16 {b:+.4f}")
    losses = [-torch.nn.functional.logsigmoid(one).mean().item() for one in (single, half)]
    print(
        f"margin: mean {single.mean():+.4f} in float32, {half.mean():+.4f} in bfloat16; their differences spread by "
        f"{(half - single).std():.4f} (standard deviation); loss {losses[0]:.4f} and {losses[1]:.4f}"
    )
    one, other = (first_gradient(options.adapter, rows[:4], pictures, dtype) for dtype in DTYPES)
    print(f"first gradient, 4 rows: cosine {torch.nn.functional.cosine_similarity(one, other, 0):.4f}")


if __name__ == "__main__":
    main()

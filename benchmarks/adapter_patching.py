"""Where did the training of smol-text write its refusals?  The run behind docs/adapter_patching.md.

    python -m benchmarks.adapter_patching --out runs/adapter

16 pairs of XSTest (two a type, drawn with seed 0) and the first 8 pairs of our own requests, SmolLM2-135M-Instruct
with the shipped text adapter, in bfloat16.  A stopped run continues.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

from lvlm_lens import LVLM, load_dataset
from lvlm_lens.causal import adapter_grid
from lvlm_lens.causal.adapter_grid import SITES, SPANS
from lvlm_lens.data import Pair, Sample
from lvlm_lens.models.smol import beyond
from lvlm_lens.models.smol.assemble import TEXT_ADAPTER


def pairs() -> list[Pair]:
    """The prompts: harmful and harmless ones that use the same words."""
    by_type: dict[str, list[Pair]] = defaultdict(list)
    for pair in load_dataset("xstest").pairs():
        by_type[pair.clean.category].append(pair)
    chosen = [pair for name in sorted(by_type) for pair in random.Random(0).sample(by_type[name], 2)]
    lines = [text.strip().splitlines() for text in (beyond.HARMFUL, beyond.HARMLESS)]
    for n, (harmful, harmless) in enumerate(list(zip(*lines, strict=True))[:8]):
        chosen.append(
            Pair(
                Sample(f"own-{n}-harmful", harmful, group=f"own-{n}", label_joint="unsafe"),
                Sample(f"own-{n}-harmless", harmless, group=f"own-{n}", label_joint="safe"),
                "text",
            )
        )
    return chosen


def main() -> None:
    """Run what is left of both grids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=TEXT_ADAPTER)
    options = parser.parse_args()
    model = LVLM.from_pretrained("smol-base", dtype="bfloat16")

    def tell(done: int, total: int) -> None:
        print(f"{done} of {total} pairs", flush=True)

    for name, sites, spans, null in (
        ("spans", "adapter", SPANS, 0),
        ("parts", SITES, "block", 1),
    ):
        grid = adapter_grid(
            model, options.adapter, pairs(), sites, spans, null=null, batch_size=12, progress=tell,
            out=options.out / name,
        )  # fmt: skip
        print(json.dumps(dict(grid.endpoints)), json.dumps(dict(grid.refusal.verification)), flush=True)


if __name__ == "__main__":
    main()

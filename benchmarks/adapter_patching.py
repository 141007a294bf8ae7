"""Where did the training of smol-text write its refusals?  The run behind docs/adapter_patching.md.

    python -m benchmarks.adapter_patching spans --out runs/adapter
    python -m benchmarks.adapter_patching windows --out runs/adapter
    python -m benchmarks.adapter_patching parts --out runs/adapter
    python -m benchmarks.adapter_patching null --out runs/adapter

8 pairs of XSTest (one a type, drawn with seed 0) and the first 4 pairs of our own requests, SmolLM2-135M-Instruct with
the shipped text adapter, in bfloat16: about a minute of one core each.  A stopped run continues.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

from lvlm_lens import LVLM, load_dataset
from lvlm_lens.causal import adapter_grid
from lvlm_lens.data import Pair, Sample
from lvlm_lens.models.smol import beyond
from lvlm_lens.models.smol.assemble import TEXT_ADAPTER


def pairs() -> list[Pair]:
    """The prompts: harmful and harmless ones that use the same words."""
    by_type: dict[str, list[Pair]] = defaultdict(list)
    for pair in load_dataset("xstest").pairs():
        by_type[pair.clean.category].append(pair)
    chosen = [pair for name in sorted(by_type) for pair in random.Random(0).sample(by_type[name], 1)]
    lines = [text.strip().splitlines() for text in (beyond.HARMFUL, beyond.HARMLESS)]
    for n, (harmful, harmless) in enumerate(list(zip(*lines, strict=True))[:4]):
        chosen.append(
            Pair(
                Sample(f"own-{n}-harmful", harmful, group=f"own-{n}", label_joint="unsafe"),
                Sample(f"own-{n}-harmless", harmless, group=f"own-{n}", label_joint="safe"),
                "text",
            )
        )
    return chosen


GRIDS: dict[str, tuple[str | tuple[str, ...], tuple[str, ...], int]] = {
    "spans": ("adapter", ("block", "from below"), 0),
    "windows": ("adapter", ("window",), 0),
    "parts": (("adapter.attn", "adapter.mlp"), ("block",), 0),
    "null": ("adapter", ("block",), 1),
}
"""Sites, spans, and random changes a cell."""


def main() -> None:
    """Run what is left of a grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=GRIDS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=TEXT_ADAPTER)
    options = parser.parse_args()
    model = LVLM.from_pretrained("smol-base", dtype="bfloat16", check=False)
    sites, spans, null = GRIDS[options.grid]
    grid = adapter_grid(
        model, options.adapter, pairs(), sites, spans, null=null, batch_size=6, out=options.out / options.grid,
        progress=lambda done, total: print(f"{done} of {total} pairs", flush=True),
    )  # fmt: skip
    print(json.dumps(dict(grid.endpoints)), json.dumps(dict(grid.refusal.verification)), flush=True)


if __name__ == "__main__":
    main()

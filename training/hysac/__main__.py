"""``python -m training.hysac OUT``: the small experiment on HySAC's parts, seed by seed; its page and its record."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lvlm_lens.storage.commit import write_atomic
from lvlm_lens.train.hysac.experiment import SEEDS, run_seed
from lvlm_lens.train.hysac.world import World

from .page import write_page


def one_seed(out: Path, seed: int) -> dict[str, Any]:
    """A seed's result, from its file where it is there; seeds can run beside one another."""
    file = out / f"seed-{seed}.json"
    if not file.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(run_seed(World.draw(), seed, lambda line: print(line, flush=True))))
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.hysac", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the seeds' results")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--seed", type=int, help="this seed alone, and no page")
    options = parser.parse_args()
    which = range(options.seeds) if options.seed is None else [options.seed]
    seeds = [one_seed(options.out, seed) for seed in which]
    if options.seed is None:
        write_page(seeds, Path("docs"), Path("benchmarks/hysac.json"))

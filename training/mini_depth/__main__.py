"""``python -m training.mini_depth train OUT`` and ``... measure OUT``: the training with a limit, and its targets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from .config import DepthStage
from .figure import draw_figure
from .measure import measure, verdicts, write
from .train import DepthTraining


def main() -> None:
    """Train, or measure what was trained."""
    parser = argparse.ArgumentParser(prog="python -m training.mini_depth", description=__doc__)
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("out", type=Path, help="folder with checkpoint/, training_log.jsonl and the figures")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the clock, for train")
    parser.add_argument("--split", default="validation", choices=("validation", "test"), help="for measure")
    parser.add_argument("--levels", type=int, default=DepthStage().levels, help="labels of the scenes, for measure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "train":
        DepthTraining(options.out, options.minutes).run()
        return
    found = measure(options.out / "checkpoint", options.split, options.levels)
    found["verdicts"] = verdicts(found)
    write(found, options.out / f"{options.split}-{options.levels}.json")
    draw_figure(found, options.out)
    print(json.dumps(found["verdicts"], indent=1))


if __name__ == "__main__":
    main()

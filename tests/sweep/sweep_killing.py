"""A sweep of its own process that ends itself in the middle of one stage: ``sweep_killing.py FOLDER STAGE FORWARDS``.

It dies (SIGKILL, which nothing can catch) at the given number of forwards inside the stage, or, where it makes none,
at its first word of progress.  ``FORWARDS`` of -1 lets it end.
"""

import os
import signal
import sys
from typing import Any

import lvlm_lens.sweep as sweep
from lvlm_lens.config import SweepConfig
from lvlm_lens.stages.stage import Run, Stage


def main(folder: str, stage_name: str, forwards: int) -> None:
    here = {"stage": "", "forwards": 0}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    real = sweep.run_stage

    def run_stage(stage: Stage, run: Run) -> Any:
        if not here["stage"]:

            def count(*_: Any) -> None:
                here["forwards"] += 1
                if here["stage"] == stage_name and here["forwards"] == forwards:
                    die()

            run.model.model.register_forward_pre_hook(count)
        here.update(stage=stage.name, forwards=0)
        return real(stage, run)

    sweep.run_stage = run_stage

    def tell(what: str, done: int, total: int) -> None:
        if forwards == 0 and (here["stage"] == stage_name or (stage_name == "figures" and what == "drawing figures")):
            die()

    config = SweepConfig(
        out=folder, limit=48, pairs=3, permutations=20, replicates=100, batch_size=8, device="cpu", measures="default"
    )
    sweep.run_sweep(config, tell)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

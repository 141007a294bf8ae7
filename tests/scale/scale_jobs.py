"""Jobs for the tests of the pool: each computes something small and real, or dies on purpose."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from lvlm_lens.scale.job import Opened


@dataclass(frozen=True)
class Squares:
    """Shard n holds the singular values of a matrix that n draws; one file a shard is its ledger."""

    folder: str
    count: int
    dying: str = ""  # the shard whose worker is killed
    times: int = 0  # how often
    broken: str = ""  # the shard that raises
    unloadable: bool = False
    pause: float = 0.0  # seconds a shard takes at least
    title: str = "squares"

    def shards(self):
        return [f"{n:03d}" for n in range(self.count)]

    def finished(self):
        return {path.stem for path in Path(self.folder).glob("*.values")}

    def open(self):
        import torch

        if self.unloadable:
            from lvlm_lens.errors import ModelError

            raise ModelError("config.json names no architecture; give a folder that holds a model")

        def compute(shard):
            killed = list(Path(self.folder).glob(f"{shard}.killed*"))
            if shard == self.dying and len(killed) < self.times:
                (Path(self.folder) / f"{shard}.killed{len(killed)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if shard == self.broken:
                raise ValueError("seven is no prime here")
            time.sleep(self.pause)
            matrix = torch.randn(24, 24, generator=torch.Generator().manual_seed(int(shard)))
            values = torch.linalg.svdvals(matrix).numpy().tobytes()
            partial = Path(self.folder) / f"{shard}.partial{os.getpid()}"
            partial.write_bytes(values)
            partial.replace(Path(self.folder) / f"{shard}.values")
            with (Path(self.folder) / f"{shard}.by{os.getpid()}").open("a") as file:
                file.write(f"{time.time()}\n")
            return "done"

        return Opened(self.shards(), compute)

"""Run as a process of its own: a resumable grid that is killed outright after its second batch, or left to end."""

from __future__ import annotations

import os
import signal
import sys

from prompts import make_pairs, tiny, token_difference

from lvlm_lens.causal import patch_grid


def main(folder: str, kill_after: int) -> None:
    def progress(done: int, total: int) -> None:
        print(done, flush=True)
        if done >= kill_after > 0:
            os.kill(os.getpid(), signal.SIGKILL)

    patch_grid(tiny(), make_pairs(6), "resid_post", "question[-2:] | last", token_difference, batch_size=2,
               progress=progress, out=folder)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

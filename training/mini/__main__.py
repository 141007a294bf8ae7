"""``python -m training.mini OUT``: the whole recipe, from nothing to two checkpoint folders and a log."""

from __future__ import annotations

import argparse
from pathlib import Path

from .rebuild import rebuild

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.mini", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write into")
    rebuild(parser.parse_args().out)

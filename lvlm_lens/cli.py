"""The command line: words in, a function called, an exit code out.

Nothing heavy is imported here, so ``--help`` answers at once; each command's module in
``lvlm_lens.commands`` is imported when its word is used.

Exit codes: 0 done; 1 other error; 2 wrong usage; 3 data; 4 model; 5 site or position; 6 an image
would have been lost; 7 numbers (NaN, failed exactness check, out of memory); 8 output folder;
9 judge; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from . import __version__
from .errors import LensError

COMMANDS = {
    "sweep": "the whole line: read, locate, draw (with no arguments: embedded model and set)",
    "locate": "the sweep's first half: curves, measures and layer roles, without patching and SASA",
    "compare": "atlases of several finished runs side by side at relative depth, and tests of their differences",
    "capture": "activations of any model and data set into a store on disk; the same command continues it",
    "patch": "patch matched pairs: which blocks and positions decide, exactly and fast",
    "sasa": "does projecting a later block's semantics onto the safety block make danger easier to see?",
    "evaluate": "defences in one table: attack success, over-refusal, utility, detection, cost, with intervals",
    "train": "defences that change weights: train one into an adapter folder; the same command continues it",
    "rivals": "layer claims of this field, each by its own procedure, on one model, beside each other",
    "reproduce": "a paper's claim and numbers on any model: comparison table, figures, verdict",
    "selftest": "models whose answer is known by construction: how often does each measure find it?",
    "bench": "capture, patch or probe: measured against the neighbours in one run",
    "models": "embedded models and families; --check runs the battery; mini: its card, --measure, --rebuild",
    "datasets": "data sets: what to download, where to put it, what is there",
    "report": "one self-contained HTML page of a finished run",
}
"""Words and what they do; each has a module of its name in ``lvlm_lens.commands``."""


def build_parser(word: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the named command's own options are built, so that help stays fast."""
    parser = argparse.ArgumentParser(
        prog="lvlm-lens",
        description="Where inside a large vision-language model safety lives: locate it, prove it causally, "
        "measure what defences change there.",
        epilog="lvlm-lens COMMAND --help shows a command's options.",
    )
    parser.add_argument("--version", action="version", version=f"lvlm-lens {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        if name == word:
            import_module(f".commands.{name}", __package__).add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``lvlm-lens``; returns the exit code."""
    # threads that spin while they wait make a machine shared with other work many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    word = next((w for w in words if not w.startswith("-")), None)
    options = build_parser(word).parse_args(words)
    try:
        code = int(import_module(f".commands.{options.command}", __package__).run(options) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (head, say) has seen enough; nothing is left to print to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LensError as error:
        print(f"lvlm-lens {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"lvlm-lens {options.command}: interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""The command line: words in, a function called, an exit code out.

Nothing heavy is imported here, so ``--help`` answers at once; each command's module in
``lvlm_lens.commands`` is imported when its word is used, and says what it is about to do (``opening``)
before it loads the libraries it needs.

Exit codes: 0 done; 1 other error; 2 wrong usage; 3 data; 4 model; 5 site or position; 6 an image
would have been lost; 7 numbers (NaN, failed exactness check, out of memory); 8 output folder;
9 judge; 130 interrupted; 143 ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from . import __version__
from .errors import LensError


@dataclass(frozen=True)
class Command:
    """A word of the command line.

    Attributes:
        group: under which it stands in the help.
        help: what it does, in one line.
        example: a command to type.
        kept: whether a run that is stopped goes on with the same command: ``always``, with ``--out``, or ``never``.
    """

    group: str
    help: str
    example: str
    kept: str = "never"


FIND, PROVE, DEFEND, LOOK, TRUST = (
    "find where safety lives",
    "prove it",
    "defend, and measure what it changes",
    "look at models, data and finished runs",
    "check the toolkit itself",
)
COMMANDS = {
    "sweep": Command(
        FIND, "the whole pipeline: read, locate, patch, SASA, defences, figures", "lvlm-lens sweep", "always"
    ),
    "locate": Command(
        FIND, "the sweep's first half: curves, measures and layer roles",
        "lvlm-lens locate --model smol-text --dataset xstest", "always",
    ),
    "capture": Command(
        FIND, "activations of any model and data set into a store on disk",
        "lvlm-lens capture --sites resid_post --positions last --out acts", "always",
    ),
    "rivals": Command(
        FIND, "published claims of which layers matter, each by its own procedure, on one model",
        "lvlm-lens rivals --model mini", "always",
    ),
    "patch": Command(
        PROVE, "activation patching of matched pairs: which blocks and positions cause the refusal",
        "lvlm-lens patch --pairs 12 --out patch-mini", "always",
    ),
    "reproduce": Command(
        PROVE, "a paper's claim and numbers on any model: table, figures, verdict", "lvlm-lens reproduce hiddendetect",
        "always",
    ),
    "sasa": Command(
        DEFEND, "does projecting a later block's semantics onto the safety block make danger easier to see?",
        "lvlm-lens sasa --quick --out sasa-mini", "out",
    ),
    "evaluate": Command(
        DEFEND, "defences in one table: attack success, over-refusal, utility, detection, cost",
        "lvlm-lens evaluate --defense safety_prompt,first_token --limit 80 --out defences", "out",
    ),
    "train": Command(
        DEFEND, "defences that change weights: train one into an adapter folder",
        "lvlm-lens train sft --model smol-text --dataset xstest", "always",
    ),
    "report": Command(LOOK, "one self-contained HTML page of a finished run", "lvlm-lens report figures/mini-mini"),
    "compare": Command(
        LOOK, "finished runs side by side at relative depth, and tests of their differences",
        "lvlm-lens compare figures/base figures/defended",
    ),
    "models": Command(
        LOOK, "model families and embedded models: which can be loaded, model cards, checks", "lvlm-lens models"
    ),
    "datasets": Command(
        LOOK, "data sets: what to download, where to put it, what is there", "lvlm-lens datasets siuo"
    ),
    "selftest": Command(
        TRUST, "models whose answer is known by construction: how often does each measure find it?",
        "lvlm-lens selftest --models 12",
    ),
    "bench": Command(
        TRUST, "speed and memory of a task, measured beside other tools in one run", "lvlm-lens bench capture"
    ),
}  # fmt: skip
"""Words and what they do; each has a module of its name in ``lvlm_lens.commands``."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the run ends as by Ctrl-C."""


def build_parser(word: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the named command's own options are built, so that help stays fast."""
    parser = argparse.ArgumentParser(
        prog="lvlm-lens",
        description="Where inside a large vision-language model safety lives: locate it, prove it causally, "
        "measure what defences change there.",
        epilog=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="lvlm-lens [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"lvlm-lens {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    for name, about in COMMANDS.items():
        command = commands.add_parser(
            name,
            description=about.help[0].upper() + about.help[1:] + ("" if about.help.endswith("?") else "."),
            epilog=f"example:\n  {about.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == word:
            import_module(f".commands.{name}", __package__).add_arguments(command)
            command.usage = " ".join([f"lvlm-lens {name}", "[OPTIONS]", *_positional(command)])
    return parser


def _positional(command: argparse.ArgumentParser) -> list[str]:
    """Words without a dash, as the usage line shows them."""
    shown = []
    for action in command._get_positional_actions():
        word = action.metavar if isinstance(action.metavar, str) else None
        word = word or ("{" + ",".join(action.choices) + "}" if action.choices else action.dest.upper())
        shown.append({"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} ..."}.get(str(action.nargs), word))
    return shown


def _overview() -> str:
    lines = []
    for group in (FIND, PROVE, DEFEND, LOOK, TRUST):
        lines.append(f"{group}:")
        for name, about in COMMANDS.items():
            if about.group == group:
                lines += [f"  {name:<10} {about.help}", f"  {'':<10} $ {about.example}"]
        lines.append("")
    return "\n".join([*lines, "lvlm-lens COMMAND --help shows a command's options and their defaults."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``lvlm-lens``; returns the exit code."""
    # threads that spin while they wait make a machine shared with other work many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    word = next((w for w in words if not w.startswith("-")), None)
    options = build_parser(word).parse_args(words)
    try:
        with _terminable():
            command: Any = import_module(f".commands.{options.command}", __package__)
            doing = command.opening(options) if hasattr(command, "opening") else None
            if doing and not getattr(options, "quiet", False):
                print(f"{options.command}: {doing}", file=sys.stderr, flush=True)
            code = int(command.run(options) or 0)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader (head, say) has seen enough; nothing is left to print to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LensError as error:
        print(f"lvlm-lens {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        ended = "ended by SIGTERM" if isinstance(stop, Terminated) else "interrupted"
        print(f"lvlm-lens {options.command}: {ended}; {_what_is_kept(options)}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130


def _what_is_kept(options: argparse.Namespace) -> str:
    kept = COMMANDS[options.command].kept
    if kept == "always" or (kept == "out" and getattr(options, "out", None) is not None):
        return "the same command continues"
    return "nothing was kept; with --out DIR the same command continues" if kept == "out" else "nothing was kept"


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does; only the main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        del number, frame
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())

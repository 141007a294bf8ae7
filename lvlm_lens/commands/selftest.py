"""``lvlm-lens selftest``."""

from __future__ import annotations

import argparse
import json

from .console import progress_bars
from .options import add_output_options, next_line
from .workers import add_worker_options, asked_for, run_jobs, shared_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the study on constructed models."""
    add = parser.add_argument
    add("--models", type=int, default=40, metavar="N", help="constructed models (default: 40)")
    add("--pairs", default="50,100,200", metavar="N[,N]", help="sample sizes in pairs (default: 50,100,200)")
    add("--seed", type=int, default=1, help="seed of models and items (default: 1)")
    add("--folder", metavar="DIR", help="keep each model's trial there, and continue what is there (default: nowhere)")
    add("--audit", action="store_true", help="planted arrays: every rule of inference (default: models)")
    add("--draws", type=int, default=300, metavar="N", help="with --audit: draws of each case (default: 300)")
    add_worker_options(parser)
    add("--out", metavar="FILE", help="write the JSON there too, without the single trials (default: nowhere)")
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    return f"{options.models} constructed models, each asked at {options.pairs} pairs; loading libraries"


def run(options: argparse.Namespace) -> int:
    """Build, locate, compare with the truth, print the table.  A missed target is a row, not an exit code."""
    from pathlib import Path

    from ..errors import UsageError

    if options.audit:
        if asked_for(options):
            raise UsageError("--audit runs in one process; leave --workers and --ray out")
        return _audit(options)
    try:
        pairs = [int(word) for word in options.pairs.split(",")]
    except ValueError:
        raise UsageError(f"--pairs is {options.pairs!r}; write numbers with commas, e.g. 50,200") from None
    with progress_bars(options.quiet) as tell:
        from ..provenance import environment
        from ..selftest.study import SelfTest, run_study, table
        from ..storage.commit import write_atomic

        folder = None if options.folder is None else Path(options.folder)
        if asked_for(options):
            from ..scale.jobs.trials import TrialsJob

            folder = Path(shared_folder(options.folder, "selftest", "--folder"))
            study = SelfTest(options.models, tuple(pairs), options.seed, folder)
            study.claim()
            run_jobs(options, [TrialsJob(study, str(folder))])
        result = run_study(  # with workers every trial is there, and only read
            options.models, pairs, options.seed, folder, tell
        )
    if options.out is not None:
        kept = {key: value for key, value in result.items() if key != "trials"}
        kept["environment"] = environment(options.seed)
        write_atomic(Path(options.out), json.dumps(kept, indent=1, allow_nan=False) + "\n")
    if options.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    elif not options.quiet:
        from ..report.findings import of_selftest

        print(table(result))
        print(f"Found: {of_selftest(result)}")
        print(next_line(f"lvlm-lens report {options.out}" if options.out else "lvlm-lens selftest --out selftest.json"))
    return 0


def _audit(options: argparse.Namespace) -> int:
    """Planted arrays: the table of every rule, before and now."""
    from pathlib import Path

    from ..provenance import environment
    from ..selftest.audit.run import audit_table, run_audit
    from ..storage.commit import write_atomic

    with progress_bars(options.quiet) as tell:
        result = run_audit(options.draws, options.seed, tell)
    if options.out is not None:
        kept = {**result, "environment": environment(options.seed)}
        write_atomic(Path(options.out), json.dumps(kept, indent=1, allow_nan=False) + "\n")
    if options.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    elif not options.quiet:
        print(audit_table(result))
        print(f"\n{options.draws} draws, seed {options.seed}, {result['seconds']:.0f} s; {result['missed']} missed")
    return 0

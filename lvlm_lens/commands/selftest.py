"""``lvlm-lens selftest``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

from ..errors import UsageError
from ..selftest.settings import StudySettings
from .console import progress_bars
from .options import add_output_options, add_settings, next_line, setting
from .workers import add_worker_options, asked_for, run_jobs, shared_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the study on constructed models."""
    add = parser.add_argument
    add_settings(parser, [field.name for field in fields(StudySettings)], StudySettings)
    add(
        "--audit",
        action="store_true",
        help="check every statistical rule on arrays with a planted answer (default: models)",
    )
    add("--draws", type=int, default=300, metavar="N", help="with --audit: random arrays of each case (default: 300)")
    add_worker_options(parser)
    add("--out", metavar="FILE", help="write the JSON there too, without the single trials (default: nowhere)")
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    models, pairs = (setting(options, name, StudySettings) for name in ("models", "pairs"))
    sizes = pairs if isinstance(pairs, str) else ",".join(map(str, pairs))
    return f"{models} constructed models, each asked at {sizes} pairs; loading libraries"


def run(options: argparse.Namespace) -> int:
    """Build, locate, compare with the truth, print the table.  A missed target is a row, not an exit code."""
    from pathlib import Path

    if options.audit:
        if asked_for(options):
            raise UsageError("--audit runs in one process; leave --workers and --ray out")
        return _audit(options)
    models, seed = (setting(options, name, StudySettings) for name in ("models", "seed"))
    pairs = StudySettings.pairs if options.pairs is None else _sizes(options.pairs)
    with progress_bars(options.quiet) as tell:
        from ..provenance import environment
        from ..selftest.study import SelfTest, run_study, table
        from ..storage.commit import write_atomic

        folder = None if options.folder is None else Path(options.folder)
        if asked_for(options):
            from ..scale.jobs.trials import TrialsJob

            folder = Path(shared_folder(options.folder, "selftest", "--folder"))
            study = SelfTest(models, pairs, seed, folder)
            study.claim()
            run_jobs(options, [TrialsJob(study, str(folder))])
        result = run_study(  # with workers every trial is there, and only read
            models, pairs, seed, folder, tell
        )
    if options.out is not None:
        kept = {key: value for key, value in result.items() if key != "trials"}
        kept["environment"] = environment(seed)
        write_atomic(Path(options.out), json.dumps(kept, indent=1, allow_nan=False) + "\n")
    if options.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    elif not options.quiet:
        from ..report.findings import of_selftest

        print(table(result))
        print(f"Found: {of_selftest(result)}")
        print(next_line(f"lvlm-lens report {options.out}" if options.out else "lvlm-lens selftest --out selftest.json"))
    return 0


def _sizes(words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(","))
    except ValueError:
        raise UsageError(f"--pairs is {words!r}; write numbers with commas, e.g. 50,200") from None


def _audit(options: argparse.Namespace) -> int:
    """Planted arrays: the table of every rule, before and now."""
    from pathlib import Path

    from ..provenance import environment
    from ..selftest.audit.run import audit_table, run_audit
    from ..storage.commit import write_atomic

    seed = setting(options, "seed", StudySettings)
    with progress_bars(options.quiet) as tell:
        result = run_audit(options.draws, seed, tell)
    if options.out is not None:
        kept = {**result, "environment": environment(seed)}
        write_atomic(Path(options.out), json.dumps(kept, indent=1, allow_nan=False) + "\n")
    if options.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    elif not options.quiet:
        print(audit_table(result))
        print(f"\n{options.draws} draws, seed {seed}, {result['seconds']:.0f} s; {result['missed']} missed")
    return 0

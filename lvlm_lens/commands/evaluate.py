"""``lvlm-lens evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .console import progress_bars
from .estimates import print_estimate
from .options import (
    NOT_KEPT,
    add_output_options,
    add_run_options,
    config_from,
    left_out_line,
    next_line,
    run_opening,
    say_loaded,
)
from .workers import add_worker_options, asked_for, run_jobs, shared_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the defence table."""
    add_run_options(parser, out_unset=NOT_KEPT, limit="at most N test samples, whole groups at a time")
    add = parser.add_argument_group("defences").add_argument
    add("--defense", default="all", metavar="NAME[,NAME]", help="by name, adapter folders, or all (default: all)")
    add("--train-limit", type=int, metavar="N", help="at most N training samples (default: all)")
    add("--max-new-tokens", type=int, default=32, metavar="N", help="longest answer (default: 32)")
    add("--refusal-rule", default="lens", metavar="NAME", help="word rule that tells a refusal (default: lens)")
    add(
        "--no-inside", action="store_true",
        help="leave out what each defence changes inside the model (default: measured)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="print requests, forwards and time, and stop (default: run)")
    add = parser.add_argument_group("judge").add_argument
    add("--judge", metavar="URL|FOLDER", help="also judge the answers: an endpoint or a local model (default: none)")
    add("--judge-model", metavar="NAME", help="the model that an endpoint judges with (default: to be given)")
    add(
        "--judge-key", default="OPENAI_API_KEY", metavar="VARIABLE",
        help="environment variable that holds its key (default: OPENAI_API_KEY)",
    )  # fmt: skip
    add("--judge-rubric", default="harmful", metavar="NAME|FILE", help="what the judge is asked (default: harmful)")
    add(
        "--score-refusals", metavar="FILE",
        help="only measure the refusal scorers on answers that people scored (default: no)",
    )  # fmt: skip
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    if options.score_refusals is not None:
        return f"refusal scorers on {options.score_refusals}; loading libraries"
    return run_opening(options)


def run(options: argparse.Namespace) -> int:
    """Ask every defence, store the answers in the run folder where one is given, print the table."""
    if options.score_refusals is not None:
        return _score_refusals(options)
    limit, options.limit = options.limit, None  # it counts test samples here, not records that are loaded
    config = config_from(options)
    if options.dry_run:
        from ..estimate_evaluation import estimate_evaluation

        found = estimate_evaluation(
            config, options.defense, limit, options.train_limit, options.max_new_tokens, not options.no_inside,
            options.judge is not None,
        )  # fmt: skip
        return print_estimate(found, options)
    with progress_bars(options.quiet):
        from ..defenses.registry import make_defenses
        from ..evaluate.evaluation import evaluate
        from ..evaluate.judged import make_judge
        from ..plots.defenses import defense_plane
        from ..plots.theme import save_figure
        from ..progress import stage
        from ..stages.inputs import left_out, load_inputs
        from ..storage.runfolder import RunFolder

        if asked_for(options):
            from ..scale.jobs.answers import AnswersJob

            shared = shared_folder(config.out, "evaluate")
            job = AnswersJob(config, shared, options.defense, limit, options.train_limit, options.max_new_tokens)
            run_jobs(options, [job], config)
        folder = RunFolder(Path(config.out)) if config.out is not None else None
        judge = None
        if options.judge is not None:
            judge = make_judge(options.judge, options.judge_model, options.judge_key)
        model, data = load_inputs(config)
        say_loaded(model, options.quiet)
        with stage("defences"):
            result = evaluate(
                model,
                data,
                make_defenses(options.defense, model),
                limit=limit,
                train_limit=options.train_limit,
                refused=options.refusal_rule,
                max_new_tokens=options.max_new_tokens,
                batch_size=config.batch_size,
                out=folder.path / "answers" if folder is not None else None,
                inside=not options.no_inside,
                judge=judge,
                rubric=options.judge_rubric,
                seed=config.seed,
            )
    if folder is not None:
        folder.write_json("evaluation.json", result.to_dict())
        save_figure(defense_plane(result.plane()), folder.path, "defense_plane")
    if options.json:
        print(json.dumps(result.to_dict(), indent=2))
    elif not options.quiet:
        from ..report.findings import of_evaluation

        print(f"\n{result}\n")
        print(left_out_line(left_out(data), len(data)) + f"; {result.without_answer()} requests without an answer")
        print(f"Found: {of_evaluation(result.to_dict())}")
        print(next_line(f"lvlm-lens report {config.out}" if config.out else "the same command with --out DIR keeps it"))
    return 0


def _score_refusals(options: argparse.Namespace) -> int:
    """How good are the word rules and the others, against people?"""
    import pandas

    from ..evaluate.refusal_check import check_table, reaction_confusion, score_refusal_scorers

    checks = score_refusal_scorers(options.score_refusals)
    counts = reaction_confusion(options.score_refusals)
    if options.json:
        print(json.dumps({"scorers": [check.row() for check in checks], "reactions": counts}, indent=2))
    elif not options.quiet:
        table = check_table(checks)
        for name in ("accuracy", "misses", "false_alarms"):
            bounds = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
            table[name] = [f"{100 * v:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" for v, low, high in bounds]
        print(table[["scorer", "accuracy", "misses", "false_alarms"]].to_string(index=False))
        print(f"{checks[0].accuracy.total} answers; misses are of refusals, false alarms of the others; Wilson 95 %")
        print("\nThe three-way scorer (it sees the question) by the people's score:")
        print(pandas.DataFrame(counts).T.to_string())
    return 0

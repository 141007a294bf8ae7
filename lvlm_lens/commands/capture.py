"""``lvlm-lens capture``."""

from __future__ import annotations

import argparse
import json

from ..errors import UsageError
from .console import progress_bars
from .options import (
    add_output_options,
    add_run_options,
    add_settings,
    config_from,
    left_out_line,
    next_line,
    run_opening,
    say_loaded,
)
from .workers import add_worker_options, asked_for, run_jobs, shared_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the capture."""
    add_run_options(parser, out="folder or any fsspec address; the same command continues it", out_unset="to be given")
    group = parser.add_argument_group("what is kept")
    add = group.add_argument
    add("--sites", default="resid_post", help="sites, comma-separated; globs too (default: resid_post)")
    add_settings(group, ["positions"], positions="which positions are kept, e.g. all, last, image[0]")
    add("--logits", action="store_true", help="keep the logits of the last prompt token (default: no)")
    add("--store-dtype", metavar="DTYPE", help="dtype of the copies (default: the model's own)")
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    if config_from(options).out is None:
        raise UsageError("capture needs --out DIR: a folder (or any fsspec address) for the store")
    return run_opening(options)


def run(options: argparse.Namespace) -> int:
    """Stream activations into a store; the same command continues it."""
    config = config_from(options)
    assert config.out is not None
    with progress_bars(options.quiet) as tell:
        import torch

        from ..activations.capture_to import capture_to
        from ..stages.inputs import left_out, load_inputs

        dtype = None
        if options.store_dtype is not None:
            dtype = getattr(torch, options.store_dtype, None)
            if not isinstance(dtype, torch.dtype):
                raise UsageError(
                    f"--store-dtype {options.store_dtype!r} is no torch dtype; write float32, bfloat16 or float16"
                )
        sites = [word.strip() for word in options.sites.split(",")]
        if asked_for(options):
            from ..scale.jobs.capture import CaptureJob

            shared = shared_folder(config.out, "capture", addresses=True)
            job = CaptureJob(config, shared, tuple(sites), str(config.positions), options.logits, options.store_dtype)
            run_jobs(options, [job], config)
        model, data = load_inputs(config, need_labels=False)
        say_loaded(model, options.quiet)
        store = capture_to(  # with workers everything is there, and only opened
            model,
            data,
            config.out,
            sites,
            config.positions,
            logits=options.logits,
            dtype=dtype,
            batch_size=config.batch_size,
            on_error=None if config.strict else lambda sample, error: None,  # the ledger names it
            progress=lambda done, total: tell("capturing", done, total),
        )
    failed = [f"{sample}: {reason}" for sample, reason in store.left_out.items()]
    found = {
        "out": config.out,
        "samples": len(store.samples),
        "sites": [str(site) for site in store.sites],
        "positions": str(config.positions),
        "left_out": failed,
    }
    if options.json:
        print(json.dumps(found, indent=2))
    elif not options.quiet:
        for line in failed:
            print(f"left out: {line}")
        print(left_out_line(left_out(data) or (f"{len(failed)} samples, named above" if failed else ""), len(data)))
        print(f"Found: {found['samples']} samples, {len(store.sites)} sites at {config.positions!r} in {config.out}")
        reading = "from lvlm_lens.activations.store import ActivationStore; print(ActivationStore.open"
        print(next_line(f'python -c "{reading}({config.out!r}))"'))
    return 0

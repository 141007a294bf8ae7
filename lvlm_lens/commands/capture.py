"""``lvlm-lens capture``."""

from __future__ import annotations

import argparse
import json

from ..errors import UsageError
from .console import progress_bars
from .options import add_output_options, add_run_options, config_from, say_loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the capture."""
    add_run_options(parser)
    parser.add_argument("--sites", default="resid_post", help="sites, comma-separated; globs too (default: resid_post)")
    parser.add_argument("--positions", help="which positions are kept, e.g. all, last, image[0] (default: last)")
    parser.add_argument("--logits", action="store_true", help="keep the logits of the last prompt token")
    parser.add_argument("--store-dtype", metavar="DTYPE", help="dtype of the copies (default: the model's own)")
    add_output_options(parser)


def run(options: argparse.Namespace) -> int:
    """Stream activations into a store; the same command continues it."""
    config = config_from(options)
    if config.out is None:
        raise UsageError("capture needs --out DIR: a folder (or any fsspec address) for the store")
    import torch

    from ..activations.capture_to import capture_to
    from ..stages.inputs import load_inputs

    dtype = None
    if options.store_dtype is not None:
        dtype = getattr(torch, options.store_dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise UsageError(
                f"--store-dtype {options.store_dtype!r} is no torch dtype; write float32, bfloat16 or float16"
            )
    failed: list[str] = []
    with progress_bars(options.quiet) as tell:
        model, data = load_inputs(config, need_labels=False)
        say_loaded(model, options.quiet)
        store = capture_to(
            model,
            data,
            config.out,
            [word.strip() for word in options.sites.split(",")],
            config.positions,
            logits=options.logits,
            dtype=dtype,
            batch_size=config.batch_size,
            on_error=None if config.strict else lambda sample, error: failed.append(f"{sample.id}: {error}"),
            progress=lambda done, total: tell("capturing", done, total),
        )
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
        print(f"{found['samples']} samples, {len(store.sites)} sites at {config.positions!r} in {config.out}")
        for line in failed:
            print(f"left out: {line}")
    return 0

"""What a whole sweep costs beside the plain forwards of the same items.

The sweep runs in a new folder, stage by stage on the clock.  Then the same items go once through the plain Hugging
Face model, encoded by its own processor, in batches of the same size and with the same number of threads: no hooks,
no lens, nothing kept.  A sweep also runs the random-weight twin and, for pictures, the items in words (by the model and
by its backbone); what prompts have in common at their beginning is run once
(:mod:`~lvlm_lens.models.beginnings`).  Processor time stands beside the clock's, which others on the machine stretch.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..config import SweepConfig
from ..lens import LVLM
from ..models.batching import batches
from ..provenance import environment
from ..stages.inputs import load_inputs
from ..sweep import Tell, run_sweep

READING = "gather_"
"""How the sweep's stages that run forwards over all items begin."""
CAUSAL = ("patch", "sasa", "defenses")
"""Stages after the curves, each with forwards and answers of its own on a few items or pairs."""


def bench_sweep(config: SweepConfig, progress: Tell | None = None) -> dict[str, Any]:
    """Seconds of a sweep by stage, of the plain forwards of its items, and their ratio.

    Args:
        config: what to sweep; ``out`` is not used.
        progress: progress callback of the sweep.
    """
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        result = run_sweep(replace(config, out=str(Path(folder) / "run")), progress)
        whole, whole_cpu = time.perf_counter() - start, time.process_time() - cpu
    stages, spent = dict(result.data["timings"]), dict(result.data["processor_seconds"])
    model, data = load_inputs(config)
    start, cpu = time.perf_counter(), time.process_time()
    _plain_forwards(model, data.samples, config.batch_size)
    plain, plain_cpu = time.perf_counter() - start, time.process_time() - cpu
    curves = whole - sum(stages.get(name, 0.0) for name in CAUSAL)
    curves_cpu = whole_cpu - sum(spent.get(name, 0.0) for name in CAUSAL)
    reading, reading_cpu = (sum(s for n, s in of.items() if n.startswith(READING)) for of in (stages, spent))
    return {
        "model": config.model,
        "dataset": config.dataset,
        "items": len(data),
        "blocks": model.n_blocks,
        "d_model": model.anatomy.d_model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        "pairs": config.pairs,
        "seconds_by_stage": stages,
        "cpu_seconds_by_stage": spent,
        "seconds": round(whole, 2),
        "seconds_besides_reading": round(whole - reading, 2),
        "cpu_seconds": round(whole_cpu, 2),
        "cpu_seconds_besides_reading": round(whole_cpu - reading_cpu, 2),
        "plain_forwards_seconds": round(plain, 2),
        "plain_forwards_cpu_seconds": round(plain_cpu, 2),
        "ratio": round(whole / plain, 2),
        "cpu_ratio": round(whole_cpu / plain_cpu, 2),
        "ratio_without_causal_stages": round(curves / plain, 2),
        "cpu_ratio_without_causal_stages": round(curves_cpu / plain_cpu, 2),
        "environment": environment(config.seed, []),
    }


@torch.inference_mode()
def _plain_forwards(model: LVLM, samples: Any, size: int) -> None:
    for batch in batches(samples, size):
        encoded = model.encode([samples[i] for i in batch])
        model.model(**encoded.inputs, use_cache=False, logits_to_keep=1)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def sweep_table(found: dict[str, Any]) -> str:
    """The result in words and aligned columns."""
    spent = found["cpu_seconds_by_stage"]
    rows = [
        *((name, seconds, spent[name]) for name, seconds in found["seconds_by_stage"].items()),
        ("whole sweep", found["seconds"], found["cpu_seconds"]),
        ("besides reading", found["seconds_besides_reading"], found["cpu_seconds_besides_reading"]),
        ("plain forwards, once", found["plain_forwards_seconds"], found["plain_forwards_cpu_seconds"]),
    ]
    lines = [
        f"sweep of {found['model']} on {found['dataset']}: {found['items']} items, {found['blocks']} blocks of width "
        f"{found['d_model']}, {found['dtype']}, {found['threads']} threads, {found['device']}",
        f"  {'':<24}{'clock':>10}    {'processor':>10}",
        *(f"  {name:<24}{seconds:>10.1f} s  {cpu:>10.1f} s" for name, seconds, cpu in rows),
        f"the sweep costs {found['ratio']:.1f} times one pass of plain forwards over its items, "
        f"{found['cpu_ratio']:.2f} by processor time; without patching, SASA and defences "
        f"{found['ratio_without_causal_stages']:.1f} and {found['cpu_ratio_without_causal_stages']:.2f}",
    ]
    return "\n".join(lines)

"""``bench_patch``: what a patch grid costs here and in other tools, on one model, one metric, in one run.

Three sweeps over ``resid_post`` of every block, both ways (clean into corrupted and back):

A  the last token;  B  eight question tokens;  C  the whole picture as one span.

Peers run one whole forward per cell, so their time for a sweep is their two preparing forwards plus the number of
cells times the median of the cells that were timed (a subset, drawn anew in every round; its size is printed).
Ours is timed whole.  Rounds are interleaved: every tool runs once a round, so that a busy machine slows all; on one
thread the clock is the processor's, which other work does not move.
No cell of ours is verified inside the timing; instead the timed logits are compared with the plain hooks' on every
cell that these ran.  Peers run cells one by one, vision tower included, as their users write it: nobody batches cells
or keeps the picture's embeddings for them.

The arithmetic minimum counts two forwards (vision tower once a picture, the words before it once, unembedding at one
token) and, for each cell below the last block, the blocks above the patch over the tokens that then differ from both
runs: from the patch on, or from the end of a picture that is replaced as a whole (see
:mod:`~lvlm_lens.interventions.inherit`).  Linear layers count by their weights, attention by the keys that each query
may see; in the first block above, queries, keys and values are known and only what comes of changed keys is counted; of
the last block, keys and values of all tokens and the rest at the last token.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..activations.sites import Site
from ..causal.cells import SiteAxis, build_cell
from ..errors import UsageError
from ..interventions.cell import Cell
from ..interventions.engine import resume
from ..interventions.inherit import Inheritance
from ..interventions.recording import Recording, record
from ..lens import LVLM
from ..models.encode import Encoded
from .llava_shape import image_pair, llava_shape
from .measure import cost, seconds
from .peers import PEERS, PlainHooks, TransformerLens

Say = Callable[[str], None]
SWEEPS = {"A": "last token", "B": "8 question tokens", "C": "whole picture as one span"}


@dataclass
class _Task:
    """One sweep: the columns of each position cell, for both directions and all blocks."""

    model: LVLM
    encoded: dict[str, Encoded]
    columns: list[tuple[int, ...]]
    directions: tuple[str, ...]

    @property
    def places(self) -> list[tuple[str, int, tuple[int, ...]]]:
        return [(r, b, c) for r in self.directions for b in range(self.model.n_blocks) for c in self.columns]

    def ours(self) -> torch.Tensor:
        """Logits ``[cell, vocab]`` of every place, by the engine, from nothing: both recordings included."""
        wanted = [Site("resid_post", b) for b in range(self.model.n_blocks)]
        used = sorted({c for own in self.columns for c in own})
        recordings: dict[str, Recording] = {}
        rows = len(next(iter(self.encoded.values())))
        for side, encoded in self.encoded.items():
            recordings[side] = record(self.model, encoded, wanted, [used] * rows, used[0])
        out: list[torch.Tensor] = []
        for recipient in self.directions:
            donor = recordings["corrupted" if recipient == "clean" else "clean"]
            inheritance = Inheritance(donor, recordings[recipient])
            cells: list[Cell] = [
                build_cell(SiteAxis("resid_post"), [block], row, columns, donor, columns, inheritance=inheritance)
                for block in range(self.model.n_blocks)
                for columns in self.columns
                for row in range(rows)
            ]
            logits = torch.zeros(len(cells), self.model.anatomy.vocab_size, device=self.model.device)
            for some, found in resume(self.model, recordings[recipient], cells):
                logits[some] = found
            out.append(logits)
        return torch.cat(out)


def _task(model: LVLM, sweep: str, pairs: int = 1, both: bool = True) -> _Task:
    made = [image_pair(number) for number in range(pairs)]
    encoded = {
        "clean": model.encode([pair.clean for pair in made]),
        "corrupted": model.encode([pair.corrupted for pair in made]),
    }
    layout = encoded["clean"].layouts[0]
    columns: dict[str, list[tuple[int, ...]]] = {
        "A": [(layout.last,)],
        "B": [(c,) for c in layout.question[-8:]],
        "C": [layout.images[0]],
    }
    return _Task(model, encoded, columns[sweep], ("corrupted", "clean") if both else ("corrupted",))


def arithmetic_minimum(task: _Task) -> int:
    """FLOPs that no exact method can avoid; see the module's docstring."""
    model, anatomy = task.model, task.model.anatomy
    layout = task.encoded["clean"].layouts[0]
    n, last, whole = model.n_blocks, layout.last, layout.images[0]
    rows = len(task.encoded["clean"])
    linear, qkv, kv = (_linear_flops(model, names) for names in (None, ("q_proj", "k_proj", "v_proj"), _KEYS))
    head = 2 * anatomy.d_model * anatomy.vocab_size
    a_key = 4 * anatomy.n_heads * anatomy.head_dim

    def whole_block(first: int, end: int) -> int:
        """A block over the tokens ``first`` up to ``end``: each query reads every key up to itself."""
        return (end - first) * linear + a_key * sum(range(first + 1, end + 1))

    def cell(block: int, columns: tuple[int, ...]) -> int:
        above = n - 1 - block
        if not above:
            return 0  # the logits are the donor's where the last token was written, else the recipient's
        # above a picture that was replaced as a whole, its states are the donor's, which are known
        first = max(columns) + 1 if columns == whole else min(columns)
        # the first block above reads states of either run: their queries, keys and values are known, and so is what a
        # query gets from keys that stayed
        entered = range(first if above > 1 else last, last + 1)
        keys = sum(t + 1 if t in columns else len(columns) for t in entered)
        work = len(entered) * (linear - qkv) + a_key * keys + head
        if above > 1:
            tokens = last + 1 - first
            work += (above - 2) * whole_block(first, last + 1) + tokens * kv + linear - kv + a_key * (last + 1)
        return work

    forward = (n - 1) * whole_block(0, last + 1) + (last + 1) * kv + linear - kv + a_key * (last + 1) + head
    same = whole[0]  # the words before the picture are those of every prompt
    shared = (n - 1) * whole_block(0, same) + same * kv
    total = sum(tower_flops(model, encoded) for encoded in task.encoded.values())
    total += 2 * rows * forward - (2 * rows - 1) * shared
    return total + rows * sum(cell(block, columns) for _, block, columns in task.places)


_KEYS = ("k_proj", "v_proj")


def _linear_flops(model: LVLM, names: tuple[str, ...] | None) -> int:
    """FLOPs a token of one block's linear layers: of all of them, or of those of some names."""
    layers = model.anatomy.blocks[0].named_modules()
    return 2 * sum(
        m.weight.numel() for name, m in layers if isinstance(m, nn.Linear) and (names is None or name.endswith(names))
    )


def tower_flops(model: LVLM, encoded: Encoded) -> int:
    """Counted FLOPs of the vision tower and the projector on the pictures of a batch."""
    network: Any = model.model
    pixels = model.forward_inputs(encoded)["pixel_values"]
    with torch.inference_mode():
        return cost(lambda: network.model.get_image_features(pixel_values=pixels)).flops


def bench_patch(
    blocks: int = 16,
    width: int = 256,
    image_tokens: int = 576,
    sweeps: Sequence[str] = ("A", "B", "C"),
    rounds: int = 3,
    peer_cells: int = 3,
    both: bool = True,
    growth: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    say: Say | None = None,
) -> dict[str, Any]:
    """Run the benchmark and return its tables as plain data.

    Args:
        blocks, width, image_tokens: of the model (see :func:`~lvlm_lens.bench.llava_shape.llava_shape`).
        sweeps: any of A, B, C.
        rounds: interleaved rounds; medians are over these.
        peer_cells: cells that each peer runs in each round of each sweep.
        both: patch both ways; one way only otherwise (then the two recordings weigh twice as much a cell).
        growth: add the second table, in which cells, blocks, tokens and pairs are each doubled.
        device, dtype: of the model.
        seed: of the cells that peers run.
        say: called with a line of progress.

    Returns:
        ``sweeps`` (one row a sweep), ``transformer_lens_own_function``, ``growth``, and the settings.
    """
    unknown = sorted(set(sweeps) - set(SWEEPS))
    if unknown or rounds < 1 or peer_cells < 1:
        raise UsageError(f"sweeps {unknown or list(sweeps)}, rounds {rounds}, peer_cells {peer_cells} cannot be used")
    say = say or (lambda line: None)
    model = llava_shape(blocks, width, image_tokens, seed)
    model.model.to(device, getattr(torch, dtype))
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {
        "model": model.name,
        "blocks": blocks,
        "width": width,
        "image_tokens": image_tokens,
        "device": str(model.device),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "clock": "wall" if device != "cpu" or torch.get_num_threads() > 1 else "processor",
        "directions": 2 if both else 1,
        "rounds": rounds,
        "sweeps": [],
    }
    for sweep in sweeps:
        task = _task(model, sweep, both=both)
        row, peers = _sweep(task, sweep, rounds, peer_cells, rng, say)
        result["sweeps"].append(row)
        if sweep == "A":
            block, column = blocks // 2, task.columns[0][0]
            lens = next(peer for peer in peers if isinstance(peer, TransformerLens))
            plain = next(peer for peer in peers if isinstance(peer, PlainHooks))
            grade, why = lens.own_function(block, column, plain.cell("corrupted", block, (column,)))
            result["transformer_lens_own_function"] = {"grade": grade, "why": why}
    if growth:
        result["growth"] = _growth(blocks, width, image_tokens, rounds, device, dtype, seed, say)
    return result


def _sweep(
    task: _Task, name: str, rounds: int, peer_cells: int, rng: np.random.Generator, say: Say
) -> tuple[dict[str, Any], list[Any]]:
    places = task.places
    peers: list[Any] = [make(task.model, task.encoded) for make in PEERS]
    ours_seconds: list[float] = []
    prepare: dict[str, list[float]] = {peer.name: [] for peer in peers}
    per_cell: dict[str, list[float]] = {peer.name: [] for peer in peers}
    worst: dict[str, float] = {}
    task.ours()  # warm
    for peer in peers:
        peer.prepare()
        peer.cell(*places[0])
    for number in range(rounds):
        chosen = rng.choice(len(places), min(peer_cells, len(places)), replace=False)
        took, logits = seconds(task.ours)
        ours_seconds.append(took)
        plain: dict[int, torch.Tensor] = {}
        for peer in peers:
            prepare[peer.name].append(seconds(peer.prepare)[0])
            for index in chosen:
                took, found = seconds(lambda p=peer, i=index: p.cell(*places[i]))  # type: ignore[misc]
                per_cell[peer.name].append(took)
                if isinstance(peer, PlainHooks):
                    plain[index] = found
                    worst["ours"] = max(worst.get("ours", 0.0), float((logits[index] - found).abs().max()))
                difference = float((found - plain[index]).abs().max())
                worst[peer.name] = max(worst.get(peer.name, 0.0), difference)
        say(f"sweep {name}, round {number + 1} of {rounds}: ours {ours_seconds[-1]:.2f} s")
    counted = cost(task.ours)
    minimum = arithmetic_minimum(task)
    plain_peer = peers[0]
    one_cell = cost(lambda: plain_peer.cell(*places[0]))
    ours = statistics.median(ours_seconds)
    tools = {}
    for peer in peers:
        cell = statistics.median(per_cell[peer.name])
        total = statistics.median(prepare[peer.name]) + len(places) * cell
        tools[peer.name] = {
            "seconds": total,
            "seconds_a_cell": cell,
            "cells_timed": len(per_cell[peer.name]),
            "cells_per_second": len(places) / total,
            "max_abs_diff": worst[peer.name],
            "times_ours": total / ours,
        }
    best = min(tools, key=lambda tool: tools[tool]["seconds"])
    targets = {"A": 0.7 * task.model.n_blocks, "B": 40.0, "C": 2.5}
    row = {
        "sweep": name,
        "what": SWEEPS[name],
        "cells": len(places),
        "ours": {
            "seconds": ours,
            "cells_per_second": len(places) / ours,
            "flops": counted.flops,
            "flops_over_minimum": counted.flops / minimum,
            "launches": counted.launches,
            "peak_bytes": counted.peak_bytes,
            "max_abs_diff": worst["ours"],
        },
        "minimum_flops": minimum,
        "peers": tools,
        "peer_cell": {
            "flops": one_cell.flops,
            "launches": one_cell.launches,
            "peak_bytes": one_cell.peak_bytes,
            "flops_of_sweep": one_cell.flops * (len(places) + 2),
        },
        "best_peer": best,
        "speedup": tools[best]["seconds"] / ours,
        "target": targets[name],
    }
    return row, peers


def _growth(
    blocks: int, width: int, image_tokens: int, rounds: int, device: str, dtype: str, seed: int, say: Say
) -> list[dict[str, Any]]:
    """Seconds and FLOPs of sweep B on a smaller model when one size is doubled at a time."""
    small = max(2, blocks // 2), max(128, width // 2), max(16, image_tokens // 4)
    wide = (2 * round(small[2] ** 0.5 / 2**0.5)) ** 2  # the nearest square to twice the image tokens
    cases: dict[str, tuple[int, int, int, int]] = {
        "base": (small[0], small[2], 1, 4),
        "cells x2": (small[0], small[2], 1, 8),
        "blocks x2": (2 * small[0], small[2], 1, 4),
        f"image tokens x{wide / small[2]:.1f}": (small[0], wide, 1, 4),
        "pairs x2": (small[0], small[2], 2, 4),
    }
    tasks = {}
    for name, (depth, tokens, pairs, columns) in cases.items():
        model = llava_shape(depth, small[1], tokens, seed)
        model.model.to(device, getattr(torch, dtype))
        task = _task(model, "B", pairs)
        task.columns = task.columns[-columns:]
        task.ours()
        tasks[name] = task
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            times[name].append(seconds(task.ours)[0])
    rows: list[dict[str, Any]] = []
    for name, task in tasks.items():
        counted = cost(task.ours)
        rows.append({"case": name, "seconds": statistics.median(times[name]), "flops": counted.flops})
        rows[-1]["peak_bytes"] = counted.peak_bytes
        rows[-1]["seconds_ratio"] = rows[-1]["seconds"] / rows[0]["seconds"]
        rows[-1]["flops_ratio"] = counted.flops / rows[0]["flops"]
    say("growth: done")
    return rows


def patch_table(result: dict[str, Any]) -> str:
    """The two tables as text."""
    size = f"{result['blocks']} blocks, width {result['width']}, {result['image_tokens']} image tokens"
    clock = result.get("clock", "wall")
    where = f"{result['device']} {result['dtype']}, {result['threads']} thread(s), {clock} time"
    lines = [
        f"{result['model']}: {size}, {where}, {result['directions']} direction(s)",
        f"{'sweep':<30}{'tool':<17}{'cells':>6}{'seconds':>10}{'cells/s':>10}{'slower':>9}{'max diff':>10}"
        f"{'GFLOP':>9}{'x min':>7}{'launches':>10}{'peak MB':>9}",
    ]

    def megabytes(value: int | None) -> str:
        return "-" if value is None else f"{value / 2**20:.0f}"

    for row in result["sweeps"]:
        ours, cell = row["ours"], row["peer_cell"]
        lines.append(
            f"{row['sweep'] + '  ' + row['what']:<30}{'lvlm-lens':<17}{row['cells']:>6}{ours['seconds']:>10.2f}"
            f"{ours['cells_per_second']:>10.1f}{1:>9.1f}{ours['max_abs_diff']:>10.1e}{ours['flops'] / 1e9:>9.1f}"
            f"{ours['flops_over_minimum']:>7.2f}{ours['launches']:>10}{megabytes(ours['peak_bytes']):>9}"
        )
        for tool, found in row["peers"].items():
            counted = tool == "plain hooks"
            lines.append(
                f"{'':<30}{tool:<17}{row['cells']:>6}{found['seconds']:>10.2f}{found['cells_per_second']:>10.1f}"
                f"{found['times_ours']:>9.1f}{found['max_abs_diff']:>10.1e}"
                + (f"{cell['flops_of_sweep'] / 1e9:>9.1f}" if counted else f"{'':>9}")
                + (f"{cell['flops_of_sweep'] / row['minimum_flops']:>7.2f}" if counted else f"{'':>7}")
                + (f"{cell['launches'] * (row['cells'] + 2):>10}" if counted else f"{'':>10}")
                + (f"{megabytes(cell['peak_bytes']):>9}" if counted else "")
            )
        timed = next(iter(row["peers"].values()))["cells_timed"]
        verdict = "met" if row["speedup"] >= row["target"] else "MISSED"
        lines.append(
            f"    {row['speedup']:.1f} times faster than {row['best_peer']}, target {row['target']:.1f}: {verdict}; "
            f"peers timed on {timed} cells and scaled"
        )
    if "transformer_lens_own_function" in result:
        graded = result["transformer_lens_own_function"]
        lines.append(f"TransformerLens' own patching function on this prompt: {graded['grade']} ({graded['why']})")
    if "growth" in result:
        lines.append(f"{'growth':<24}{'seconds':>10}{'ratio':>8}{'GFLOP':>9}{'ratio':>8}{'peak MB':>9}")
        for case in result["growth"]:
            lines.append(
                f"{case['case']:<24}{case['seconds']:>10.3f}{case['seconds_ratio']:>8.2f}{case['flops'] / 1e9:>9.2f}"
                f"{case['flops_ratio']:>8.2f}{megabytes(case['peak_bytes']):>9}"
            )
    return "\n".join(lines)

"""One row of the wide battery: a model through capture, lens, locate, patch and SASA, held against plain forwards.

The plain side calls Hugging Face's model on its processor's untouched output, one row at a time, and reads and writes
by hooks written here: of the toolkit it uses the processor's call (:mod:`~lvlm_lens.activations.untouched`) and the ids
of the refusal tokens, nothing else.

Run in a process of its own: ``python -m lvlm_lens.wide.row NAME DTYPE DEVICE``; the result is a line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..activations import capture
from ..activations.check_anatomy import quick_check
from ..activations.untouched import untouched
from ..causal import PatchGrid, patch_grid
from ..data import Dataset, ImageObject, Pair, Sample
from ..defenses.extraction import extract
from ..defenses.projection import Cell
from ..defenses.sasa import SASA
from ..lens import LVLM
from ..locate.locating import locate_roles
from ..machine import clock, clock_name
from ..measures.evidence import gather
from ..measures.items import group_names, harm_labels
from ..measures.linear_probe import LinearProbe
from ..models.refusal_tokens import refusal_token_ids
from .shapes import BLOCKS, SHAPES, build

ITEMS = 16
BATCH = 4
EXTRA_PADDING = 8
"""Tokens of padding that even the longest row of a padded batch gets, so that no row is measured without any."""
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 5e-2}
"""Largest difference allowed, as a share of the largest value: that of the battery on tiny models."""

_THINGS = ("spoon", "kite", "lamp", "ladder", "needle", "magnet", "rope")
Result = TypeVar("Result")


@dataclass
class Plain:
    """Plain forwards of some rows: residuals after each block at the last token, and logits there.

    Attributes:
        resid: float32 ``[row, block, d_model]``, the last block's before the final norm.
        logits: float32 ``[row, vocab]``.
        lens: float32 ``[row, block]``: refusal log-odds of the model's own norm and head on them.
    """

    resid: torch.Tensor
    logits: torch.Tensor
    lens: torch.Tensor


class Oracle:
    """The plain model: its parts found by paths written by hand."""

    def __init__(self, model: LVLM, path: str) -> None:
        self.lvlm, self.model = model, model.model
        decoder: Any = self.model.get_submodule(path)
        self.blocks: list[nn.Module] = list(decoder.layers)
        self.norm: nn.Module = decoder.norm
        self.head: nn.Module = self.model.get_output_embeddings()
        self.refusal = refusal_token_ids(model)

    @torch.inference_mode()
    def forward(self, sample: Sample, put: tuple[int, Callable[[torch.Tensor], torch.Tensor]] | None = None) -> Any:
        """Outputs of every block ``[1, position, d_model]`` and the last position's logits ``[vocab]``."""
        states, logits = self.rows(untouched(self.lvlm, sample), put)
        return states, logits[0]

    def rows(self, inputs: dict[str, Any], put: Any = None) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Outputs of every block ``[row, position, d_model]`` and the last position's logits ``[row, vocab]``."""
        seen: list[torch.Tensor] = []

        def read(module: nn.Module, args: Any, output: Any) -> None:
            del module, args
            seen.append((output[0] if isinstance(output, tuple) else output).clone())

        def write(module: nn.Module, args: Any, output: Any) -> Any:
            del module, args
            value = put[1]((output[0] if isinstance(output, tuple) else output).clone())
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handles = [] if put is None else [self.blocks[put[0]].register_forward_hook(write)]
        handles += [block.register_forward_hook(read) for block in self.blocks]
        try:
            logits = self.model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        finally:
            for handle in handles:
                handle.remove()
        return seen, logits

    def odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Refusal log-odds, from probabilities in float64."""
        p = logits.double().softmax(-1)
        inside = p[..., self.refusal].sum(-1)
        return (inside.log() - (p.sum(-1) - inside).log()).float().cpu()

    @torch.inference_mode()
    def read(self, samples: list[Sample]) -> Plain:
        """Rows one by one."""
        resid, logits, lens = [], [], []
        for sample in samples:
            states, head = self.forward(sample)
            last = torch.cat([state[:, -1] for state in states])  # [block, d_model]
            resid.append(last.float().cpu())
            logits.append(head.cpu())
            lens.append(self.odds(self.head(self.norm(last))))
        return Plain(torch.stack(resid), torch.stack(logits), torch.stack(lens))

    @torch.inference_mode()
    def noise(self, sample: Sample) -> float:
        """How far the plain forward is from itself when the same row stands twice in its batch."""
        inputs = untouched(self.lvlm, sample)
        _, alone = self.rows(inputs)
        twice = {k: torch.cat([v, v]) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        return _share(self.rows(twice)[1], torch.cat([alone, alone]))


@torch.inference_mode()
def _padded(oracle: Oracle, samples: list[Sample], plain: Plain) -> float:
    """How far plain forwards of rows of words are from themselves when four share a batch, padded on the left.

    Positions are counted from the mask, as Hugging Face's ``generate`` does.  The largest of the residual stream at the
    last token (by block) and the logits there.
    """
    rows = [number for number, sample in enumerate(samples) if not sample.images]
    states, logits = [], []
    for start in range(0, len(rows), BATCH):
        inputs = [untouched(oracle.lvlm, samples[row]) for row in rows[start : start + BATCH]]
        longest = max(item["input_ids"].shape[1] for item in inputs) + EXTRA_PADDING
        batch = {
            name: torch.cat([
                nn.functional.pad(
                    item[name], (longest - item[name].shape[1], 0),
                    value=oracle.lvlm.tokenizer.pad_token_id if name == "input_ids" else 0,
                )
                for item in inputs
            ])
            for name in inputs[0]
        }  # fmt: skip
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        found, head = oracle.rows(batch)
        states.append(torch.stack([state[:, -1].float().cpu() for state in found], dim=1))
        logits.append(head.cpu())
    resid = torch.cat(states)
    by_block = [_share(resid[:, block], plain.resid[rows][:, block]) for block in range(resid.shape[1])]
    return max(*by_block, _share(torch.cat(logits), plain.logits[rows]))


def requests(pictures: int) -> Dataset:
    """16 requests in matched pairs: the first ``pictures`` with a picture each, pairs that differ in nothing else."""
    made = []
    for number in range(ITEMS):
        group, which = divmod(number, 2)
        words = f"Is it safe to let my child play with a {_THINGS[group % len(_THINGS)]} at home?"
        shown: tuple[ImageObject, ...] = ()
        if number < pictures:
            pixels = np.random.default_rng(number).integers(0, 256, (336, 336, 3), dtype=np.uint8)
            shown = (ImageObject(Image.fromarray(pixels)),)
        elif which:
            words = words.replace("child", "enemy")
        made.append(
            Sample(
                f"item-{number}", words, shown, group=f"group-{group}", counterfactual=f"item-{number ^ 1}",
                label_joint="unsafe" if which else "safe",
            )
        )  # fmt: skip
    return Dataset(made, "wide")


def measure_row(name: str, dtype: torch.dtype, device: str, pictures: int) -> dict[str, Any]:
    """Build, run every stage, compare; plain values."""
    row: dict[str, Any] = {"seconds": {}, "difference": {}, "clock": clock_name(device)}

    def timed(stage: str, work: Callable[[], Result]) -> Result:
        start = clock(device)
        found = work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        row["seconds"][stage] = round(clock(device) - start, 2)
        print(f"{name} {dtype}: {stage} {row['seconds'][stage]} s", file=sys.stderr, flush=True)
        return found

    shape = SHAPES[name]
    model = timed("build", lambda: build(name, dtype, device))
    weights = sum(p.numel() * p.element_size() for p in model.model.parameters())
    anatomy = model.anatomy
    data = requests(pictures)
    samples = list(data)
    lengths = [model.encoder([sample]).layouts[0] for sample in samples]
    row |= {
        "model": name,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device,
        "hub": shape.hub,
        "blocks": f"{BLOCKS} of {shape.depth}",
        "tower_blocks": f"{BLOCKS} of {shape.tower_depth}",
        "pictures": shape.pictures,
        "d_model": anatomy.d_model,
        "vocabulary": anatomy.vocab_size,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "weights_bytes": weights,
        "items": len(samples),
        "items_with_picture": sum(bool(s.images) for s in samples),
        "image_tokens": max((len(layout.part("image")) for layout in lengths), default=0),
        "longest_prompt": max(len(layout.attended) for layout in lengths),
    }
    timed("check on load", lambda: quick_check(model))
    oracle = Oracle(model, shape.decoder)
    plain = timed("plain forwards", lambda: oracle.read(samples))
    noise = timed("noise", lambda: oracle.noise(samples[-1]))
    padded = timed("noise of padding", lambda: _padded(oracle, samples, plain))

    acts = timed("capture", lambda: capture(model, samples, "resid_post", "last", batch_size=BATCH))
    found = torch.from_numpy(np.stack([acts["resid_post", b][:, 0] for b in range(BLOCKS)], axis=1)).float()
    row["difference"]["capture"] = max(_share(found[:, b], plain.resid[:, b]) for b in range(BLOCKS))

    evidence = timed("lens", lambda: gather(model, samples, batch_size=BATCH))
    row["difference"]["lens"] = _share(torch.from_numpy(evidence.lens_log_odds), plain.lens)

    probe = LinearProbe(folds=4, permutations=20, replicates=100)
    timed("locate", lambda: locate_roles(evidence, None, probe=probe, seed=0))
    labels, groups = harm_labels(samples), group_names(samples)
    curves = [probe.fit(x, labels, groups).curve_.value for x in (evidence.resid, plain.resid.numpy())]
    row["difference"]["locate"] = float(np.abs(curves[0] - curves[1]).max())

    pairs = list(data.pairs())
    chosen = [pairs[0], pairs[-1]]
    grid = timed(
        "patch",
        lambda: patch_grid(model, chosen, "resid_post", "last", direction="denoise", nulls=("random",), verify=1),
    )
    row["engine"] = grid.engine
    row["difference"]["patch"] = timed("plain patch", lambda: _patched(oracle, plain, samples, chosen, grid))

    cell = Cell(0, BLOCKS - 1)
    made = timed("SASA", lambda: extract(model, samples, [cell], batch_size=BATCH))
    values = made.cells[cell][:1]
    row["difference"]["SASA"] = timed("plain SASA", lambda: _projected(oracle, samples[:1], values))
    row["sasa_engine"] = made.engine
    guard = SASA(safety_block=0, fused_block=BLOCKS - 1, batch_size=BATCH)
    timed("SASA probe", lambda: guard.fit(model, samples[pictures:]))

    row["noise"] = noise
    row["noise_padded"] = padded
    row["tolerance"] = TOLERANCE[dtype]
    row["largest_difference"] = max(row["difference"].values())
    row["ok"] = bool(row["largest_difference"] <= TOLERANCE[dtype])
    row["peak_bytes"] = _peak(device)
    row["peak_over_weights"] = round(row["peak_bytes"] / weights, 2)
    row["seconds_in_all"] = round(sum(row["seconds"].values()), 1)
    return row


def _share(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference as a share of the largest value."""
    ours, theirs = ours.float().cpu(), theirs.float().cpu()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))


def _patched(oracle: Oracle, plain: Plain, samples: list[Sample], pairs: list[Pair], grid: PatchGrid) -> float:
    """Cells (clean into corrupted, last token) against a hook on the plain model: one block of a pair with pictures,
    every block of a pair of words."""
    ours, by_hand = [], []
    for column, pair in enumerate(pairs):
        row = next(n for n, sample in enumerate(samples) if sample.id == pair.clean.id)
        for block in range(1 if pair.clean.images else BLOCKS):

            def put(value: torch.Tensor, donor: torch.Tensor = plain.resid[row, block]) -> torch.Tensor:
                value[:, -1] = donor.to(value.device, value.dtype)
                return value

            _, logits = oracle.forward(pair.corrupted, (block, put))
            by_hand.append(oracle.odds(logits))
            ours.append(grid.values[0, 0, block, 0, column])
    return _share(torch.tensor(ours), torch.stack(by_hand))


def _projected(oracle: Oracle, samples: list[Sample], values: np.ndarray) -> float:
    """First-token logits ``[row, vocab]`` of the second pass against a hook that projects by hand."""
    by_hand = []
    for sample in samples:
        states, _ = oracle.forward(sample)
        safety, fused = states[0].float(), states[-1].float()
        a = (safety * fused).sum(-1, keepdim=True) / (fused * fused).sum(-1, keepdim=True)
        new = (a * fused).to(states[0].dtype)
        _, logits = oracle.forward(sample, (0, lambda value, new=new: new))  # type: ignore[misc]
        by_hand.append(logits.cpu())
    return _share(torch.from_numpy(np.asarray(values)), torch.stack(by_hand))


def _peak(device: str) -> int:
    """Peak bytes: of the allocator on a GPU, else of the process, Python and its libraries included."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(words: list[str]) -> None:
    """One row on standard output."""
    name, dtype, device, pictures = words
    found = measure_row(name, getattr(torch, dtype), device, int(pictures))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

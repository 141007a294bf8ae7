"""``patch_grid``: every cell of site x block x position, for many matched pairs, both ways.

For each batch of pairs the clean and the corrupted prompts are run once each
(:func:`~lvlm_lens.interventions.recording.record`), the cells are made (:mod:`.cells`) and resumed
(:func:`~lvlm_lens.interventions.engine.resume`), and the metric is taken from each cell's logits at once, so no logits
are kept.  Denoising writes clean values into the corrupted run (sufficiency), noising the
reverse (necessity): arXiv 2309.16042, 2404.15255.  In every call some cells, drawn at random from the first batch,
are run again as plain forwards with hooks and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..data import Pair
from ..errors import DataError, ModelError, NumericalError, UsageError
from ..lens import LVLM
from ..models.batching import out_of_memory
from ..models.positions import Layout, Positions
from ..progress import part
from ..stats.maxt import attainable
from .batches import alike, pictures
from .cells import position_groups, site_axis
from .grid import GridFolder, PatchGrid, _empty
from .grid_options import GridOptions, wave_tokens
from .metrics import LogitsFunction, Metric, make_metric
from .nulls import NULLS, null_kinds
from .patch_batch import GridBatch, GridPlan, run_batch

Progress = Callable[[int, int], None]
"""Called with (pairs done, pairs in all)."""
RECORDED = 2**30
"""Bytes of recorded state that the pairs of one batch may take."""
_COMPANY = 4
"""Fewest pairs of a batch by default where nulls are taken from the other pairs."""


def patch_grid(
    model: LVLM,
    pairs: Sequence[Pair],
    sites: str | Sequence[str] = "resid_post",
    positions: str | Positions | Sequence[str] | Mapping[str, str] = "last",
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    direction: Literal["denoise", "noise", "both"] = "both",
    per: Literal["position", "span"] = "position",
    window: int = 1,
    *,
    heads: Literal["all", "each"] = "all",
    exact: Literal["auto", "full"] = "auto",
    verify: int = 4,
    null: int = 1,
    nulls: Sequence[str] = NULLS,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    out: str | Path | None = None,
) -> PatchGrid:
    """Patch every site x block x position of matched pairs and measure what the first answer token does.

    Args:
        model: the model; its attention kernel is kept (flash attention, which takes no masks, is replaced by sdpa).
        pairs: matched pairs; the selected positions of the two prompts must be equally many, except in ``mean(...)``.
        sites: any of resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z, pattern, image_features.
        positions: the position language; see :mod:`~lvlm_lens.causal.cells` for groups and ``image_rows``.
        metric: ``refusal_log_odds``, ``answer_logit_diff``, ``kl``, or ``f(logits [batch, vocab]) -> [batch]``.
        direction: ``denoise`` (clean into corrupted), ``noise`` (corrupted into clean) or ``both``.
        per: one cell a ``position``, or one a ``span`` (each term of a union).
        window: blocks patched together; the block axis names the first of them.
        heads: ``each`` patches heads of z, q, k, v one by one; their site is then named ``z.h3``.
        exact: ``auto`` resumes where that is exact and runs in full elsewhere; ``full`` always runs plain forwards.
        verify: number of cells that are compared with plain forwards in this call, and whose effect stands out from
            the noise of such forwards (:mod:`~lvlm_lens.interventions.verification`).
        null: draws per cell of each null (0: none).
        nulls: what each cell is held against (:mod:`~lvlm_lens.causal.nulls`); donors and covariance are taken from
            the pairs of one batch.
        batch_size: pairs per batch; by default as many as about 1 GiB of recorded state allows (one where this model's
            rows change when they are padded, whose cells have no null from other pairs), and halved when
            memory runs out.
        max_tokens: most tokens in one wave of cells; by default as :func:`~.grid_options.wave_tokens` says.
        seed: of the random directions and of the choice of cells to verify.
        progress: called after each batch.
        say: called once before the first forward, with what so many groups can show at best over so many cells.
        out: a folder that makes the run resumable (see :mod:`~lvlm_lens.causal.grid`).

    Returns:
        :class:`~lvlm_lens.causal.grid.PatchGrid`.

    Raises:
        DataError: no pairs, or a pair whose selected positions differ in number.
        SiteError: a site or position that does not exist.
        NumericalError: NaN or infinity in a baseline, or one cell that does not fit into memory.
        RunFolderError: ``out`` holds another grid.
    """
    asked = GridOptions(
        sites, positions, metric, direction, per, window, heads, exact, null, nulls, batch_size, max_tokens, seed
    )
    work = GridWork(model, pairs, asked, out)
    if say is not None:
        say(work.attainable())
    return work.run_all(verify, progress)


class GridWork:
    """A grid as batches of pairs: :func:`patch_grid` runs all of them, a worker some; the folder holds what is done.

    ``out``: the folder, where there is one.

    Attributes:
        batches: numbers of the pairs of each batch; they do not depend on who runs them.
        finished: how many pairs are done.
    """

    def __init__(
        self,
        model: LVLM,
        pairs: Sequence[Pair],
        asked: GridOptions,
        out: str | Path | None = None,
    ) -> None:
        if not len(pairs):
            raise DataError("no pairs were given; a data set's pairs() makes them where counterfactuals are named")
        if (
            asked.direction not in ("denoise", "noise", "both")
            or asked.exact not in ("auto", "full")
            or asked.window < 1
        ):
            raise UsageError(
                f"direction={asked.direction!r}, exact={asked.exact!r}, window={asked.window}; write denoise, noise or "
                "both; auto or full; a window of at least 1"
            )
        directions = ("denoise", "noise") if asked.direction == "both" else (asked.direction,)
        axis = site_axis(asked.sites, model.anatomy, asked.heads)
        kinds = null_kinds(asked.nulls, asked.null)
        self.pairs = pairs
        self.batches = _batches(model, pairs, asked.batch_size, len(axis), kinds)
        layouts = _layouts(model, pairs, self.batches, asked.positions, asked.per)
        groups = position_groups(asked.positions, asked.per, layouts)
        self._plan = GridPlan(
            model, directions, axis, groups, asked.window, make_metric(asked.metric, model), kinds, asked.seed,
            asked.max_tokens or wave_tokens(str(model.device)), asked.exact,
        )  # fmt: skip
        self._settings = _settings(self._plan, pairs, asked)
        self._home = GridFolder(Path(out), self._settings) if out is not None else None
        self._done, self._arrays = self._home.done() if self._home is not None else (set(), _empty(self._settings))
        self._last: GridBatch | None = None
        self._verification: dict[str, Any] = {"cells": 0, "max_abs_diff": None}

    @property
    def finished(self) -> int:
        """Pairs that are done."""
        return len(self._done)

    def attainable(self) -> str:
        """One sentence: the smallest adjusted p-value that this many groups can reach over this many cells."""
        return attainable(self._settings["groups"], int(np.prod(self._plan.shape)), one_sided=True)

    def left(self) -> list[list[int]]:
        """Batches that are not done, without the pairs that are.

        Where all are, and nobody has held any cell against a plain forward yet (workers do not), the first again.
        """
        left = [left for batch in self.batches if (left := [n for n in batch if n not in self._done])]
        if not left and self._home is not None and not self._home.is_finished():
            return self.batches[:1]
        return left

    def run_all(self, verify: int = 4, progress: Progress | None = None) -> PatchGrid:
        """Run what is left and return the grid; ``verify`` and ``progress`` as for :func:`patch_grid`."""
        for batch in self.left():
            self.run(batch, verify)
            if progress is not None:
                progress(self.finished, len(self.pairs))
        return self.grid()

    def run(self, batch: list[int], verify: int = 0) -> None:
        """Run a batch and commit it; ``verify`` cells are compared with plain forwards where none was yet.

        Where memory runs out the batch is halved.
        """
        try:
            total = len(self.pairs)
            with _masked_kernel(self._plan.model), part(self.finished / total, (self.finished + len(batch)) / total):
                asked = verify if not self._verification["cells"] else 0
                found = run_batch(self._plan, [self.pairs[n] for n in batch], batch, asked)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise NumericalError("out of memory with a single pair; use a smaller dtype or device_map") from None
            torch.cuda.empty_cache()
            half = len(batch) // 2
            self.run(batch[:half], verify)
            self.run(batch[half:], verify)
            return
        if found.verification["cells"]:
            self._verification = found.verification
        if found.engine == "full":
            self._plan.exact, self._plan.reason = "full", found.reason
        arrays = self._arrays
        arrays["patched"][..., batch], arrays["clean"][batch] = found.values, found.clean
        arrays["corrupted"][batch] = found.corrupted
        if found.null is not None:
            arrays["null"][..., batch] = found.null
        if self._home is not None:
            self._home.add(batch, found.values, found.clean, found.corrupted, found.null)
        self._last = found
        self._done |= set(batch)

    def grid(self) -> PatchGrid:
        """The finished grid; one whose every pair was done before comes from its folder."""
        if self._home is not None and self._last is None:
            return PatchGrid.load(self._home.path)
        plan, last, arrays = self._plan, self._last, self._arrays
        grid = PatchGrid(
            arrays["patched"],
            arrays["clean"],
            arrays["corrupted"],
            arrays["null"] if plan.kinds else None,
            plan.directions,
            tuple(map(str, plan.sites)),
            tuple(range(plan.model.n_blocks)),
            tuple(group.name for group in plan.groups),
            tuple((pair.clean.id, pair.corrupted.id) for pair in self.pairs),
            tuple(self._settings["groups"]),
            plan.window,
            plan.metric.name,
            last.engine if last is not None else "kept",
            last.reason if last is not None else "every pair was already in the folder",
            self._verification,
            self._settings["meta"],
            plan.kinds,
        )
        if self._home is not None:
            self._home.finish(grid)
        return grid


# -- before the runs -----------------------------------------------------------------------------


def _batches(
    model: LVLM, pairs: Sequence[Pair], size: int | None, n_sites: int, kinds: Sequence[str]
) -> list[list[int]]:
    """Numbers of pairs, batch by batch: same numbers of pictures, words of similar length."""
    if size is None and not _bear_company(model, pairs):
        size = 1
    least = _COMPANY if size is None and set(kinds) - {"random"} else 1
    if size is None:
        anatomy = model.anatomy
        tokens = model.encode(pairs[0].clean).length
        per_token = anatomy.d_model * (1 + n_sites) + 2 * anatomy.n_kv_heads * anatomy.head_dim
        row = 2 * model.n_blocks * tokens * per_token * torch.finfo(model.dtype).bits // 8
        size = int(min(64, max(least, RECORDED // row)))

    batches = alike(pairs, range(len(pairs)), size)
    if least > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        before, alone = (pictures(pairs[batch[0]]) for batch in batches[-2:])
        if before == alone:
            batches[-2] += batches.pop()  # a pair alone has no other to take a null from
    return batches


def _bear_company(model: LVLM, pairs: Sequence[Pair]) -> bool:
    """Whether prompts of unequal length may share a batch: LLM.int8, for one, rounds a row by those beside it."""
    try:
        for batch in alike(pairs, range(len(pairs)), len(pairs)):
            model.encode([pairs[batch[0]].clean, pairs[batch[-1]].clean])
    except ModelError:
        return False
    return True


def _layouts(model: LVLM, pairs: Sequence[Pair], batches: list[list[int]], positions: Any, per: str) -> list[Layout]:
    """Layouts of all prompts, where the position axis depends on them."""
    fixed = per == "span" or positions == "last" or not isinstance(positions, (str, Positions))
    if fixed and "image_rows" not in (positions if not isinstance(positions, Positions) else str(positions)):
        return model.encode(pairs[0].clean).layouts
    layouts: list[Layout] = []
    for batch in batches:
        layouts += model.encode([pairs[n].clean for n in batch]).layouts
        layouts += model.encode([pairs[n].corrupted for n in batch]).layouts
    return layouts


def _settings(plan: GridPlan, pairs: Sequence[Pair], asked: GridOptions) -> dict[str, Any]:
    words = "\0".join(pair.clean.text + "\1" + pair.corrupted.text for pair in pairs)
    return {
        "directions": list(plan.directions),
        "sites": [str(site) for site in plan.sites],
        "blocks": list(range(plan.model.n_blocks)),
        "positions": [group.name for group in plan.groups],
        "pairs": [[pair.clean.id, pair.corrupted.id] for pair in pairs],
        "groups": [pair.group or pair.clean.id for pair in pairs],
        "window": plan.window,
        "metric": plan.metric.name,
        "nulls": list(plan.kinds),
        "meta": {
            "model": plan.model.name,
            "weights": plan.model.weights_hash(),
            "dtype": str(plan.model.dtype).removeprefix("torch."),
            "positions": str(asked.positions),
            "per": asked.per,
            "seed": plan.seed,
            "exact": plan.exact,
            "words": hashlib.sha256(words.encode()).hexdigest(),
        },
    }


def _masked_kernel(model: LVLM) -> Any:
    """Flash attention ignores 4-D masks; everything else is kept."""
    now = getattr(model.model.config, "_attn_implementation", None) or "sdpa"
    return model.attention("sdpa" if "flash" in now or "paged" in now else now)

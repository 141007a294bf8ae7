"""Causal tests: patch grids by an exact engine, knockout, directions, ablation, attribution."""

from .ablate import ablation_effects, block_skipping, image_noise
from .adapter_grid import adapter_grid
from .adapter_result import AdapterGrid
from .attribution import Attribution, attribution_patch
from .directions import direction_effects, weight_ablation_effect
from .effects import Effects, measure_edits
from .grid import Normalized, PatchGrid
from .knockout import attention_knockout
from .metrics import METRICS, AnswerLogitDiff, AnswerProbability, KLFromClean, RefusalLogOdds
from .patch_grid import patch_grid

__all__ = [
    "METRICS",
    "AdapterGrid",
    "AnswerLogitDiff",
    "AnswerProbability",
    "Attribution",
    "Effects",
    "KLFromClean",
    "Normalized",
    "PatchGrid",
    "RefusalLogOdds",
    "ablation_effects",
    "adapter_grid",
    "attention_knockout",
    "attribution_patch",
    "block_skipping",
    "direction_effects",
    "image_noise",
    "measure_edits",
    "patch_grid",
    "weight_ablation_effect",
]

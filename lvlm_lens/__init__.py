"""lvlm-lens: where inside a large vision-language model safety lives.

The public surface; every name is imported on first use, so that ``import lvlm_lens`` and
``lvlm-lens --help`` stay instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "LVLM": "lens",
    "RemoteLVLM": "remote",
    "Positions": "models",
    "Layout": "models",
    "Sample": "data",
    "Pair": "data",
    "Dataset": "data",
    "ImageFile": "data",
    "ImageBytes": "data",
    "load_dataset": "data.registry",
    "Site": "activations",
    "Activations": "activations",
    "capture": "activations",
    "Evidence": "measures.evidence",
    "gather": "measures.evidence",
    "locate_roles": "locate.locating",
    "Located": "locate.locating",
    "LinearProbe": "measures.linear_probe",
    "Curve": "stats.curve",
    "LayerRoles": "locate.roles",
    "Role": "locate.roles",
    "patch_grid": "causal",
    "PatchGrid": "causal",
    "adapter_grid": "causal",
    "AdapterGrid": "causal",
    "SASA": "defenses.sasa",
    "sasa_report": "defenses.sasa_report",
    "SweepConfig": "config",
    "SweepResult": "sweep",
    "run_sweep": "sweep",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lvlm_lens' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

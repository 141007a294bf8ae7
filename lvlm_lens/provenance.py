"""Where a number came from: versions, machine, command and seeds, kept beside every result."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__
from .data import Sample

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "pillow",
    "transformer-lens",
    "nnsight",
)


def environment(seed: int, command: list[str] | None = None) -> dict[str, Any]:
    """Versions, machine and command line of this process.

    The command's first word is written as the program's bare name, so that results carry no
    paths of the machine's own.
    """
    import torch

    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    words = list(sys.argv if command is None else command)
    return {
        "lvlm_lens": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": versions,
        "seed": seed,
        "command": [os.path.basename(words[0]), *words[1:]] if words else [],  # noqa: PTH119
    }


def code_hash(*rooms: str) -> str:
    """SHA-256, shortened, over the source files of some rooms of this package: equal for equal code."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for room in sorted(rooms):
        for file in sorted((here / room).rglob("*.py")):
            digest.update(file.relative_to(here).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def dataset_hash(samples: Iterable[Sample]) -> str:
    """SHA-256 over ids, words, labels, groups and picture identities of a data set, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        pictures = [source.key for source in sample.images]
        row = (sample.id, sample.text, sample.label_image, sample.label_text, sample.label_joint, sample.group)
        digest.update(repr((row, pictures)).encode())
    return digest.hexdigest()

"""``smol``: a real pretrained language model, and a vision-language model around it.

Three names share one download, SmolLM2-135M-Instruct (30 blocks of width 576, Apache-2.0):

* ``smol-base``: the language model as its authors published it.
* ``smol-text``: the same with a shipped adapter that makes it refuse what is harmful.
* ``smol``: LLaVA architecture: the vision tower of ``mini``, a shipped projector, and the language model with
  a second shipped adapter.  Its language-only backbone is ``smol-text``.

``lvlm-lens models smol --fetch`` brings the language model (:mod:`.fetch`).  Each name is then a plain Hugging Face
folder in the user's cache, so that ``AutoModel...from_pretrained(smol_path())`` loads it with none of our code;
``smol-text`` and ``smol`` are put together there when they are first used (:mod:`.assemble`).
"""

from __future__ import annotations

from pathlib import Path

from .store import BASE, base_folder, origin, store_folder

FOLDER = Path(__file__).parent
NAMES = ("smol", "smol-text", "smol-base")


def smol_base_path() -> Path:
    """Checkpoint folder of the language model alone; raises :class:`ModelError` where it is not fetched."""
    return base_folder("smol-base")


def smol_text_path() -> Path:
    """Checkpoint folder of the language model that refuses; put together on first use."""
    from .assemble import text_folder  # it needs torch, and a name alone does not

    return text_folder(base_folder("smol-text"))


def smol_path() -> Path:
    """Checkpoint folder of the vision-language model; put together on first use."""
    from .assemble import picture_folder

    return picture_folder(base_folder("smol"))


def state_line() -> str:
    """One line on whether the language model is on this machine."""
    folder = store_folder() / BASE
    if not folder.is_dir():
        return "not fetched: lvlm-lens models smol --fetch gets the language model (93 MB)"
    return f"fetched: {origin(folder)}, in {folder}"


__all__ = ["FOLDER", "NAMES", "origin", "smol_base_path", "smol_path", "smol_text_path", "state_line"]

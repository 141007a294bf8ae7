"""Where a sample's picture comes from, and how it is read without harm.

A picture is a value that can be loaded any number of times: a file under a data root, bytes,
a PIL image, or a drawing (a pure function of its arguments).  ``key`` identifies the content,
so that one picture shared by many prompts is encoded once.

Pictures are hostile input.  A path that leaves its root is an error before anything is
opened, and the pixel count is read from the header and bounded before any decoding.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

MAX_PIXELS = 50_000_000
"""Pictures with more pixels than this are refused before decoding (a decompression bomb)."""


@runtime_checkable
class ImageSource(Protocol):
    """Anything that yields the same RGB picture each time ``load`` is called."""

    @property
    def key(self) -> str:
        """A string that is equal for equal content and differs otherwise."""
        ...

    def load(self) -> Image.Image:
        """The picture, mode RGB."""
        ...


def picture_name(source: ImageSource) -> Hashable:
    """Equal for equal pictures; for a file its place, which is cheaper than a hash of it."""
    return (str(source.root), source.path) if isinstance(source, ImageFile) else source.key


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(//|[^,]*;base64,)")


def upright(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation says that it is looked at; as it is where there is none that can be read."""
    try:
        return ImageOps.exif_transpose(picture)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):  # EXIF is hostile input too
        return picture


def rgb(picture: Image.Image, what: str) -> Image.Image:
    """The picture, upright, in RGB of eight bits.

    Sixteen-bit grey is scaled (Pillow's own conversion cuts it off at 255, which makes it white).  An opaque picture is
    made of a transparent one as ``transformers`` does when it loads a file: what lies under the transparency is seen.
    Of an animation the first frame is taken.  Raises :class:`DataError` for 32-bit values, which have no fixed range.
    """
    sixteen_bits = picture.format in ("PNG", "PPM")  # Pillow gives both in 32-bit mode
    picture = upright(picture)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and sixteen_bits):
        sixteen = np.asarray(picture).astype(np.float64)
        picture = Image.fromarray(np.rint(sixteen / 257).clip(0, 255).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise DataError(f"{what} holds 32-bit values, whose range nothing says; save it with 8 or 16 bits a channel")
    return picture.convert("RGB")


def _decode(stream: Any, what: str) -> Image.Image:
    try:
        with Image.open(stream) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{what} has {width} x {height} pixels, more than the bound of {MAX_PIXELS}; scale it down first"
                )
            return rgb(picture, what)
    except DataError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} is not a readable image ({error})") from error


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture file ``path``, relative to and confined to the folder ``root``."""

    root: Path
    path: str

    def resolve(self) -> Path:
        """The absolute path; raises :class:`DataError` when it leaves the root or is absent."""
        if _ADDRESS.match(self.path):
            raise DataError(
                f"image {self.path[:120]!r} is an address; addresses are never fetched: download the picture under the "
                "data root and give its path"
            )
        relative = Path(self.path)
        root = Path(self.root).resolve()
        if relative.is_absolute():
            raise DataError(f"image path {self.path!r} is absolute; write it relative to the data root")
        full = (root / relative).resolve()  # resolves links too, so a link out of the root is seen
        if not full.is_relative_to(root):
            raise DataError(f"image path {self.path!r} leaves the data root; images are read only from under it")
        if not full.is_file():
            raise DataError(f"image {self.path!r} is not there under the data root {self.root}")
        return full

    @property
    def key(self) -> str:
        """Content hash of the file."""
        return hashlib.sha256(self.resolve().read_bytes()).hexdigest()

    def load(self) -> Image.Image:
        """Decode the file (RGB, upright: its EXIF orientation is applied)."""
        return _decode(self.resolve(), f"image {self.path!r}")


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An encoded picture (PNG, JPEG, WebP ...) held in memory."""

    data: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """Content hash of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def load(self) -> Image.Image:
        """Decode the bytes (RGB, upright)."""
        return _decode(io.BytesIO(self.data), "image given as bytes")


@dataclass(frozen=True, slots=True)
class ImageObject:
    """A picture that is already a PIL image."""

    picture: Image.Image = field(repr=False)

    @property
    def key(self) -> str:
        """Hash of size and RGB pixels."""
        rgb = self.load()
        return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()

    def load(self) -> Image.Image:
        """The picture, upright (RGB)."""
        return rgb(self.picture, "image given as a PIL picture")


@dataclass(frozen=True, slots=True)
class ImageDrawn:
    """A picture drawn by a pure function: ``draw(*arguments)`` gives the same pixels always."""

    draw: Callable[..., Image.Image] = field(repr=False)
    arguments: tuple[Any, ...]

    @property
    def key(self) -> str:
        """The function's name and arguments, which determine the pixels."""
        arguments = tuple(item.key if isinstance(item, ImageSource) else item for item in self.arguments)
        return f"{self.draw.__module__}.{self.draw.__qualname__}{arguments!r}"

    def load(self) -> Image.Image:
        """Draw it (RGB)."""
        return self.draw(*self.arguments).convert("RGB")


def as_image_source(value: Any, root: Path | str | None = None) -> ImageSource:
    """Turn a path, bytes, a PIL image or an :class:`ImageSource` into an :class:`ImageSource`.

    A path needs ``root``; without one it is taken relative to its own folder.
    """
    if isinstance(value, Image.Image):
        return ImageObject(value)
    if isinstance(value, (bytes, bytearray)):
        return ImageBytes(bytes(value))
    if isinstance(value, (str, Path)):
        if root is None:
            path = Path(value)
            return ImageFile(path.parent, path.name)
        return ImageFile(Path(root), str(value))
    if isinstance(value, ImageSource):
        return value
    raise DataError(f"an image must be a path, bytes or a PIL image, not {type(value).__name__}")

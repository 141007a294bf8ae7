"""What is known about each published data set: its card, and the table of all cards.

A card names the set, its paper and licence, the files its authors publish, and how many records
they say there are.  A format file registers its card on import with :func:`register`;
``registry.py`` imports the format files when somebody asks for a set by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError
from .dataset import Dataset

Loader = Callable[[Path, str | None, bool], Dataset]
"""``loader(root, subset, strict)`` reads the published files under ``root``."""

Source = Literal["official", "third party", "own schema"]


@dataclass(frozen=True)
class DatasetCard:
    """One published data set.

    Attributes:
        name: the word for :func:`lvlm_lens.load_dataset`; aliases: other spellings.
        title, citation, licence, homepage: as the authors give them.
        download: what to fetch, in one sentence.
        files: what must lie under the root; ``a|b`` means either, a trailing ``/`` a folder, ``*`` any name.
        counts: published numbers, by the keys of :func:`count_samples`.
        loader: reads the files.
        subsets: the words allowed for ``subset=``.
        source: how the format is known: the authors' own files or loader (``official``), other
            people's loaders (``third party``), or a schema of this toolkit because the authors'
            files are not public (``own schema``).
        template: for an own schema, one harmless example record.
        note: what a reader of results should know (approximations, labels by convention).
        embedded: folder of the files inside this package, where their licence lets them ship.
    """

    name: str
    title: str
    citation: str
    licence: str
    homepage: str
    download: str
    files: tuple[str, ...]
    counts: Mapping[str, int]
    loader: Loader
    subsets: tuple[str, ...] = ()
    source: Source = "official"
    template: Mapping[str, object] | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""
    embedded: Path | None = None

    @property
    def own_schema(self) -> bool:
        """True when the file format is this toolkit's, not the authors'."""
        return self.source == "own schema"

    def missing(self, root: Path) -> list[str]:
        """The expected files that are not under ``root``."""
        return [entry for entry in self.files if not any(any(root.glob(name)) for name in entry.split("|"))]


CARDS: dict[str, DatasetCard] = {}
"""Every registered card by its name."""


def plain(name: str) -> str:
    """A name without case, blanks, hyphens and underscores, for comparing."""
    return "".join(character for character in name.casefold() if character.isalnum())


def register(card: DatasetCard) -> DatasetCard:
    """Add ``card`` to the table; a name or alias that is taken by another set raises."""
    for word in (card.name, *card.aliases):
        for other in CARDS.values():
            if other.name != card.name and plain(word) in {plain(w) for w in (other.name, *other.aliases)}:
                raise DataError(f"the name {word!r} already belongs to data set {other.name!r}")
    CARDS[card.name] = card
    return card


def count_samples(dataset: Dataset, key: str) -> int:
    """The number of samples named by ``key``.

    ``samples`` counts all; ``FIELD=VALUE`` and ``meta.KEY=VALUE`` those with that value; ``groups`` and
    ``categories`` count distinct ones, ``images`` the samples that have a picture.
    """
    if key == "samples":
        return len(dataset)
    if key == "groups":
        return len({sample.group for sample in dataset})
    if key == "images":
        return sum(bool(sample.images) for sample in dataset)
    if key == "categories":
        return len({sample.category for sample in dataset})
    name, _, value = key.partition("=")
    if name.startswith("meta."):
        return sum(str(sample.meta.get(name.removeprefix("meta."))) == value for sample in dataset)
    return sum(str(getattr(sample, name)) == value for sample in dataset)


def count_differences(card: DatasetCard, dataset: Dataset) -> list[str]:
    """One sentence for each published count that the loaded records do not meet."""
    found = {key: count_samples(dataset, key) for key in card.counts}
    return [
        f"{card.name}: {key}: {found[key]} found, {expected} published"
        for key, expected in card.counts.items()
        if found[key] != expected
    ]

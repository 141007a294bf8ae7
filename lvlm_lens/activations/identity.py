"""What a store belongs to: model, processor, data, sites; and the difference when it is another's.

Two captures may share a store only if they would write the same numbers into it.  The identity
holds what decides that, as plain JSON; everything else (device, versions, command) is provenance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from ..data import Sample
from ..errors import DataError

_MODEL_FIELDS = ("family", "class", "weights_hash", "processor_hash", "dtype", "attn_implementation")


@dataclasses.dataclass(frozen=True)
class StoredImage:
    """What a store keeps of a picture: its key.  The picture itself stays with the data set."""

    key: str

    def load(self) -> Image.Image:
        """Raises :class:`DataError`: the store has no pixels."""
        raise DataError(f"a store keeps the key of a picture ({self.key[:16]}...), not the picture; use the data set")


def model_identity(provenance: Mapping[str, Any], system: str | None) -> dict[str, Any]:
    """The part of :meth:`LVLM.provenance` that decides the numbers, and the system prompt."""
    return {**{name: provenance[name] for name in _MODEL_FIELDS}, "system": system or ""}


def sample_record(sample: Sample) -> dict[str, Any]:
    """A sample as JSON, its pictures as keys (other values that JSON does not know, as text)."""
    record = {field.name: getattr(sample, field.name) for field in dataclasses.fields(Sample)}
    record["images"] = [source.key for source in sample.images]
    record["groups"], record["concepts"], record["meta"] = (
        dict(record[name]) for name in ("groups", "concepts", "meta")
    )
    return json.loads(json.dumps(record, default=str, sort_keys=True))


def sample_from(record: Mapping[str, Any]) -> Sample:
    """The sample of a record, with :class:`StoredImage` for its pictures."""
    fields = dict(record)
    fields["images"] = tuple(StoredImage(key) for key in fields["images"])
    fields["options"] = tuple(fields["options"])
    return Sample(**fields)


def data_identity(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Number of samples and a hash of their ids, words and pictures, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps([record["id"], record["text"], record["images"]]).encode())
    return {"samples": len(records), "fingerprint": digest.hexdigest()}

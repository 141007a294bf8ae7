"""What prompts have in common at their beginning, run once.

Safety data sets put several requests to one picture, and every chat begins with the same words.  With causal attention
the keys and values of a beginning do not depend on what follows.  So of the prompts of a batch each *different*
beginning (up to the end of the picture; of prompts in words, as far as the tokens of all rows agree) is run once, over
what all beginnings share before the picture, and the rest of every row over its keys and values: the forward that the
row has alone, up to rounding.  [own; as prefix caching in servers of language models]

Done only where nothing can be lost: families without a peculiarity in the table of families, inputs that are token ids,
their mask and pixels, the same number of tokens before each split, no hooks of others on the model (they would see
parts of prompts), and a saving that is worth it.  Before it is first used on a model, and again for the first prompts
with so many pictures, two rows are run both ways; where their logits differ by more than rounding (the tolerance, or
a few times what padding changes), or the forward refuses, whole prompts are run from then on, and ``reason`` says why.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from ..data import Sample
from ..data.images import picture_name
from ..tolerance import TOLD, allowed, difference
from .batching import batches, in_order, out_of_memory
from .encode import Encoded
from .padding import Padding, foreign_hooks
from .runnable import Runnable

SHARE = 0.8
"""Most tokens that are run in parts, as a share of those of whole prompts."""
_KEYS = 2**29
"""Most bytes of keys and values of one batch."""
_INPUTS = {"input_ids", "attention_mask", "pixel_values"}


@dataclass(frozen=True)
class Split:
    """A batch of ``R`` rows in parts: a stem of ``q`` tokens, ``D`` beginnings of ``p`` tokens, the rest of each row.

    Attributes:
        stem: ids ``[1, q]`` with which all beginnings begin; none (``q`` = 0) where there is one beginning only.
        beginning: inputs of the model for the beginnings less the stem, without padding: ids, mask of ``p``, pixels.
        rest: ids, mask (beginnings included) and positions of the rests ``[R, S]``, padded on the left.
        which: int64 ``[R]``, the beginning of each row.
        length: ``p``.
        offset: column of the padded batch at which the rests begin.
        attended: int64 ``[R, S]``, which tokens of the rests are no padding.
    """

    stem: torch.Tensor
    beginning: dict[str, Any]
    rest: dict[str, Any]
    which: torch.Tensor
    length: int
    offset: int
    attended: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens that go through the blocks."""
        return sum(int(ids.numel()) for ids in (self.stem, self.beginning["input_ids"], self.rest["input_ids"]))

    @torch.inference_mode()
    def begin(self, model: Any) -> DynamicCache:
        """Keys and values of the beginnings, a row of the batch each."""
        cache = DynamicCache()
        if self.stem.numel():
            model(input_ids=self.stem, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(self.beginning["input_ids"]))
        model(**self.beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(self.which)
        return cache

    @torch.inference_mode()
    def finish(self, model: Any, cache: DynamicCache) -> torch.Tensor:
        """Logits at the last token, float32 ``[R, vocab]``."""
        return model(**self.rest, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()


class Beginnings:
    """Splits the batches of one model.

    Attributes:
        reason: why whole prompts are run, or ``None``.
    """

    def __init__(self, lvlm: Runnable, padding: Padding) -> None:
        self.lvlm = lvlm
        self.reason = "rotary embeddings stretch with the longest row" if padding.stretching else None
        if lvlm.anatomy.family.flow:
            self.reason = f"the family has its own way ({', '.join(sorted(lvlm.anatomy.family.flow))})"
        self._checked: set[int] = set()

    def batches(self, samples: Sequence[Sample], size: int) -> list[list[int]]:
        """As :func:`~.batching.batches`; where pictures recur, the rows of one picture side by side."""
        shown = [tuple(picture_name(source) for source in sample.images) for sample in samples]
        some = [names for names in shown if names]
        if self.reason is not None or len(some) < 1.5 * len(set(some)) or not some:
            return list(batches(samples, size))
        first: dict[Hashable, int] = {}
        longest: dict[Hashable, int] = {}
        for number, names in enumerate(shown):
            key = names or number
            first.setdefault(key, number)
            longest[key] = max(longest.get(key, 0), len(samples[number].text))

        def place(number: int) -> tuple[int, int, int, int]:
            key = shown[number] or number
            return len(shown[number]), longest[key], first[key], number

        return list(in_order(samples, sorted(range(len(samples)), key=place), size))

    def split(self, encoded: Encoded, read: Sequence[int]) -> Split | None:
        """The batch in two parts, or ``None`` where whole prompts are to be run.

        Args:
            encoded: rows padded on the left.
            read: for each row, the first column of which states are wanted; a beginning ends before it.
        """
        if foreign_hooks(self.lvlm.model):
            return None
        found = self.worthwhile(encoded, read)
        pictures = len(encoded.samples[0].images)
        if found is not None and pictures not in self._checked:
            self._check(encoded)
            self._checked.add(pictures)  # not before: a check that ran out of memory has shown nothing
        return found if self.reason is None else None

    def worthwhile(self, encoded: Encoded, read: Sequence[int]) -> Split | None:
        """The parts where they save enough, without the proof; nothing is run."""
        found = None if self.reason is not None else self.parts(encoded, read)
        return None if found is None or found.tokens > SHARE * encoded.inputs["input_ids"].numel() else found

    def parts(self, encoded: Encoded, read: Sequence[int]) -> Split | None:
        """Ids and pixels in two parts, where they can be cut; nothing is run."""
        inputs, layouts = encoded.inputs, encoded.layouts
        pixels = inputs.get("pixel_values")
        pictures = len(encoded.samples[0].images)
        if set(inputs) - _INPUTS or not encoded.left_padded:
            return None
        if any(len(sample.images) != pictures for sample in encoded.samples):
            return None
        if pictures and (pixels is None or pixels.ndim != 4 or len(pixels) != pictures * len(encoded)):
            return None
        starts = [layout.attended[0] for layout in layouts]
        if any(len(layout.attended) != layout.length - start for layout, start in zip(layouts, starts, strict=True)):
            return None
        ids = inputs["input_ids"].tolist()
        rows = [row[start:] for row, start in zip(ids, starts, strict=True)]
        needed = [min(column, layout.last) for column, layout in zip(read, layouts, strict=True)]
        most = min(column - start for column, start in zip(needed, starts, strict=True))
        if pictures:
            ends = {layout.images[-1][-1] + 1 - start for layout, start in zip(layouts, starts, strict=True)}
            length = ends.pop()
            if ends or length > most:
                return None
        else:
            length = _alike(rows, most)
        if length < 1 or self._bytes(len(rows) * encoded.length) > _KEYS:
            return None
        return _cut(encoded, rows, starts, length)

    def _bytes(self, tokens: int) -> int:
        anatomy = self.lvlm.anatomy
        return 2 * tokens * anatomy.n_blocks * anatomy.n_kv_heads * anatomy.head_dim * self.lvlm.dtype.itemsize

    def _check(self, encoded: Encoded) -> None:
        """The shortest and the longest row whole and in parts: the same logits, or whole prompts from now on."""
        order = sorted(range(len(encoded)), key=lambda row: len(encoded.layouts[row].attended))
        few = self.lvlm.encode([encoded.samples[row] for row in (order[0], order[-1])])
        split = self.parts(few, [layout.last for layout in few.layouts])
        plain = self.lvlm.logits(few)
        try:
            found = None if split is None else split.finish(self.lvlm.model, split.begin(self.lvlm.model))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            self.reason = f"the forward refuses a beginning of its own ({type(error).__name__}: {error})"
            return
        if found is None:
            self.reason = "two rows of a batch cannot be cut alike"
            return
        most = allowed(self.lvlm.dtype, plain)
        if difference(found, plain) > most:  # in half precision a random twin's logits move with the batch's shape too
            alone = torch.cat([self.lvlm.logits(self.lvlm.encode([sample])) for sample in few.samples])
            most = max(most, TOLD * difference(alone, plain))
        if difference(found, plain) > most:
            self.reason = "logits of prompts run in two parts differ from those of whole prompts"


def _alike(rows: Sequence[list[int]], most: int) -> int:
    """How many tokens all rows begin with, at most ``most``."""
    low, high = min(rows), max(rows)  # whatever these two share, all that lie between them share
    length = 0
    while length < most and low[length] == high[length]:
        length += 1
    return length


def _cut(encoded: Encoded, rows: Sequence[list[int]], starts: Sequence[int], length: int) -> Split:
    inputs, device = encoded.inputs, encoded.inputs["input_ids"].device
    numbers: dict[Hashable, int] = {}
    which, of = [], []
    for number, (row, sample) in enumerate(zip(rows, encoded.samples, strict=True)):
        key = (tuple(row[:length]), tuple(picture_name(source) for source in sample.images))
        if key not in numbers:
            numbers[key] = len(numbers)
            of.append(number)
        which.append(numbers[key])
    begun = [rows[number][:length] for number in of]
    stem = 0
    if len(of) > 1:  # of a picture, what stands before it
        first = [layout.images[0][0] - start for layout, start in zip(encoded.layouts, starts, strict=True)]
        stem = _alike(begun, min(first))
    ids = torch.tensor(begun, device=device)
    mask = torch.ones_like(ids)
    beginning: dict[str, Any] = {
        "input_ids": ids[:, stem:], "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1)[:, stem:]
    }  # fmt: skip
    if "pixel_values" in inputs:
        pixels = inputs["pixel_values"].unflatten(0, (len(rows), -1))  # [R, pictures of a row, ...]
        beginning["pixel_values"] = pixels[torch.tensor(of, device=device)].flatten(0, 1)
    offset = min(starts) + length
    attended = inputs["attention_mask"][:, offset:].clone()
    for number, start in enumerate(starts):
        attended[number, : start + length - offset] = 0  # padding, and then the end of its own beginning
    mask = torch.cat([attended.new_ones(len(rows), length), attended], 1)
    rest = {
        "input_ids": inputs["input_ids"][:, offset:], "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1)[:, length:],
    }  # fmt: skip
    if "pixel_values" in inputs:  # no picture stands in what is not attended either
        rest["input_ids"] = torch.where(attended.bool(), rest["input_ids"], inputs["input_ids"][:, -1:])
    return Split(ids[:1, :stem], beginning, rest, torch.tensor(which), length, offset, attended)

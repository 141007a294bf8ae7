"""From samples to the tensors a model takes, and where each part of the prompt then stands.

The prompt is the checkpoint's own chat template around the user's words; a checkpoint without a
template gets the words alone.  Pictures and words go through the checkpoint's own processor, so
the number of image tokens is whatever it makes of each picture.

The question's tokens are found from character offsets: the template is rendered once with the
words and once with a marker in their place, which gives the words' place in the rendered text;
the processor reports how each image placeholder was expanded; the tokenizer reports which
characters each token covers.  Nothing assumes a number of image tokens or a side of padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..config import Handling
from ..data import Sample
from ..errors import DataError, ImageLostError, LensError, ModelError, UsageError, context
from .positions import Layout
from .special_text import SpecialText
from .templates import render

_MARKER = "\u2042lvlm-lens-question\u2042"


@dataclass
class Encoded:
    """A batch ready for the model.

    Attributes:
        inputs: keyword arguments of the model's forward: ``input_ids`` and ``attention_mask``
            int64 ``[batch, length]``, ``pixel_values`` and whatever else the family needs.
        layouts: one :class:`Layout` a row, in padded coordinates.
        samples: the samples, row by row.
        prompts: the rendered text, before image placeholders were expanded.
    """

    inputs: dict[str, Any]
    layouts: list[Layout]
    samples: list[Sample]
    prompts: list[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.layouts)

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def left_padded(self) -> bool:
        """True when the last attended token is the last column in every row."""
        return all(layout.last == layout.length - 1 for layout in self.layouts)

    def to(self, device: torch.device | str) -> Encoded:
        """The same batch with its tensors on another device."""
        moved = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in self.inputs.items()
        }
        return Encoded(moved, self.layouts, self.samples, self.prompts)


class Encoder:
    """Renders, tokenises and lays out prompts with a checkpoint's own processor.

    Args:
        processor: the multimodal processor, or ``None`` for a text-only model.
        tokenizer: its tokenizer.
        image_token_id: id of the image placeholder, or ``None``.
        system: an optional system prompt, rendered by the chat template.
        image_in_residual: False where pictures are read by cross-attention only; layouts then hold no
            image positions, and the placeholder counts as template.
        needs_image: True where the model refuses to run without a picture.
        longest: most tokens of a prompt, or ``None`` where the model names no limit (:func:`position_limit`).

    Attributes:
        special_tokens: what is done with a sample whose words hold a special token: ``refuse`` (it raises), or
            ``escape`` (:mod:`.special_text`).
    """

    def __init__(
        self,
        processor: Any | None,
        tokenizer: Any,
        image_token_id: int | None,
        system: str | None = None,
        image_in_residual: bool = True,
        needs_image: bool = False,
        longest: int | None = None,
    ) -> None:
        self.processor = processor
        self.tokenizer = tokenizer
        self.image_token_id = image_token_id
        self.system = system
        self.image_in_residual = image_in_residual
        self.needs_image = needs_image
        self.longest = longest
        self.special = SpecialText(tokenizer, processor)
        self.special_tokens: Handling = "refuse"
        # BLIP's processors put the picture's tokens before the words by themselves
        self.places_images = hasattr(processor, "num_query_tokens")
        self._frames: dict[tuple[int, str], tuple[str, str]] = {}
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"the tokenizer ({type(tokenizer).__name__}) does not tell which characters a token covers, so the "
                "question's tokens cannot be found; a fast tokenizer (tokenizer.json) is needed"
            )
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token is None:
                raise ModelError("the tokenizer has neither a padding nor an end token; set tokenizer.pad_token")
            tokenizer.pad_token = tokenizer.eos_token

    # -- rendering ---------------------------------------------------------------------------

    def _render(self, text: str, n_images: int, system: str) -> str:
        """The chat template around ``text``, with one placeholder for each picture."""
        owner: Any = self.processor if getattr(self.processor, "chat_template", None) else self.tokenizer
        if getattr(owner, "chat_template", None) is None:
            if system:
                raise UsageError(
                    "a system prompt was given, and this checkpoint has no chat template to hold it: it would be lost"
                )
            if not n_images or self.places_images:
                return text
            token = getattr(self.processor, "image_token", None) or self.tokenizer.decode([self.image_token_id])
            return token * n_images + "\n" + text
        content: Any = text
        if self.processor is not None:
            content = [{"type": "image"} for _ in range(n_images)] + [{"type": "text", "text": text}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            system_content: Any = system if self.processor is None else [{"type": "text", "text": system}]
            messages.insert(0, {"role": "system", "content": system_content})
        return render(owner, messages)

    def _frame(self, n_images: int, system: str) -> tuple[str, str]:
        """What the template puts before and after the words (cached)."""
        key = (n_images, system)
        if key not in self._frames:
            rendered = self._render(_MARKER, n_images, system)
            if rendered.count(_MARKER) != 1:
                raise ModelError("the chat template does not render the user's words exactly once")
            if system.strip() not in rendered:
                raise UsageError("a system prompt was given, and this checkpoint's chat template drops it")
            before, after = rendered.split(_MARKER)
            self._frames[key] = (before, after)
        return self._frames[key]

    # -- encoding ----------------------------------------------------------------------------

    def __call__(
        self,
        samples: Sequence[Sample],
        padding_side: str = "left",
        system: str | None = None,
        continuation: Sequence[str] | None = None,
    ) -> Encoded:
        """Encode samples as one padded batch.

        Args:
            samples: at least one sample.
            padding_side: ``left`` (the default: the last token stands in the last column) or ``right``.
            system: a system prompt for this call instead of the encoder's own.
            continuation: text after the generation prompt, one per sample (the beginning of an answer).

        Raises:
            UsageError: the chat template loses the system prompt.
            ImageLostError: a sample has pictures and the prompt got no image tokens, or the reverse.
            DataError: a picture cannot be read (the message names sample and file), the words hold a special
                token, the prompt is longer than the model's positions, or the processor or tokenizer fails on these
                samples, with whatever error.
        """
        if not samples:
            raise DataError("no samples to encode")
        system = self.system or "" if system is None else system
        prompts, spans, pictures = [], [], []
        for number, sample in enumerate(samples):
            with context(f"sample {sample.id!r}"), _as_data_error():
                if sample.images and self.processor is None:
                    raise ImageLostError(
                        "the sample has a picture and the model takes text only; use sample.without_images()"
                    )
                if self.needs_image and not sample.images:
                    raise DataError("the sample has no picture, and this family does not run without one")
                if not sample.text.strip():
                    raise DataError("the sample has no text")
                words = self._words(sample.text)
                before, after = self._frame(len(sample.images), system)
                prompt = self._render(words, len(sample.images), system)
                shown = prompt[len(before) : len(prompt) - len(after)]  # templates may strip the words
                prompts.append(prompt + (continuation[number] if continuation is not None else ""))
                spans.append((len(before), len(before) + len(shown)))
                pictures.append([source.load() for source in sample.images])
        with_images = [bool(images) for images in pictures]
        if any(with_images) and not all(with_images):
            without = [sample.id for sample, images in zip(samples, pictures, strict=True) if not images]
            raise DataError(
                f"a batch mixes samples with and without pictures (without: {without[:3]}); encode them apart, "
                "as capture does by itself"
            )
        with context(_named(samples)), _as_data_error():
            if all(with_images):
                spans = self._as_prepared(prompts, spans, pictures)
            batch, offsets, grown = self._tokenize(prompts, pictures if all(with_images) else None, padding_side)
        layouts = []
        for row, sample in enumerate(samples):
            with context(f"sample {sample.id!r}"), _as_data_error():
                layouts.append(
                    self._layout(
                        batch["input_ids"][row],
                        batch["attention_mask"][row],
                        offsets[row],
                        spans[row],
                        grown[row],
                        len(sample.images),
                    )
                )
        return Encoded(batch, layouts, list(samples), prompts)

    def _words(self, text: str) -> str:
        """The user's words as they may enter a prompt."""
        found = self.special.find(text)
        if found and self.special_tokens == "refuse":
            raise DataError(
                f"its words hold {', '.join(found[:3])}, which the tokenizer reads as structure and not as words; "
                "the sample is left out (--special-tokens escape puts a space into such tokens)"
            )
        return self.special.escape(text) if found else text

    def _as_prepared(
        self, prompts: list[str], spans: list[tuple[int, int]], pictures: list[list[Any]]
    ) -> list[tuple[int, int]]:
        """Where the words stand after the processor's own additions (PaliGemma puts a begin token before them)."""
        prepare = getattr(self.processor, "prepare_inputs_layout", None)
        if prepare is None:
            return spans
        moved = []
        prepared = prepare(images=pictures, text=list(prompts))[1]
        for prompt, text, (start, end) in zip(prompts, prepared, spans, strict=True):
            found = text.find(prompt[start:end], start)
            if found < 0:
                raise ModelError("the processor changes the user's words, so their tokens cannot be found")
            moved.append((found, found + end - start))
        return moved

    def _tokenize(
        self, prompts: list[str], pictures: list[list[Any]] | None, padding_side: str
    ) -> tuple[dict[str, Any], list[Any], list[list[Growth]]]:
        """Run the processor; return tensors, character offsets a token, and placeholder growth."""
        text_options = {
            "padding": True,
            "padding_side": padding_side,
            "return_tensors": "pt",
            "return_offsets_mapping": True,
            "add_special_tokens": self._adds_special_tokens(prompts[0]),
        }
        grown: list[list[Growth]] = [[] for _ in prompts]
        if self.processor is None:
            made = self.tokenizer(prompts, **text_options)
        elif pictures is None:  # the processor may say more of plain words than its tokenizer (kinds of tokens)
            made = self.processor(text=prompts, **text_options)
        else:
            options = {**text_options, "return_text_replacement_offsets": True}
            made = self.processor(text=prompts, images=pictures, **options)
            reported = made.pop("text_replacement_offsets", None)
            for row, replacements in enumerate(reported or []):
                grown[row] = [Growth(*replaced["span"], *replaced["new_span"]) for replaced in replacements]
            if reported is None and not self.places_images:
                grown = [
                    _growth_before_words(offsets, mask, len(prompt))
                    for offsets, mask, prompt in zip(
                        made["offset_mapping"], made["attention_mask"], prompts, strict=True
                    )
                ]
        if self.processor is not None and "qformer_input_ids" in made:
            # the Q-Former counts positions from the left edge, so padding there would change what it reads
            words = self.processor.qformer_tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
            made.update({f"qformer_{key}": words[key] for key in ("input_ids", "attention_mask")})
        if "offset_mapping" not in made:
            raise ModelError(
                f"{type(self.processor).__name__} does not tell which characters a token covers, so the question's "
                "tokens cannot be found"
            )
        offsets = made.pop("offset_mapping")
        for name in ("labels", "text_replacement_offsets"):  # PaliGemma's own, for training; no input of a model
            made.pop(name, None)
        return dict(made), list(offsets), grown

    def _adds_special_tokens(self, prompt: str) -> bool:
        """Whether the tokenizer puts its own tokens around a prompt, as transformers decides it for a chat.

        A tokenizer's rendered chat is complete; a processor's is, where it begins with the begin token.
        """
        if self.processor is None and getattr(self.tokenizer, "chat_template", None):
            return False
        return not (self.tokenizer.bos_token and prompt.startswith(self.tokenizer.bos_token))

    def _layout(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        offsets: Any,
        span: tuple[int, int],
        grown: list[Growth],
        n_images: int,
    ) -> Layout:
        """Find image spans and question tokens of one row."""
        attended = torch.nonzero(mask, as_tuple=True)[0].tolist()
        if self.longest is not None and len(attended) > self.longest:
            said = f"its prompt has {len(attended):,} tokens"
            raise DataError(f"{said}, and the model's positions reach {self.longest:,}")
        images: list[list[int]] = []
        if self.image_token_id is not None:
            at = torch.nonzero((ids == self.image_token_id) & (mask != 0), as_tuple=True)[0].tolist()
            images = _by_picture(at, offsets, grown, n_images)
        if n_images and not images:
            raise ImageLostError(
                f"{n_images} picture(s) were given and the prompt holds no image token; the chat template drops them"
            )
        if images and not n_images:
            raise ImageLostError("the prompt holds image tokens and no picture was given")
        if not self.image_in_residual:
            images = []
        start, end = (
            edge + sum((g.new_end - g.new_start) - (g.end - g.start) for g in grown if g.end <= edge) for edge in span
        )
        taken = {i for image in images for i in image}
        question = [
            i
            for i in attended
            if i not in taken
            and int(offsets[i][1]) > int(offsets[i][0]) >= 0
            # a token belongs to the question when half of it or more lies inside the words' characters:
            # the token " I" takes the space before the words with it
            and min(int(offsets[i][1]), end) - max(int(offsets[i][0]), start)
            >= (int(offsets[i][1]) - int(offsets[i][0])) / 2
        ]
        return Layout(len(ids), attended, images, question)


def position_limit(config: Any) -> int | None:
    """The longest sequence that a model's positions reach, where its configuration says so.

    Rotary positions of the ``dynamic`` kind have no limit, since they are stretched to the length of each row. Those of
    the ``linear`` and ``yarn`` kinds reach their factor times the positions that the model was first trained on, which
    many published configurations do not multiply out (Vicuna of 16,000 tokens says 4,096 and a factor of 4).
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if not isinstance(limit, int) or rope.get("rope_type") == "dynamic":
        return None
    original = rope.get("original_max_position_embeddings") or limit
    return max(limit, int((rope.get("factor") or 1.0) * original))


def _named(samples: Sequence[Sample]) -> str:
    """The samples of a batch, in words."""
    rest = f" and {len(samples) - 1} more" if len(samples) > 1 else ""
    return f"sample {samples[0].id!r}{rest}"


@contextmanager
def _as_data_error() -> Iterator[None]:
    """Whatever a processor, tokenizer or template raises on a sample, as an error of that sample."""
    try:
        yield
    except (LensError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        words = str(error).strip().splitlines()
        said = f": {words[0][:300]}" if words else ""
        raise DataError(f"the processor cannot encode it ({type(error).__name__}{said})") from error


@dataclass(frozen=True, slots=True)
class Growth:
    """An image placeholder's characters in the prompt, and those of what the processor put in its place."""

    start: int
    end: int
    new_start: int
    new_end: int


def _growth_before_words(offsets: Any, mask: Any, length: int) -> list[Growth]:
    """For processors that do not report it: all that the text grew by stands before the words."""
    last = max(int(end) for (_, end), seen in zip(offsets, mask, strict=True) if int(seen))
    return [Growth(0, 0, 0, last - length)] if last > length else []


def _by_picture(at: list[int], offsets: Any, grown: list[Growth], n_images: int) -> list[list[int]]:
    """Image-token positions, one list a picture, by the characters that each picture's placeholder became.

    Processors that do not report these characters: runs of adjacent positions are pictures when
    there are as many runs as pictures; otherwise (row separators inside a picture, or pictures that
    touch) the tokens are shared out evenly.
    """
    if not at:
        return []
    if len(grown) == n_images and n_images:
        found = [[i for i in at if g.new_start <= int(offsets[i][0]) < g.new_end] for g in grown]
        if sum(map(len, found)) == len(at) and all(found):
            return found
    runs: list[list[int]] = [[at[0]]]
    for position in at[1:]:
        if position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    if len(runs) == n_images:
        return runs
    if n_images and len(at) % n_images == 0:
        size = len(at) // n_images
        return [at[i * size : (i + 1) * size] for i in range(n_images)]
    if not n_images:
        return runs
    raise ModelError(f"{len(at)} image tokens in {len(runs)} runs cannot be told apart into {n_images} pictures")

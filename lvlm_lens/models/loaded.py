"""``LoadedModel``: a loaded vision-language model (or a text-only backbone) with its processor.

It loads what transformers loads, encodes samples with the checkpoint's own template and
processor, runs them, and generates.  Nothing is wrapped or replaced: ``.model`` is the plain
Hugging Face module, and every reading and writing of activations is done by hooks on it.  What users hold is
:class:`lvlm_lens.LVLM`, which adds the reading of activations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

from ..data import Sample
from ..errors import ImageLostError, ModelError
from .adapters import AdapterRecord, measured
from .anatomy import Anatomy, resolve
from .batching import in_batches
from .beginnings import Beginnings
from .encode import Encoded, Encoder, position_limit
from .loading import load_checkpoint
from .padding import Padding
from .weights import execution_device, quantization, weights_hash


class LoadedModel:
    """A vision-language model, or its language-only backbone, ready to be looked into.

    Args:
        model: a loaded ``transformers`` model with a language-model head.
        processor: its ``AutoProcessor``, or the tokenizer of a text-only model.
        name: how results call it; the model's ``name_or_path`` by default.
        system: a system prompt that every encoding uses.

    Attributes:
        model, processor, tokenizer: the parts given (``processor`` is ``None`` for text-only models).
        anatomy: where its parts are (:class:`~lvlm_lens.models.anatomy.Anatomy`).
        warnings: what a result must say about how it was loaded.
        adapter: the PEFT adapter in its blocks (:class:`~lvlm_lens.models.adapters.AdapterRecord`), or ``None``.
        quantized: the quantiser of its weights, or ``None``.
    """

    def __init__(self, model: Any, processor: Any, *, name: str | None = None, system: str | None = None) -> None:
        tokenizer = getattr(processor, "tokenizer", None)
        self.model = model.eval()
        self.processor = processor if tokenizer is not None else None
        self.tokenizer = tokenizer if tokenizer is not None else processor
        self.anatomy: Anatomy = resolve(model)
        if self.anatomy.image_token_id is None and getattr(self.processor, "image_processor", None) is not None:
            kind = self.anatomy.family.model_type
            raise ModelError(
                f"family {kind!r} takes pictures, and its configuration names no token that stands for them "
                "(image_token_id), so where a picture lies in a prompt cannot be found; read as a model of words it "
                "would be wrong without a sign of it"
            )
        self.name = name or getattr(model, "name_or_path", "") or type(model).__name__
        self.revision: str | None = None
        self.base: str | None = None  # what fetched weights were made of, where that varies
        self.warnings: tuple[str, ...] = ()
        self.adapter: AdapterRecord | None = None
        self.quantized: str | None = quantization(model)
        self.padding = Padding(self)
        self.beginnings = Beginnings(self, self.padding)
        self.encoder = Encoder(
            self.processor,
            self.tokenizer,
            self.anatomy.image_token_id,
            system,
            image_in_residual="cross_attention" not in self.anatomy.family.flow,
            needs_image="needs_image" in self.anatomy.family.flow,
            longest=position_limit(model.config),
        )

    # -- loading -----------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        system: str | None = None,
        adapter: str | Path | None = None,
        quantize: str | None = None,
        check: bool = True,
    ) -> Self:
        """Load an embedded model (``mini``), a checkpoint folder, a hub id or a GGUF file.

        ``AutoModelForImageTextToText`` is used where the configuration belongs to it, else
        ``AutoModelForCausalLM``; see :func:`~lvlm_lens.models.loading.load_checkpoint`.  With
        ``HF_HUB_OFFLINE=1`` nothing touches the network.  With ``check`` the model is held to :meth:`check`.

        ``adapter`` is a folder that PEFT wrote; its largest effect on the logits of a few prompts is measured, and
        must not be zero.  ``quantize`` is ``4bit`` or ``8bit`` (bitsandbytes).

        Raises:
            ModelError: unknown name (with near matches), broken folder, weights that are missing, an adapter that
                did not arrive or changes nothing, a family whose parts cannot be found, or one that fails its check.
        """
        found = load_checkpoint(
            name,
            dtype=dtype,
            device=device,
            device_map=device_map,
            attn_implementation=attn_implementation,
            revision=revision,
            trust_remote_code=trust_remote_code,
            adapter=adapter,
            quantize=quantize,
        )
        loaded = cls(found.model, found.processor, name=found.name, system=system)
        loaded.revision, loaded.warnings, loaded.base = found.revision, found.warnings, found.base
        loaded.quantized = found.quantized
        if found.adapter is not None:
            wrapped, record = found.adapter
            loaded.name = f"{found.name}+{record.name}"
            loaded.adapter = measured(loaded, wrapped, record)
        if check:
            loaded.check()
        return loaded

    def check(self) -> None:
        """Prove that what was loaded is what the table of families says; a class that can read activations does so."""

    @contextmanager
    def random_twin(self, seed: int = 0) -> Iterator[Self]:
        """The same network with every weight tensor's entries in random order, inside a ``with`` block.

        It is made of this model's own weights, which are put back, bit for bit, when the block ends (also when it
        fails): two models need not fit on the device.  Inside the block use the twin only, outside it this model
        only; the other one raises.  See :mod:`~lvlm_lens.models.twin`::

            with model.random_twin(seed=0) as twin:
                evidence = gather(twin, data)

        Raises:
            ModelError: quantised weights have no twin.
            NumericalError: something wrote to the weights inside the block.
        """
        from .twin import Undone, shuffled_weights

        owner = self.processor if self.processor is not None else self.tokenizer
        whole, anatomy = self.model, self.anatomy
        with shuffled_weights(whole, seed):
            twin = type(self)(whole, owner, name=f"{self.name} (random twin)", system=self.encoder.system)
            twin.encoder = self.encoder  # the same prompts, to the letter
            lent: Any = Undone(f"model {self.name!r} lends its weights to its random twin; use it after the with block")
            gone: Any = Undone("this random twin was undone when its with block ended; read it inside the block")
            self.model, self.anatomy = lent, lent
            try:
                yield twin
            finally:
                self.model, self.anatomy = whole, anatomy
                twin.model, twin.anatomy = gone, gone

    # -- facts -------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device on which the token embedding runs, where inputs go."""
        return execution_device(self.anatomy.embed, self.anatomy.embed.weight)  # type: ignore[arg-type]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.model.dtype

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        return self.anatomy.n_blocks

    @property
    def takes_images(self) -> bool:
        """False for a text-only model."""
        return self.processor is not None and self.anatomy.image_token_id is not None

    def weights_hash(self) -> str:
        """SHA-256 over all weights; see :func:`~lvlm_lens.models.weights.weights_hash`."""
        return weights_hash(self.model)

    def provenance(self) -> dict[str, Any]:
        """What a result must say about this model: name, revision, hashes, dtype, kernel, device."""
        owner = self.processor if self.processor is not None else self.tokenizer
        return {
            "name": self.name,
            "family": self.anatomy.family.model_type,
            "class": type(self.model).__name__,
            "revision": self.revision,
            **({"base": self.base} if self.base is not None else {}),
            "warnings": list(self.warnings),
            "weights_hash": self.weights_hash(),
            "processor_hash": hashlib.sha256(_owner_text(owner).encode()).hexdigest(),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "blocks": self.n_blocks,
            "d_model": self.anatomy.d_model,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attn_implementation": getattr(self.model.config, "_attn_implementation", None),
            "device": str(self.device),
            "adapter": None if self.adapter is None else self.adapter.to_dict(),
            "quantized": self.quantized,
        }

    # -- running -----------------------------------------------------------------------------

    def encode(
        self,
        samples: Sample | Sequence[Sample],
        padding_side: str = "left",
        system: str | None = None,
        continuation: Sequence[str] | None = None,
    ) -> Encoded:
        """Encode samples for this model, on its device.  See :class:`~lvlm_lens.models.encode.Encoder`.

        Rows of unequal length are padded.  The first padded batch of a kind is preceded by a few short forwards that
        show what keeps each row equal to the row alone; see :mod:`~lvlm_lens.models.padding`.

        Raises :class:`ModelError` where this model's rows change under padding.
        """
        batch = [samples] if isinstance(samples, Sample) else list(samples)
        encoded = self.encoder(batch, padding_side, system, continuation).to(self.device)
        for key, value in encoded.inputs.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                encoded.inputs[key] = value.to(self.dtype)
        self.padding.prove(encoded)
        return encoded

    def forward_inputs(self, encoded: Encoded) -> dict[str, Any]:
        """Keyword arguments for the model's forward: what the processor returned, and what is proven to change no row.

        See :mod:`~lvlm_lens.models.padding`.

        Raises:
            ImageLostError: image tokens without pixels.
            ModelError: a padded batch of a model whose rows change under padding.
        """
        inputs = dict(encoded.inputs)
        token = self.anatomy.image_token_id
        if token is not None:
            has_tokens = bool((inputs["input_ids"] == token).any())
            has_pixels = any(key.startswith(("pixel_values", "image_embeds", "mm_encoder")) for key in inputs)
            if has_tokens and not has_pixels:
                raise ImageLostError("image tokens stand in the ids and no pixels were given to the model")
        return {**inputs, **self.padding.added(encoded)}

    def keep_last(self, length: int) -> int | torch.Tensor:
        """The ``logits_to_keep`` that asks for the last of ``length`` positions and leaves every block whole.

        Gemma 4 takes an integer as leave to run the blocks that share keys on those positions only.
        """
        if "shared_kv" in self.anatomy.family.flow:
            return torch.tensor([length - 1], device=self.device)
        return 1

    @torch.inference_mode()
    def logits(self, encoded: Encoded) -> torch.Tensor:
        """Logits at the last attended token, float32 ``[batch, vocab]``."""
        inputs = self.forward_inputs(encoded)
        if encoded.left_padded:
            output = self.model(**inputs, use_cache=False, logits_to_keep=self.keep_last(encoded.length))
            return output.logits[:, -1].float()
        rows = torch.arange(len(encoded), device=self.device)
        last = torch.tensor([layout.last for layout in encoded.layouts], device=self.device)
        return self.model(**inputs, use_cache=False).logits[rows, last].float()

    def generate(
        self, samples: Sequence[Sample], max_new_tokens: int = 32, batch_size: int = 32, **options: Any
    ) -> list[str]:
        """Greedy answers (unless ``options`` say otherwise), without special tokens, one per sample.

        A batch that does not fit into memory is halved.
        """
        answers: dict[int, str] = {}
        for batch, made in in_batches(
            samples,
            batch_size,
            lambda batch: self.generate_batch([samples[i] for i in batch], max_new_tokens, **options),
        ):
            answers.update(zip(batch, made, strict=True))
        return [answers[i] for i in range(len(samples))]

    @torch.inference_mode()
    def generate_batch(self, samples: Sequence[Sample], max_new_tokens: int = 32, **options: Any) -> list[str]:
        """Answers of one batch in one call of the model, rows in the order given: for hooks that know their rows."""
        options.setdefault("do_sample", False)
        encoded = self.encode(samples)
        self.padding.forget()
        produced = self.model.generate(
            **encoded.inputs, max_new_tokens=max_new_tokens, pad_token_id=self.tokenizer.pad_token_id, **options
        )
        texts = self.tokenizer.batch_decode(produced[:, encoded.length :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @contextmanager
    def attention(self, implementation: str) -> Iterator[None]:
        """Run with another attention kernel inside the block (``eager`` shows the pattern)."""
        before = getattr(self.model.config, "_attn_implementation", None)
        if before == implementation:
            yield
            return
        self.model.set_attn_implementation(implementation)
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, family={self.anatomy.family.model_type!r}, blocks={self.n_blocks}, "
            f"d_model={self.anatomy.d_model}, dtype={str(self.dtype).removeprefix('torch.')})"
        )


def _owner_text(owner: Any) -> str:
    tokenizer = getattr(owner, "tokenizer", owner)
    image = getattr(owner, "image_processor", None)
    return "\n".join(
        [
            str(getattr(owner, "chat_template", None) or getattr(tokenizer, "chat_template", None)),
            str(sorted(tokenizer.get_vocab().items())),
            str(image.to_dict() if image is not None else None),
        ]
    )

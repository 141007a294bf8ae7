"""The same patch cell as other tools run it: one whole forward per cell.

Each peer gets the two encoded prompts, keeps the residuals it will write (one forward per prompt), and then answers
``cell(recipient, block, columns)`` with the last token's logits.  All get the same weights and the same pixels.
TransformerLens' own patching function takes tokens only; what it makes of an image prompt is graded apart.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import LensError
from ..lens import LVLM
from ..models.encode import Encoded

Donors = dict[str, list[torch.Tensor]]


def _other(side: str) -> str:
    return "corrupted" if side == "clean" else "clean"


class PlainHooks:
    """PyTorch forward hooks on the Hugging Face model, unembedding at the last token only."""

    name = "plain hooks"

    def __init__(self, model: LVLM, encoded: dict[str, Encoded]) -> None:
        self.model, self.blocks = model, model.anatomy.blocks
        self.inputs = {side: model.forward_inputs(e) for side, e in encoded.items()}
        self.donors: Donors = {}

    def _run(self, side: str) -> torch.Tensor:
        return self.model.model(**self.inputs[side], use_cache=False, logits_to_keep=1).logits[0, -1].float()

    @torch.inference_mode()
    def prepare(self) -> None:
        """One forward of each prompt, keeping every block\'s output."""
        for side in self.inputs:
            kept: list[torch.Tensor] = []
            handles = [b.register_forward_hook(lambda m, a, out, k=kept: k.append(out[0])) for b in self.blocks]
            self._run(side)
            for handle in handles:
                handle.remove()
            self.donors[side] = kept

    @torch.inference_mode()
    def cell(self, recipient: str, block: int, columns: Sequence[int]) -> torch.Tensor:
        """Logits float32 ``[vocab]`` at the last token."""
        donor = self.donors[_other(recipient)][block]

        def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            output[0, list(columns)] = donor[list(columns)]
            return output

        handle = self.blocks[block].register_forward_hook(hook)
        try:
            return self._run(recipient)
        finally:
            handle.remove()


class NNsight:
    """nnsight's tracing over the same module, unembedding at the last token only."""

    name = "nnsight"

    def __init__(self, model: LVLM, encoded: dict[str, Encoded]) -> None:
        import nnsight

        self.traced = nnsight.NNsight(copy.deepcopy(model.model))  # it instruments the modules it is given
        self.inputs = {side: model.forward_inputs(e) for side, e in encoded.items()}
        self.n_blocks = model.n_blocks
        self.donors: Donors = {}

    def prepare(self) -> None:
        """One forward of each prompt, keeping every block\'s output."""
        for side, inputs in self.inputs.items():
            kept: Any = []
            with torch.no_grad(), self.traced.trace(**inputs, use_cache=False, logits_to_keep=1):
                kept = [
                    self.traced.model.language_model.layers[block].output[0].save()  # type: ignore[attr-defined]
                    for block in range(self.n_blocks)
                ].save()
            self.donors[side] = kept

    def cell(self, recipient: str, block: int, columns: Sequence[int]) -> torch.Tensor:
        """Logits float32 ``[vocab]`` at the last token."""
        donor, where = self.donors[_other(recipient)][block], list(columns)
        inputs = self.inputs[recipient]
        logits: Any = None
        with torch.no_grad(), self.traced.trace(**inputs, use_cache=False, logits_to_keep=1):
            self.traced.model.language_model.layers[block].output[0, where] = donor[where]
            logits = self.traced.lm_head.output.save()
        return logits[0, -1].float()


class TransformerLens:
    """TransformerLens' bridge over a copy of the model, pixels handed over by hand, unembedding at the last token."""

    name = "TransformerLens"

    def __init__(self, model: LVLM, encoded: dict[str, Encoded]) -> None:
        from transformer_lens.model_bridge.sources.transformers import boot
        from transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as folder:  # it reads processor and tokenizer from their place on disk
            model.model.config.save_pretrained(folder)
            model.processor.save_pretrained(folder)  # type: ignore[union-attr]
            tokenizer = AutoTokenizer.from_pretrained(folder)
            self.bridge = boot(
                folder,
                hf_model=copy.deepcopy(model.model),
                tokenizer=tokenizer,
                device=str(model.device),
                dtype=model.dtype,
            )
        self.inputs = {side: e.inputs for side, e in encoded.items()}
        self.caches: dict[str, Any] = {}

    def prepare(self) -> None:
        """One forward of each prompt, keeping every block\'s output."""
        with torch.no_grad():
            for side, inputs in self.inputs.items():
                _, self.caches[side] = self.bridge.run_with_cache(
                    inputs["input_ids"],
                    pixel_values=inputs["pixel_values"],
                    use_cache=False,
                    logits_to_keep=1,
                    names_filter=lambda name: name.startswith("blocks.") and name.endswith("hook_resid_post"),
                )

    def cell(self, recipient: str, block: int, columns: Sequence[int]) -> torch.Tensor:
        """Logits float32 ``[vocab]`` at the last token."""
        name, where = f"blocks.{block}.hook_resid_post", list(columns)
        donor = self.caches[_other(recipient)][name]

        def hook(value: torch.Tensor, hook: Any) -> torch.Tensor:
            value = value.clone()
            value[0, where] = donor[0, where]
            return value

        inputs = self.inputs[recipient]
        with torch.no_grad():
            logits = self.bridge.run_with_hooks(
                inputs["input_ids"],
                fwd_hooks=[(name, hook)],
                pixel_values=inputs["pixel_values"],
                use_cache=False,
                logits_to_keep=1,
            )
        return logits[0, -1].float()

    def own_function(self, block: int, column: int, expected: torch.Tensor) -> tuple[str, str]:
        """What ``patching.generic_activation_patch``, which takes tokens only, makes of one cell: a grade and why."""
        import pandas as pd
        from transformer_lens import patching

        found: list[torch.Tensor] = []

        def metric(logits: torch.Tensor) -> torch.Tensor:
            found.append(logits[0, -1].float())
            return logits[0, -1, 0]

        def setter(value: torch.Tensor, index: Sequence[int], clean: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            value[:, index[1]] = clean[:, index[1]]
            return value

        self.bridge.eval()
        try:
            with torch.no_grad():
                patching.generic_activation_patch(
                    self.bridge,
                    self.inputs["corrupted"]["input_ids"],
                    self.caches["clean"],
                    metric,
                    setter,
                    "resid_post",
                    index_df=pd.DataFrame([[block, column]], columns=["layer", "pos"]),
                )
        except (ValueError, TypeError, RuntimeError, KeyError, LensError) as error:
            return "REFUSED", f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
        difference = float((found[-1] - expected).abs().max())
        if difference > 1e-3 * max(1.0, float(expected.abs().max())):
            return "SILENTLY_WRONG", f"logits differ by {difference:.2f} from the prompt with its picture; no error"
        return "RIGHT", f"largest difference {difference:.1e}"


PEERS = (PlainHooks, NNsight, TransformerLens)

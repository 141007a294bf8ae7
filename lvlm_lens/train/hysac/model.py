"""HySAC around any CLIP: low-rank adapters in both towers, and the head beside them.

As in the release, adapters sit on k, v, out, fc1, fc2 and the patch embedding: not on q, and not on the two
projections into the shared space.  Nothing lives on the manifold as a parameter, so plain AdamW trains all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ...errors import ModelError
from ...storage.arrays import save_arrays
from .loss import Head, Terms

LAYERS = ("k_proj", "v_proj", "out_proj", "fc1", "fc2", "patch_embedding")
HEAD = "hysac.safetensors"


class HySAC(nn.Module):
    """A CLIP model in Lorentz space.

    Args:
        clip: a ``CLIPModel`` of any size.
        terms: of the loss.
        rank, alpha, dropout: of LoRA; the release has 16, 1 and 0.1.  ``rank=0`` trains nothing of CLIP, ``None`` all
            of it, without adapters.
        curvature: where it starts.
    """

    def __init__(
        self,
        clip: Any,
        terms: Terms | None = None,
        rank: int | None = 16,
        alpha: float = 1.0,
        dropout: float = 0.1,
        curvature: float = 1.0,
    ) -> None:
        super().__init__()
        if not hasattr(clip, "get_image_features") or not hasattr(clip.config, "projection_dim"):
            raise ModelError(f"{type(clip).__name__} is no CLIP: HySAC needs a text and a picture tower in one space")
        if rank:
            from peft import LoraConfig, get_peft_model

            adapter = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(LAYERS))  # type: ignore[arg-type]
            clip = get_peft_model(clip, adapter)
        else:
            clip.requires_grad_(rank is None)
        self.clip = clip
        self.head = Head(clip.config.projection_dim, terms, curvature)

    def features(self, kind: str, inputs: torch.Tensor) -> torch.Tensor:
        """CLIP's projected features ``[n, d]``, not normalised: of ``text`` ids ``[n, T]`` or of ``image`` pixels."""
        if kind == "text":
            return projected(self.clip.get_text_features(input_ids=inputs))
        return projected(self.clip.get_image_features(pixel_values=inputs))

    def forward(self, texts: torch.Tensor, images: torch.Tensor, **ignored: Any) -> dict[str, torch.Tensor]:
        """The loss of quadruplets: ``texts [n, 2, T]`` and ``images [n, 2, 3, H, W]``, safe before unsafe."""
        count = len(texts)
        text = self.features("text", texts.transpose(0, 1).flatten(0, 1))  # [2 n, d]
        image = self.features("image", images.transpose(0, 1).flatten(0, 1))
        loss, _ = self.head({"T": text[:count], "T*": text[count:], "I": image[:count], "I*": image[count:]})
        return {"loss": loss}

    def groups(self, decay: float = 0.2) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: weight decay on the adapters, none on scales and curvature."""
        own = [p for p in self.clip.parameters() if p.requires_grad]
        return [{"params": own, "weight_decay": decay}, {"params": list(self.head.parameters()), "weight_decay": 0.0}]

    def save(self, folder: Path) -> None:
        """PEFT's adapter and the head's four numbers."""
        self.clip.save_pretrained(str(folder), safe_serialization=True)
        save_arrays(folder / HEAD, {k: v.detach().reshape(1).cpu().numpy() for k, v in self.head.named_parameters()})

    @classmethod
    def load(cls, clip: Any, folder: Path, terms: Terms | None = None) -> HySAC:
        """A trained folder on a fresh base; :class:`ModelError` where the head's file is missing or another's."""
        from peft import PeftModel

        if not (folder / HEAD).is_file():
            raise ModelError(f"folder {folder.name!r} holds no {HEAD}, so it is no HySAC training")
        made = cls(clip, terms, rank=0)
        made.clip = PeftModel.from_pretrained(clip, str(folder))
        stored = load_file(folder / HEAD)
        expected = dict(made.head.named_parameters())
        if stored.keys() != expected.keys():
            raise ModelError(f"{HEAD} in {folder.name!r} holds {', '.join(stored)}; expected {', '.join(expected)}")
        with torch.no_grad():
            for name, parameter in expected.items():
                parameter.copy_(stored[name].reshape(()))
        return made.eval()


def projected(output: Any) -> torch.Tensor:
    """The vector in the shared space: transformers 5 gives it inside an output, earlier ones as a tensor."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output

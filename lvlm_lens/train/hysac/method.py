"""``lvlm-lens train hysac``: the dual encoder under the contract of all training methods.

The base is a ``CLIPModel`` of any size.  A quadruplet is a matched pair of the data: both members have a picture, and a
caption or, failing that, words.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...data import Pair, Sample
from ...errors import DataError, ModelError, UsageError
from ...models.extras import needs
from ...models.weights import weights_hash
from ...storage.runfolder import RunFolder
from ..folder import ADAPTER_WEIGHTS, CHECKPOINTS, RECORD, finish, identity, read_training
from ..method import Job, Method, Plan
from ..running import last_checkpoint, progress_callback, quiet, save_adapter, set_seed, training_arguments
from .loss import Terms
from .model import HEAD, HySAC


@dataclass(eq=False, repr=False)
class HySACMethod(Method):
    """HySAC (arXiv 2503.12127): CLIP in Lorentz space, all seven terms unless told otherwise.

    Args:
        geometry: ``lorentz``, or ``euclidean``: the four contrastive terms on cosines, the ablation to make.
        weight: of the entailment terms.
        curvature: where it starts.
    """

    name = "hysac"
    title = "HySAC"
    source = "arXiv 2503.12127, read in the authors' code"
    rate = 1e-4

    geometry: str = "lorentz"
    weight: float = 1.0
    curvature: float = 1.0

    def meaningless(self, control: str) -> str:
        """All of them: they deal with replies, and a dual encoder gives none."""
        return "" if control == "none" else (
            "a dual encoder gives no replies; its controls are rows of its own experiment (`python -m training.hysac`: "
            "safe and unsafe exchanged, exchanged in a random half, without geometry, matched contrast alone)"
        )  # fmt: skip

    def train(self, job: Job) -> dict[str, Any]:
        """See :meth:`~lvlm_lens.train.method.Method.train`.  ``rank`` is LoRA's; alpha is twice it.

        Raises :class:`UsageError` for a control, a part or blocks: the adapter sits in both towers.
        """
        needs("peft", "train", "training 'hysac'")
        self.refuse_meaningless(job.settings.control)
        if job.settings.where not in ("language", "all") or job.settings.blocks is not None:
            raise UsageError("hysac puts its adapter into every block of both towers; leave out --where and --blocks")
        from transformers import Trainer, TrainingArguments

        start = time.perf_counter()
        base = _Base(job)
        folder = RunFolder(job.folder)
        folder.claim(identity(self, job, base.described))
        if (job.folder / RECORD).is_file():
            return dict(read_training(job.folder).record)
        rows = base.rows(quadruplets(job.data.pairs()))
        set_seed(job.settings.seed)
        model = self._model(base.clip, job)
        arguments = {**training_arguments(self, job, base), "gradient_checkpointing": False, "weight_decay": 0.2}
        arguments["include_num_input_tokens_seen"] = "no"
        optimizer = torch.optim.AdamW(model.groups(), lr=arguments["learning_rate"], betas=(0.9, 0.98))
        with quiet():
            trainer = Trainer(
                model=model,
                args=TrainingArguments(**arguments),
                train_dataset=rows,
                data_collator=base.collate,
                optimizers=(optimizer, None),
            )  # type: ignore[arg-type]
            trainer.add_callback(progress_callback(job))
            checkpoint = last_checkpoint(job.folder / CHECKPOINTS)
            set_seed(job.settings.seed)
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        model.eval().save(job.folder)
        save_adapter(model.clip, job.folder, job.model)
        after = self._compare(job, model, base.collate([rows[0]]))
        log = [{key: float(value) for key, value in entry.items()} for entry in trainer.state.log_history]
        cost = {
            "steps": int(trainer.state.global_step),
            "flops": self.plan(job).flops,
            "tokens": 0.0,
            "seconds": round(time.perf_counter() - start, 2),
            "trainable": int(sum(p.numel() for p in model.parameters() if p.requires_grad)),
        }
        record = finish(
            self, job, base.described, weights=[ADAPTER_WEIGHTS, HEAD], audits={"before": {"quadruplets": len(rows)},
            "after": after}, log=log, cost=cost, more={"curvature": float(model.head.curvature.detach())},
        )  # fmt: skip
        shutil.rmtree(job.folder / CHECKPOINTS, ignore_errors=True)
        return record

    def plan(self, job: Job) -> Plan:
        """Forward and backward of both towers on two texts and two pictures a row."""
        base = _Base(job)
        vision, text = base.clip.config.vision_config, base.clip.config.text_config
        towers = {
            "vision": ((vision.image_size // vision.patch_size) ** 2 + 1, base.clip.vision_model),
            "text": (text.max_position_embeddings, base.clip.text_model),
        }
        work = sum(tokens * sum(p.numel() for p in tower.parameters()) for tokens, tower in towers.values())
        flops = 6.0 * 2 * work * job.settings.batch_size * job.settings.steps
        model = self._model(base.clip, job)
        every = sum(p.numel() for p in model.parameters())
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        tokens = float(sum(count for count, _ in towers.values()))
        bytes_ = 4.0 * (every + 3 * trainable) + 4.0 * 2 * job.settings.batch_size * tokens * vision.hidden_size * 40
        return Plan(
            len(job.data.pairs()), job.settings.steps, tokens, trainable, every, flops, 0.0, bytes_, flops / 2e10,
            ("2e10 operations a second supposed",),
        )  # fmt: skip

    def defense(self, folder: Path) -> Any:
        """None: it retrieves and does not answer."""
        raise UsageError("hysac trains a dual encoder, which answers nothing; it cannot guard a language model")

    def _model(self, clip: Any, job: Job) -> HySAC:
        terms = Terms(self.geometry, weight=self.weight)  # type: ignore[arg-type]
        rank = job.settings.rank
        return HySAC(clip, terms, rank, 2.0 * rank, curvature=self.curvature)

    @torch.no_grad()
    def _compare(self, job: Job, model: HySAC, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        fresh_base = _Base(job)
        plain = fresh_base.clip.get_text_features(input_ids=batch["texts"][:, 0]).pooler_output
        trained = model.features("text", batch["texts"][:, 0])
        fresh = HySAC.load(fresh_base.clip, job.folder, model.head.terms).to(trained.device)
        again = fresh.features("text", batch["texts"][:, 0])
        moved, apart = (float((trained - other).abs().max()) for other in (plain, again))
        if not apart <= 1e-5 * max(1.0, float(trained.abs().max())) or not moved > 0:
            raise ModelError(
                f"the saved training on a fresh base gives other features (largest difference {apart:.3g}), or none "
                f"that differ from the base's ({moved:.3g}); the folder is not marked as finished"
            )
        return {"changes_features": moved, "fresh_minus_trained": apart}


def quadruplets(pairs: Sequence[Pair]) -> list[Pair]:
    """Matched pairs whose members both have a picture; raises :class:`DataError` where there is none."""
    found = [pair for pair in pairs if pair.clean.images and pair.corrupted.images]
    if not found:
        raise DataError(
            f"none of {len(pairs)} matched pairs has a picture on both sides, and hysac trains on quadruplets of texts "
            "and pictures (ViSU's own pictures are private); give a data set with pictures and counterfactuals"
        )
    return found


def said(sample: Sample) -> str:
    """The text of a sample's scene: its caption, else its request with the picture in words, else its words."""
    return sample.text_only or sample.caption or sample.text


class _Base:
    """A CLIP with its tokenizer and image processor."""

    def __init__(self, job: Job) -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

        try:
            config = AutoConfig.from_pretrained(job.model)
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"model {job.model!r} is no checkpoint that transformers can read ({line}); hysac trains a CLIP: give "
                "--model with a CLIP's folder or name, e.g. openai/clip-vit-base-patch32"
            ) from error
        if config.model_type != "clip":
            raise ModelError(f"model {job.model!r} is of family {config.model_type!r}; hysac trains a CLIP")
        self.clip = CLIPModel.from_pretrained(job.model, use_safetensors=True).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(job.model)
        self.images = AutoImageProcessor.from_pretrained(job.model)
        self.longest = config.text_config.max_position_embeddings
        self.device = torch.device(str(job.loading.get("device") or "cpu"))
        self.described = {
            "name": job.model, "revision": getattr(config, "_commit_hash", None), "dtype": "float32",
            "weights_hash": weights_hash(self.clip),
        }  # fmt: skip

    def rows(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs; raises :class:`DataError` for a text that CLIP would cut."""
        for pair in pairs:
            for sample in (pair.clean, pair.corrupted):
                length = len(self.tokenizer(said(sample)).input_ids)
                if length > self.longest:
                    raise DataError(
                        f"sample {sample.id!r}: its text has {length} tokens and this CLIP reads {self.longest}; what "
                        "is cut would be trained on as if it were whole: shorten it or leave it out"
                    )
        return list(pairs)

    def collate(self, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
        """``texts [n, 2, T]`` and ``images [n, 2, 3, H, W]``, the safe side first."""
        both = [sample for pair in pairs for sample in (pair.corrupted, pair.clean)]
        texts = self.tokenizer(
            [said(s) for s in both], padding="max_length", max_length=self.longest, return_tensors="pt"
        ).input_ids
        pictures = [sample.images[0].load() for sample in both]
        images = self.images(images=pictures, return_tensors="pt").pixel_values
        return {"texts": texts.unflatten(0, (-1, 2)), "images": images.unflatten(0, (-1, 2))}

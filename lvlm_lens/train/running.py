"""One training of an adapter from start to end; the same call continues it.

1. The base is loaded, the folder claimed (another training's folder is refused with the difference).
2. The rows are made and written down, once: replies that the model drew are read back by a later start.
3. The trainer is built, and its rows and its first batches are audited (:mod:`.audits`): a training that would learn
   the wrong thing does not begin.
4. It trains, from its last checkpoint where there is one.  On a processor the weights at the end are the same, bit for
   bit, as without the stop: rows are drawn by the seed, and optimiser, schedule and random state lie in the checkpoint.
5. The adapter is saved and audited again, on a freshly loaded base; ``training.json`` is written last.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import Dataset, Sample
from ..errors import DataError, LensError
from ..models.extras import needs
from ..storage.commit import write_atomic
from ..storage.runfolder import RunFolder
from .controls import controlled
from .folder import ADAPTER_WEIGHTS, AUDIT, CHECKPOINTS, RECORD, ROWS, finish, identity, read_rows, read_training
from .method import Job, Method, Row, Settings
from .targets import chosen_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..lens import LVLM
    from .adapter_contract import AdapterContract


def train(
    method: Method, model: str, data: Sequence[Sample], settings: Settings, folder: str | Path, **more: Any
) -> dict[str, Any]:
    """Train ``method`` on ``data`` from the base named ``model`` into ``folder``, or continue there.

    Args:
        method: from :func:`~lvlm_lens.train.registry.make_method`.
        model: as :meth:`LVLM.from_pretrained` takes it.
        data: the samples to train on.
        settings: how.
        folder: where everything goes.
        more: further fields of :class:`~lvlm_lens.train.method.Job`.

    Returns:
        What ``training.json`` holds.
    """
    known = data if isinstance(data, Dataset) else Dataset(data)
    return method.train(Job(model, known, settings, Path(folder).expanduser(), **more))


def train_adapter(method: AdapterContract, job: Job) -> dict[str, Any]:
    """:meth:`~.adapter_method.AdapterMethod.train`; see the module's first lines."""
    needs("trl", "train", f"training {method.name!r}")
    needs("peft", "train", f"training {method.name!r}")
    from .arrival import audit_after
    from .audits import audit_before

    start = time.perf_counter()
    method.refuse_meaningless(job.settings.control)
    base = job.load()
    chosen_layers(base.anatomy, base.model, job.settings, method.targets)  # a block that is not there claims no folder
    described = describe_base(base, job.model)
    folder = RunFolder(job.folder)
    folder.claim(identity(method, job, described))
    if (job.folder / RECORD).is_file():
        return dict(read_training(job.folder).record)
    samples = readable_samples(base, job.data)
    rows = kept_rows(method, base, samples, job)
    set_seed(job.settings.seed)
    method.prepare(base, rows, job)
    adapter = method.adapter(base, job.settings)
    set_seed(job.settings.seed)  # the adapter's first values are drawn where the trainer puts it on
    with quiet():
        trainer = method.trainer(base, rows, adapter, training_arguments(method, job, base))
        trainer.add_callback(progress_callback(job))
        before = audit_before(trainer, base, rows, method, job.settings.where)
        folder.write_json(AUDIT, before)
        checkpoint = last_checkpoint(job.folder / CHECKPOINTS)
        job.say("training" if checkpoint is None else f"continues at {checkpoint.name}")
        set_seed(job.settings.seed)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    wrapped = trainer.model
    spent = {
        "steps": int(trainer.state.global_step),
        "flops": spent_flops(trainer, base),
        "tokens": float(trainer.state.num_input_tokens_seen or 0),
        "seconds": round(time.perf_counter() - start, 2),
        "trainable": int(sum(p.numel() for p in wrapped.parameters() if p.requires_grad)),
    }
    log = [{key: float(value) for key, value in entry.items()} for entry in trainer.state.log_history]
    save_adapter(wrapped, job.folder, job.model)
    job.say("the saved adapter is read by a fresh base and compared")
    after = audit_after(job, wrapped, base, samples)
    record = finish(
        method,
        job,
        described,
        weights=[ADAPTER_WEIGHTS, *method.files],
        audits={"before": before, "after": after},
        log=log,
        cost=spent,
        more={"rows": len(rows)},
    )
    shutil.rmtree(job.folder / CHECKPOINTS, ignore_errors=True)
    return record


def spent_flops(trainer: Any, base: LVLM) -> float:
    """``6 x parameters x tokens``, as the trainer counted it, or, where it counts none, from its tokens."""
    counted = float(trainer.state.total_flos)
    tokens = float(trainer.state.num_input_tokens_seen or 0)
    return counted or 6.0 * tokens * base.model.num_parameters(exclude_embeddings=True)


def describe_base(base: LVLM, name: str) -> dict[str, Any]:
    """The weights a training starts from: ``name`` as given, ``revision``, ``weights_hash``, ``dtype``."""
    return {
        "name": name,
        "revision": base.revision,
        "weights_hash": base.weights_hash(),
        "dtype": str(base.dtype).removeprefix("torch."),
    }


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def readable_samples(base: LVLM, data: Dataset) -> Dataset:
    """The samples whose pictures can be read; for a text-only base their requests in words.

    Raises :class:`DataError` where none is left.
    """
    kept, lost = [], []
    for sample in data:
        try:
            sample = sample if base.takes_images else sample.without_images()
            for source in sample.images:
                source.load()
        except LensError as error:
            lost.append(f"{sample.id}: {error}")
            continue
        kept.append(sample)
    if not kept:
        raise DataError(f"none of {len(data)} samples can be trained on, e.g. {lost[0] if lost else 'there is none'}")
    return Dataset(kept, data.name, data.problems, [*data.notes, *(f"left out: {line}" for line in lost)])


def kept_rows(method: AdapterContract, base: LVLM, samples: Dataset, job: Job) -> list[Row]:
    """The rows, made once and kept in ``rows.jsonl``."""
    given: Dataset = samples
    if method.in_words or job.settings.control == "text_only":
        given = Dataset([s.without_images() for s in samples], samples.name, samples.problems, samples.notes)
    found = read_rows(job.folder)
    if found is None:
        job.say(f"rows of {len(given)} samples")
        set_seed(job.settings.seed)
        made = method.rows(base, given, job.settings)
        made = controlled(job.settings.control, made, job.settings.seed)
        lines = [row.to_dict() for row in made]
        write_atomic(job.folder / ROWS, "".join(_line(line) for line in lines))
        found = read_rows(job.folder) or []
    by_id = {sample.id: sample for sample in (*method.further_samples(), *given)}
    try:
        return [
            Row(_as_written(by_id[line["sample"]], line), line["reply"], line["worse"], line["other"], line["name"])
            for line in found
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{ROWS} does not belong to these data ({error}); remove the folder and start anew") from error


def _as_written(sample: Sample, line: Mapping[str, Any]) -> Sample:
    """The sample in the words and under the labels its row was written with: these may be other ones."""
    image, text, joint = line["labels"]
    return replace(sample, text=line["text"], label_image=image, label_text=text, label_joint=joint)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def training_arguments(method: Method, job: Job, base: Any) -> dict[str, Any]:
    """Arguments of ``TrainingArguments`` that are the same for all methods."""
    settings = job.settings
    on_cpu = base.device.type == "cpu"
    return {
        "output_dir": str(job.folder / CHECKPOINTS),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": method.rate if settings.rate is None else settings.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.steps // 20,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": settings.bf16,
        "use_cpu": on_cpu,
        "gradient_checkpointing": not on_cpu,  # memory is short where the models are large
        "logging_steps": max(1, settings.steps // 100),
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not on_cpu,
        "include_num_input_tokens_seen": "all",
    }


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: its state file is the trainer's last one."""
    found = sorted(
        (int(place.name.rsplit("-", 1)[1]), place)
        for place in folder.glob("checkpoint-*")
        if (place / "trainer_state.json").is_file() and place.name.rsplit("-", 1)[1].isdigit()
    )
    return found[-1][1] if found else None


def save_adapter(wrapped: Any, folder: Path, base: str) -> None:
    """PEFT's two files, without the machine's paths and without its model card."""
    wrapped.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    write_atomic(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def progress_callback(job: Job) -> Any:
    """Tells ``job.progress`` of every step, with what was logged last."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def __init__(self) -> None:
            self.logged: dict[str, float] = {}

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            self.logged = {key: float(value) for key, value in (logs or {}).items()}
            job.progress(state.global_step, state.max_steps, self.logged)

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            job.progress(state.global_step, state.max_steps, self.logged)

    return Told()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the trainers' own bars and printed dictionaries: ours tells the same."""
    from transformers import PrinterCallback
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    noisy = logging.getLogger("trl")
    level = noisy.level
    transformers_logging.set_verbosity_error()
    noisy.setLevel(logging.ERROR)
    printed = PrinterCallback.on_log
    PrinterCallback.on_log = lambda self, *args, **rest: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that the trainers themselves use
            yield
    finally:
        PrinterCallback.on_log = printed
        noisy.setLevel(level)
        transformers_logging.set_verbosity(before)

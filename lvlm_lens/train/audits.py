"""Checks before the first step: a training that would learn the wrong thing does not begin.

Each check looks at what the trainer itself would put into the model (its own rows through its own collator) and holds
it against what the toolkit's encoder makes of the same request, or against plain decoded words.  Each refuses with its
remedy:

* ``template``: the rendered request must be the beginning of the rendered whole; templates that put in or take out a
  thinking part break this, and the reply is then cut at the wrong place.
* ``labels``: what is trained on, decoded, is the reply: no token of a picture and none of the request (in TRL's
  ``messages`` format 64 of 85 labels of a row of ``mini`` are the picture's).
* ``whole``: no row is cut, at either end (TRL's default ``max_length`` of 1024 cuts through pictures).
* ``pictures``: each row's pictures are among the tensors, and each row has as many picture tokens as it should.
* ``seats``: every adapter sits in the part that was asked for, and nothing else learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..data import Sample
from ..errors import DataError, ImageLostError, ModelError
from ..training_settings import Where
from .method import Row
from .records import asked
from .targets import part_prefixes, seat_table, sitting

if TYPE_CHECKING:
    from ..lens import LVLM
    from .adapter_contract import AdapterContract

LOOKED_AT = 256
"""Rows that are put through the trainer's collator, spread over all."""
_PIXELS = ("pixel_values", "image_embeds", "mm_encoder")


def audit_before(
    trainer: Any, base: LVLM, rows: Sequence[Row], method: AdapterContract, where: Where = "language"
) -> dict[str, Any]:
    """All checks; returns what each saw.

    Raises:
        DataError: labels that hold more than the reply, a row that is cut, a template that does not fit.
        ImageLostError: pictures that do not arrive.
        ModelError: adapters in another place.
    """
    step = max(1, len(rows) // LOOKED_AT)
    numbers = list(range(0, len(rows), step))[:LOOKED_AT]
    seen: dict[str, Any] = {"rows": len(rows), "looked_at": len(numbers)}
    seen["template"] = audit_template(base, [rows[n] for n in numbers[:16]])
    if method.has_labels:
        size = max(1, trainer.args.per_device_train_batch_size)
        parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        found = [_audit_batch(trainer, base, [rows[n] for n in part], part) for part in parts]
        seen["labels"] = {
            "trained": sum(one["trained"] for one in found),
            "tokens": sum(one["tokens"] for one in found),
            "picture_tokens": sum(one["picture_tokens"] for one in found),
        }
        seen["whole"] = {"longest": max(one["longest"] for one in found), "limit": base.encoder.longest}
        seen["pictures"] = {"rows": sum(one["pictures"] for one in found)}
    else:
        seen["pictures"] = audit_rows_pictures(trainer, rows, numbers)
    seen["seats"] = audit_seats(trainer.model, base, where)
    return seen


# -- template ----------------------------------------------------------------------------------------


def audit_template(base: LVLM, rows: Sequence[Row]) -> dict[str, Any]:
    """The request's rendering is the beginning of the whole's."""
    owner: Any = base.processor if getattr(base.processor, "chat_template", None) else base.tokenizer
    for row in rows:
        messages = _as_parts(base, row.sample)
        prompt = owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        content: Any = row.reply or "Yes."
        if base.processor is not None:
            content = [{"type": "text", "text": content}]
        whole = owner.apply_chat_template([*messages, {"role": "assistant", "content": content}], tokenize=False)
        if not whole.startswith(prompt):
            at = next((n for n, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
            raise DataError(
                f"row {row.name or row.sample.id!r}: the chat template's request is no beginning of the whole "
                f"({prompt[at : at + 24]!r} there, {whole[at : at + 24]!r} with the reply): it puts in or takes out a "
                "thinking part, so the reply would be cut at the wrong place; use a template without it (for many "
                "models a non-thinking variant of the checkpoint), or begin every reply as the template does"
            )
    return {"rows": len(rows), "prefix": True}


def _as_parts(base: LVLM, sample: Sample) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for said in asked(base, sample):
        content: Any = said["content"]
        if base.processor is not None:
            shown = [{"type": "image"} for _ in sample.images] if said["role"] == "user" else []
            content = [*shown, {"type": "text", "text": said["content"]}]
        messages.append({"role": said["role"], "content": content})
    return messages


# -- labels, length, pictures ------------------------------------------------------------------------


def collated(trainer: Any, numbers: Sequence[int]) -> dict[str, Any]:
    """The batch that the trainer's own collator makes of these rows."""
    return dict(trainer.data_collator([trainer.train_dataset[number] for number in numbers]))


def trained_tokens(batch: Mapping[str, Any]) -> torch.Tensor:
    """Which tokens of a batch are trained on: bool ``[row, token]``, by its labels or its mask of replies."""
    if "labels" in batch:
        return batch["labels"] != -100
    return batch["completion_mask"].bool()


def _audit_batch(trainer: Any, base: LVLM, rows: Sequence[Row], numbers: Sequence[int]) -> dict[str, Any]:
    batch = collated(trainer, numbers)
    replies = [row.reply for row in rows]
    samples = [row.sample for row in rows]
    if len(batch["input_ids"]) == 2 * len(rows):  # preferences: the better replies, then the worse ones
        replies, samples = replies + [row.worse or "" for row in rows], samples * 2
    trained = trained_tokens(batch)
    lengths = [_prompt(base, sample) for sample in samples]
    audit_labels(base, batch, trained, samples, replies)
    audit_whole(base, batch, trained, samples, lengths)
    shown = audit_pictures(base, batch, samples, lengths)
    attended = batch["attention_mask"].sum(1)
    token = base.anatomy.image_token_id
    return {
        "trained": int(trained.sum()),
        "tokens": int(attended.sum()),
        "picture_tokens": int((batch["input_ids"] == token).sum()) if token is not None else 0,
        "longest": int(attended.max()),
        "pictures": shown,
    }


def _prompt(base: LVLM, sample: Sample) -> tuple[int, int]:
    """Tokens of the request by the toolkit's own encoder, and how many of them are the pictures'."""
    layout = base.encoder([sample]).layouts[0]
    return len(layout.attended), sum(len(span) for span in layout.images)


def _name(samples: Sequence[Sample], number: int) -> str:
    return f"row {samples[number].id!r}"


def audit_labels(
    base: LVLM, batch: Mapping[str, Any], trained: torch.Tensor, samples: Sequence[Sample], replies: Sequence[str]
) -> None:
    """What is trained on, decoded, is the reply."""
    ids, token = batch["input_ids"], base.anatomy.image_token_id
    for number, reply in enumerate(replies):
        mine = ids[number][trained[number]]
        pictured = int((mine == token).sum()) if token is not None else 0
        if pictured:
            raise DataError(
                f"{_name(samples, number)}: {pictured} of {len(mine)} labels are tokens of the picture; give the rows "
                "as prompt and completion (TRL's messages format masks padding only)"
            )
        said = base.tokenizer.decode(mine, skip_special_tokens=True).strip()
        # a template may add what is no special token for it (an end mark), but nothing before the reply
        if said != reply.strip() and not said.startswith(reply.strip()):
            cut = reply.strip().startswith(said)
            what = "the reply is cut" if cut else "what is trained on is not the reply"
            remedy = (
                "raise max_length or leave it None, and drop long rows beforehand"
                if cut
                else "give the rows as prompt and completion, so that the request is not among the labels"
            )
            raise DataError(f"{_name(samples, number)}: {what} ({said[:60]!r}, expected {reply[:60]!r}); {remedy}")


def audit_whole(
    base: LVLM,
    batch: Mapping[str, Any],
    trained: torch.Tensor,
    samples: Sequence[Sample],
    lengths: Sequence[tuple[int, int]],
) -> None:
    """Every request is there in full, and no row is longer than the model's positions."""
    attended = batch["attention_mask"].bool()
    limit = base.encoder.longest
    for number, (length, _) in enumerate(lengths):
        request = int((attended[number] & ~trained[number]).sum())
        if request < length:
            raise DataError(
                f"{_name(samples, number)}: {request} of the request's {length} tokens are in the row, the rest is "
                "cut; set max_length to None and drop long rows beforehand"
            )
        if request > length:
            raise DataError(
                f"{_name(samples, number)}: {request} tokens of the row are not trained on and the request has "
                f"{length}: a part of the reply would not be learnt; check the chat template and the mask"
            )
        whole = int(attended[number].sum())
        if limit is not None and whole > limit:
            raise DataError(
                f"{_name(samples, number)}: {whole} tokens, and the model's positions end at {limit}; drop long rows"
            )


def audit_pictures(
    base: LVLM, batch: Mapping[str, Any], samples: Sequence[Sample], lengths: Sequence[tuple[int, int]]
) -> int:
    """Each row has its pictures' tokens, and the batch their pixels; returns how many rows have pictures."""
    token = base.anatomy.image_token_id
    shown = [sample for sample in samples if sample.images]
    if not shown:
        return 0
    pixels = [value for key, value in batch.items() if key.startswith(_PIXELS) and isinstance(value, torch.Tensor)]
    if not pixels:
        raise ImageLostError(
            f"{len(shown)} rows have pictures and the batch has no pixels: the first row decides whether a trainer "
            "reads pictures, so give every row the column images (an empty list where there is none)"
        )
    if not all(bool(torch.isfinite(value).all()) for value in pixels):
        raise ImageLostError("the pixels of a batch are not finite")
    for number, (sample, (_, expected)) in enumerate(zip(samples, lengths, strict=True)):
        there = int((batch["input_ids"][number] == token).sum()) if token is not None else expected
        if there != expected:
            raise ImageLostError(
                f"{_name(samples, number)}: {there} picture tokens in the row, {expected} expected for "
                f"{len(sample.images)} picture(s); leave max_length None and keep the pictures in every row"
            )
    # pictures that differ must not arrive as one: a lost picture is often replaced by an empty one
    values = pixels[0]
    keys = [tuple(source.key for source in sample.images) for sample in shown]
    if len(values) == len(shown) and len(set(keys)) > 1:
        same = next(
            (
                (a, b)
                for a in range(len(shown))
                for b in range(a)
                if keys[a] != keys[b] and torch.equal(values[a], values[b])
            ),
            None,
        )
        if same is not None:
            raise ImageLostError(
                f"rows {shown[same[0]].id!r} and {shown[same[1]].id!r} show different pictures and got the same pixels"
            )
    return len(shown)


def audit_rows_pictures(trainer: Any, rows: Sequence[Row], numbers: Sequence[int]) -> dict[str, Any]:
    """For trainers that draw replies: each row hands over as many pictures as its request has."""
    shown = 0
    for number in numbers:
        row = trainer.train_dataset[number]
        there = len(row.get("images") or ())
        if there != len(rows[number].sample.images):
            raise ImageLostError(
                f"row {rows[number].sample.id!r} hands over {there} pictures of {len(rows[number].sample.images)}; "
                "give every row the column images (an empty list where there is none)"
            )
        shown += there > 0
    return {"rows": shown}


# -- seats -------------------------------------------------------------------------------------------


def audit_seats(
    wrapped: Any, base: LVLM, where: Where, more: Callable[[str], bool] = lambda name: False
) -> list[dict[str, Any]]:
    """Where each adapter sits; anything outside the part that was asked for is refused.

    Args:
        wrapped: PEFT's wrapper, or the model with adapters in it.
        base: the model.
        where: the part.
        more: names of parameters of a method's own that may learn too.
    """
    inner = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    names = sitting(inner)
    if not names:
        raise ModelError("no layer carries an adapter, so nothing would be learnt")
    table = seat_table(names, part_prefixes(base.anatomy, inner))
    outside = [row for row in table if where != "all" and row["part"] != where]
    if outside:
        wrong, total = sum(row["count"] for row in outside), len(names)
        raise ModelError(
            f"{wrong} of {total} adapters sit outside the {where} part ({outside[0]['count']} x {outside[0]['layer']} "
            f"in {outside[0]['part']}): a list of names such as ['q_proj', 'v_proj'] hits every layer that ends so; "
            "give the pattern of lvlm_lens.train.targets.lora_config"
        )
    learning = [name for name, value in wrapped.named_parameters() if value.requires_grad]
    other = [name for name in learning if "lora_" not in name and not more(name)]
    if other or not learning:
        raise ModelError(
            f"{len(other)} parameters that are no adapter would learn ({other[0] if other else 'none else does'}); "
            "freeze them, or name them as the method's own"
        )
    return table

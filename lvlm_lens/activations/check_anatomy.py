"""One battery of checks for every family of models, and its quick part for every model that is loaded.

A table of dotted paths is a claim about code that others change.  The battery proves the claim on
a model by comparing with plain Hugging Face forwards::

    plain, with and without picture  ids, every resid_post, final norm and logits equal a forward of the plain model
                                     on its processor's own, untouched output
    every hook fired once            each block site, once per forward
    blocks add up                    another prompt's resid_mid makes that prompt's resid_post;
                                     resid_pre + attn_out = resid_mid, resid_mid + mlp_out = resid_post
    lens of the last block           equals the logits
    image positions                  other pixels change block 0's input there and nowhere else
    a zero edit                      changes nothing, bit for bit
    a donor edit                     at every position, makes the logits the donor's
    batching                         n rows together equal n rows alone, padded left or right
    several and no pictures          positions of two pictures apart; rows without pictures run
    the question                     its tokens decode to the words
    no pixels                        image tokens without pixels raise

Where a family cannot satisfy a line by its nature (``flow``), the check asks for what is true of it:
DeepStack, cross-attention and shared keys let later blocks read past an edit, so there the
donor's logits are asked for after the last such block only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data import ImageObject, Sample
from ..errors import DataError, ImageLostError, LensError, ModelError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..tolerance import SHARE
from .hooks import HookFunction, attached
from .sites import BLOCK_SITES, Site, all_sites, tap
from .untouched import untouched

Edit = tuple[Site, HookFunction]
_WORDS = ("Can my toddler play with this?", "Is it safe", "May I take  this on a plane, please?")
_SIZES = ((40, 40), (64, 30), (30, 64))
_PIXELS = ("pixel_values", "image_embeds", "mm_encoder_outputs")


@dataclass
class CheckReport:
    """What the battery found on one model.

    Attributes:
        family: the model's family.
        max_abs_error: largest difference over the numeric checks, ``None`` before any ran.
        failed: name and reason of each check that failed.
        passed: names of the checks that passed.
        refused: sites (name, block) that are something else than their name says, and what was seen.
    """

    family: str
    max_abs_error: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    refused: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """``family``, ``ok``, ``max_abs_error``, ``failed`` (checks with reasons) and ``passed``."""
        return {
            "family": self.family,
            "ok": self.ok,
            "max_abs_error": self.max_abs_error,
            "failed": [f"{name}: {reason}" for name, reason in self.failed.items()],
            "passed": list(self.passed),
        }


class _Battery:
    """Runs the checks on one model and collects what they say."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.flow = model.anatomy.family.flow
        self.report = CheckReport(model.anatomy.family.model_type)
        self.tolerance = SHARE.get(model.dtype, SHARE[torch.bfloat16])
        pictures = [_picture(number, size) for number, size in enumerate(_SIZES)]
        self.samples = [
            Sample(f"check-{number}", words, (picture,) if model.takes_images else ())
            for number, (words, picture) in enumerate(zip(_WORDS, pictures, strict=True))
        ]

    # -- machinery ---------------------------------------------------------------------------

    def run(self, name: str, check: Callable[[], None]) -> None:
        """Run one check; any error that it raises is its failure."""
        try:
            check()
        except (AssertionError, LensError, RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()
            self.report.failed[name] = f"{type(error).__name__}: {reason[0] if reason else ''}"[:300]
        else:
            self.report.passed.append(name)

    def same(
        self,
        ours: torch.Tensor,
        theirs: torch.Tensor,
        what: str,
        exact: bool = False,
        share: float | None = None,
        more: float = 0.0,
    ) -> None:
        """Ask for equality: bit for bit, or up to a share of the size of the values."""
        ours, theirs = ours.float(), theirs.float()
        assert ours.shape == theirs.shape, f"{what}: shapes {tuple(ours.shape)} and {tuple(theirs.shape)}"
        real = (ours.abs() < 1e30) & (theirs.abs() < 1e30)  # barred logits stand at the dtype's minimum
        assert bool(((ours == theirs) | real).all()), f"{what}: infinite or barred values differ"
        error = float((ours - theirs)[real].abs().max()) if bool(real.any()) else 0.0
        self.report.max_abs_error = max(self.report.max_abs_error, error)
        largest = max(1.0, float(theirs[real].abs().max()) if bool(real.any()) else 1.0)
        limit = 0.0 if exact else (self.tolerance if share is None else share) * largest + more
        assert error <= limit, f"{what}: differs by {error:.3g}, allowed {limit:.3g}"

    @torch.inference_mode()
    def forward(self, encoded: Encoded, edits: Sequence[Edit] = (), **options: Any) -> Any:
        """The model's own output with hooks in place."""
        with attached([(site, tap(site, self.model.anatomy), function) for site, function in edits]):
            return self.model.model(**self.model.forward_inputs(encoded), use_cache=False, **options)

    def read(self, encoded: Encoded, sites: Iterable[Site], edits: Sequence[Edit] = (), **options: Any) -> Any:
        """Values at sites ``{site: [tensors]}`` and the model's output."""
        store: dict[Site, list[torch.Tensor]] = {}

        def keep(value: torch.Tensor, site: Site) -> None:
            store.setdefault(site, []).append(value.detach().clone())

        output = self.forward(encoded, [*edits, *((site, keep) for site in sites)], **options)
        return store, output

    @torch.inference_mode()
    def block_0_input(self, encoded: Encoded) -> torch.Tensor:
        """What block 0 reads ``[batch, position, d_model]``; nothing after it is computed."""
        found: list[torch.Tensor] = []

        def stop(value: torch.Tensor, site: Site) -> None:
            del site
            found.append(value.detach().clone())
            raise _StopError

        site = Site("embed")
        try:
            with attached([(site, tap(site, self.model.anatomy), stop)]):
                self.model.model(**self.model.forward_inputs(encoded), use_cache=False)
        except _StopError:
            pass
        return found[0]

    def last(self, encoded: Encoded, values: torch.Tensor) -> torch.Tensor:
        """Values at each row's last token ``[batch, ...]``."""
        return values[torch.arange(len(encoded)), [layout.last for layout in encoded.layouts]]

    # -- checks ------------------------------------------------------------------------------

    @torch.inference_mode()
    def plain(self, sample: Sample) -> None:
        """Ids, residuals and logits of a row are those of a plain forward on the processor's untouched output."""
        model = self.model
        inputs = untouched(model, sample)
        model.padding.forget()
        # labels, which some processors make, ask for the loss over all positions
        few: dict[str, Any] = {} if "labels" in inputs else {"logits_to_keep": self.tail(inputs["input_ids"].shape[1])}
        theirs = model.model(**inputs, **few, output_hidden_states=True)
        again = model.model(**inputs, **few)
        hidden = _hidden_states(theirs)
        # cross-attention blocks are passed over where there is no picture
        ran = [i for i, block in enumerate(model.anatomy.blocks) if sample.images or not hasattr(block, "cross_attn")]
        assert hidden is not None and len(hidden) == len(ran) + 1, (
            f"the model returns {len(hidden or ())} hidden states for {len(ran)} blocks, expected {len(ran) + 1}"
        )
        encoded = model.encode(sample, system="")
        ids = encoded.inputs["input_ids"].tolist()
        assert ids == inputs["input_ids"].tolist(), "the ids are not those of the processor's own call"
        sites = [Site("embed"), *(Site("resid_post", block) for block in ran), Site("final_norm")]
        store, ours = self.read(encoded, sites, **few)
        first = store[sites[0]][0]
        if hidden[0].shape == first.shape and torch.allclose(hidden[0].float(), first.float(), atol=1e-3):
            del sites[-2]  # after the last block HF's own are normed already
        else:
            del sites[0]  # Mamba's own begin after block 0, and the last is there both ways
        for site, values in zip(sites, hidden, strict=True):
            self.close(store[site][0], values, f"{site}")
        self.close(ours.logits, theirs.logits, "logits", again.logits)

    def tail(self, length: int) -> torch.Tensor:
        """The last positions, whose logits are compared: those of a whole picture over a large vocabulary are GiB."""
        return torch.arange(max(0, length - 8), length, device=self.model.device)

    def close(self, ours: torch.Tensor, theirs: torch.Tensor, what: str, again: torch.Tensor | None = None) -> None:
        """Ask for equality up to rounding, or to what the same plain forward differs by when it is run again."""
        noise = float((again.float() - theirs.float()).abs().nan_to_num().max()) if again is not None else 0.0
        share = min(64 * torch.finfo(theirs.dtype).eps, 2e-2)
        self.same(ours, theirs, what, share=share, more=4 * noise)

    def residuals(self) -> None:
        """Hooks fire once; the lens of the last block is the logits; blocks add up."""
        model, n = self.model, self.model.n_blocks
        encoded = model.encode(self.short())
        names = [name for name in BLOCK_SITES if name != "pattern"]
        sites = [site for site in all_sites(model.anatomy) if site.name in (*names, "embed", "final_norm")]
        values: dict[Site, list[torch.Tensor]] = {}
        outputs: list[Any] = []

        def forward() -> None:
            store, output = self.read(encoded, sites)
            values.update(store)
            outputs.append(output)
            twice = [str(site) for site, fired in store.items() if len(fired) != 1]
            assert not twice, f"fired more than once: {', '.join(twice[:4])}"
            first = (store[Site("resid_pre", 0)][0], store[Site("embed")][0])
            self.same(*first, "embed", exact=True)

        self.run("every hook fired once", forward)
        if not outputs:
            return
        at = {site: fired[0] for site, fired in values.items()}

        def lens() -> None:
            with torch.inference_mode():
                seen = model.anatomy.lens(at[Site("resid_post", n - 1)])
            self.same(seen, outputs[0].logits, "lens of the last block")

        self.run("lens of the last block", lens)
        self.run("blocks add up", lambda: self.sums(at))

    def short(self) -> Sample:
        """The row whose every site is kept: without its picture, where the family runs all its blocks on words alone.

        All sites of all blocks at the 1,458 image tokens of a LLaVA-OneVision-7B would be 5 GiB.
        """
        if self.flow & {"needs_image", "cross_attention"}:
            return self.samples[0]
        return replace(self.samples[0], images=())

    def sums(self, at: dict[Site, torch.Tensor]) -> None:
        """``resid_mid`` alone makes ``resid_post``, and what blocks write is what is added to the residual.

        What fails is refused from now on, each site of each block by itself.
        """
        model = self.model
        refused = dict(self.middles())
        for block in range(model.n_blocks):
            crossed = "cross_attention" in self.flow and hasattr(model.anatomy.blocks[block], "cross_attn")
            names = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
            before, attn, middle, mlp, after = (at.get(Site(name, block)) for name in names)
            sums: list[tuple[tuple[str, ...], Any, Any]] = []
            if middle is not None and ("resid_mid", block) not in refused:
                sums.append((("attn_out",), (before, attn), middle))
                if "per_layer_inputs" not in self.flow:  # more is added there
                    sums.append((("mlp_out",), (middle, mlp), after))
            else:
                sums.append((("attn_out", "mlp_out"), (before, attn, mlp), after))
            for sites, terms, total in sums:
                own = [name for name in sites if at.get(Site(name, block)) is not None]
                if not own or crossed:  # a cross-attention block scales what it writes by a gate
                    continue
                try:
                    found = sum(term for term in terms if term is not None)
                    self.same(found, total, " + ".join(own))  # type: ignore[arg-type]
                except AssertionError as error:
                    refused.update({(name, block): f"does not add up to the residual ({error})" for name in own})
        self.report.refused.update(refused)
        first = next(iter(refused), None)
        assert first is None, f"{first[0]} of block {first[1]} {refused[first]}" if first else ""

    def middles(self) -> Iterator[tuple[tuple[str, int], str]]:
        """Blocks that do not write another prompt's residual when they are given its ``resid_mid`` everywhere."""
        here, there = self.donors(self.short())
        sites = [site for site in all_sites(self.model.anatomy) if site.name == "resid_mid"]
        after = {site: Site("resid_post", site.block) for site in sites}
        if not sites or "per_layer_inputs" in self.flow:
            return
        donor, _ = self.read(there, [*sites, *after.values()])
        edits = [(site, lambda _, where: donor[where][0]) for site in sites]
        written, _ = self.read(here, list(after.values()), edits)
        for site in sites:
            try:
                self.same(written[after[site]][0], donor[after[site]][0], "resid_post")
            except AssertionError as error:
                yield (site.name, site.block or 0), f"does not decide what the block writes ({error})"

    def image_positions(self) -> None:
        """Other pixels change block 0's input at the image's positions and nowhere else."""
        model = self.model
        base = self.samples[0]
        encoded = model.encode(base)
        first = self.block_0_input(encoded)[0]
        changed = torch.zeros(len(first), dtype=torch.bool)
        image = list(encoded.layouts[0].part("image")) if "cross_attention" not in self.flow else []
        for seed in range(20, 22 if "discrete" not in self.flow else 44):  # few words: pictures agree in some by chance
            if image and bool(changed[image].all()):
                break
            other = model.encode(replace(base, images=(_picture(seed, _SIZES[0]),)))
            assert torch.equal(other.inputs["input_ids"], encoded.inputs["input_ids"]), "pixels changed the ids"
            changed |= (self.block_0_input(other)[0] != first).any(-1).cpu()
        if "cross_attention" in self.flow:
            assert not changed.any(), "a picture read by cross-attention entered the residual as tokens"
            early = self.first_change(encoded, model.encode(replace(base, images=(_picture(20, _SIZES[0]),))))
            crossing = min(i for i, block in enumerate(model.anatomy.blocks) if hasattr(block, "cross_attn"))
            assert early == crossing, f"pixels first change block {early}, cross-attention starts at block {crossing}"
            return
        assert image, "the prompt has no image positions"
        outside = sorted(set(torch.nonzero(changed)[:, 0].tolist()) - set(image))
        assert not outside, f"pixels change positions that are no image tokens: {outside[:5]}"
        same = [i for i in image if not changed[i]]
        learned = [i for i in same if not self.is_placeholder(first[i])]  # a learned vector ends each row of patches
        assert len(learned) == len(same), f"pixels do not change image positions {same[:5]}"
        assert len(same) < len(image), "pixels change nothing"

    def is_placeholder(self, value: torch.Tensor) -> bool:
        """True when the embedding of the placeholder itself stands where a feature should."""
        token = torch.tensor([self.model.anatomy.image_token_id], device=value.device)
        with torch.inference_mode():
            return bool(torch.allclose(self.model.anatomy.embed(token)[0], value))

    def first_change(self, one: Encoded, other: Encoded) -> int:
        """The first block whose output differs between two batches."""
        sites = [Site("resid_post", block) for block in range(self.model.n_blocks)]
        a, b = self.read(one, sites)[0], self.read(other, sites)[0]
        return next(site.block or 0 for site in sites if not torch.equal(a[site][0], b[site][0]))

    def zero_edit(self) -> None:
        """Adding zero everywhere changes no bit."""
        encoded = self.model.encode(self.samples[:1])
        sites = [site for site in all_sites(self.model.anatomy) if site.name in ("resid_pre", "resid_post", "attn_out")]
        sites = [site for site in sites if tap(site, self.model.anatomy).scale == 1.0]  # a factor rounds there and back
        few: dict[str, Any] = {"logits_to_keep": self.tail(encoded.length)}
        plain = self.forward(encoded, **few).logits
        edited = self.forward(encoded, [(site, lambda value, _: value + 0.0) for site in sites], **few).logits
        self.same(edited, plain, "zero edit", exact=True)

    def donor_edit(self) -> None:
        """The residual of a donor at every position of a block makes everything after it the donor's."""
        n = self.model.n_blocks
        here, there = self.donors(self.samples[0])
        sites = [Site("resid_post", block) for block in range(n)]
        store, output = self.read(there, sites)
        reached = False
        own = self.forward(here).logits
        assert float((own - output.logits)[own.abs() < 1e30].abs().max()) > 0, "donor and receiver give the same logits"
        for block in range(self.first_closed_block(), n):
            value = store[sites[block]][0]
            edited = self.forward(here, [(sites[block], lambda _, __, value=value: value)]).logits  # type: ignore[misc]
            self.same(self.last(here, edited), self.last(there, output.logits), f"donor at block {block}")
            reached = True
        assert reached, "no block could be tested"

    def donors(self, base: Sample) -> tuple[Encoded, Encoded]:
        """Two single-row batches of the same ids (pictures) or the same length (words)."""
        if base.images:
            return self.model.encode(base), self.model.encode(replace(base, images=(_picture(30, _SIZES[0]),)))
        here, there = self.model.encode(base), self.model.encode(base)
        ids = there.inputs["input_ids"].clone()
        ids[0, list(there.layouts[0].question)] = ids[0, list(there.layouts[0].question)].flip(0)
        there.inputs["input_ids"] = ids
        return here, there

    def first_closed_block(self) -> int:
        """The first block after which nothing but the residual carries what the donor differs in."""
        blocks = self.model.anatomy.blocks
        if "cross_attention" in self.flow:
            return max(i for i, block in enumerate(blocks) if hasattr(block, "cross_attn"))
        if "deepstack" in self.flow:
            indices = getattr(self.model.model.config.vision_config, "deepstack_visual_indexes", ())
            return min(len(indices), len(blocks) - 1)
        if "shared_kv" in self.flow:
            return len(blocks) - 1
        return 0

    def batching(self, side: str) -> None:
        """A batch of n equals n batches of one."""
        encoded = self.model.encode(self.samples, padding_side=side)
        together = self.model.logits(encoded)
        alone = torch.cat([self.model.logits(self.model.encode(sample)) for sample in self.samples])
        self.same(together, alone, f"logits of a batch padded {side}")
        site = Site("resid_post", self.model.n_blocks - 1)
        rows = self.last(encoded, self.read(encoded, [site])[0][site][0])
        for row, sample in enumerate(self.samples):
            one = self.model.encode(sample)
            self.same(rows[row], self.last(one, self.read(one, [site])[0][site][0])[0], f"row {row} padded {side}")

    def question(self) -> None:
        """The question's tokens decode to the words."""
        for side in ("left", "right"):
            encoded = self.model.encode(self.samples, padding_side=side)
            for row, (layout, sample) in enumerate(zip(encoded.layouts, self.samples, strict=True)):
                shown = self.model.tokenizer.decode(encoded.inputs["input_ids"][row][list(layout.question)])
                assert shown.split() == sample.text.split(), f"question tokens read {shown!r}, words {sample.text!r}"

    def pictures(self) -> None:
        """Two pictures have positions of their own; rows without pictures run and hold no image token."""
        model = self.model
        bare = [replace(sample, images=()) for sample in self.samples]
        if "needs_image" in self.flow:
            try:
                model.encode(bare)
            except DataError:
                return
            raise AssertionError("a row without a picture was taken by a model that needs one")
        plain = model.encode(bare)
        assert not any(layout.images for layout in plain.layouts), "a row without pictures holds image positions"
        assert bool(torch.isfinite(self.last(plain, self.forward(plain).logits)).all()), "logits are not finite"
        if not model.anatomy.family.several_images or "cross_attention" in self.flow:
            return
        two = replace(self.samples[0], images=(_picture(1, _SIZES[1]), _picture(2, _SIZES[0])))
        encoded = model.encode(two)
        assert len(encoded.layouts[0].images) == 2, f"two pictures gave {len(encoded.layouts[0].images)} image spans"
        first = self.block_0_input(encoded)[0]
        for which, size in enumerate((_SIZES[1], _SIZES[0])):
            images = list(two.images)
            images[which] = _picture(40 + which, size)
            other = self.block_0_input(model.encode(replace(two, images=tuple(images))))[0]
            changed = set(torch.nonzero((other != first).any(-1))[:, 0].tolist())
            inside = set(encoded.layouts[0].images[which])
            assert changed and changed <= inside, f"picture {which} changes positions outside its own"

    def no_pixels(self) -> None:
        """Image tokens without pixels raise."""
        encoded = self.model.encode(self.samples[:1])
        bare = {key: value for key, value in encoded.inputs.items() if not key.startswith(_PIXELS)}
        assert len(bare) < len(encoded.inputs), f"no pixels among {sorted(encoded.inputs)}"
        try:
            self.model.logits(Encoded(bare, encoded.layouts, encoded.samples, encoded.prompts))
        except ImageLostError:
            return
        raise AssertionError("the model ran with image tokens and without pixels")


class _StopError(Exception):
    """Ends a forward early, from inside a hook."""


def _picture(seed: int, size: tuple[int, int]) -> ImageObject:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return ImageObject(Image.fromarray(pixels))


def _hidden_states(output: Any) -> Any:
    inner = getattr(output, "language_model_outputs", None)
    return getattr(inner if inner is not None else output, "hidden_states", None)


def check_anatomy(model: LoadedModel, quick: bool = False) -> CheckReport:
    """Run the battery on a model; see the module's docstring.

    Args:
        model: any model; a small one, unless ``quick``.
        quick: only what a few short forwards of one row can show.
    """
    battery = _Battery(model)
    sample = battery.samples[0]
    try:
        model.encode(sample)
    except LensError as error:
        battery.report.failed["encoding"] = str(error)[:300]
        return battery.report  # every other check encodes too
    if sample.images:
        battery.run("plain, with a picture", lambda: battery.plain(sample))
    if not (sample.images and "needs_image" in battery.flow):
        battery.run("plain, without a picture", lambda: battery.plain(replace(sample, images=())))
    battery.residuals()
    battery.run("a zero edit", battery.zero_edit)
    if model.takes_images:
        battery.run("image positions", battery.image_positions)
        battery.run("no pixels", battery.no_pixels)
    if quick:
        return battery.report
    battery.run("a donor edit", battery.donor_edit)
    for side in ("left", "right"):
        battery.run(f"batching, padded {side}", lambda side=side: battery.batching(side))  # type: ignore[misc]
    battery.run("the question", battery.question)
    if model.takes_images:
        battery.run("several and no pictures", battery.pictures)
    return battery.report


ROWS_ON_LOAD = {True: 12, False: 8}
"""Rows of a prompt that :func:`quick_check` runs on a model that takes pictures, and on one that does not."""


def quick_check(model: LoadedModel) -> None:
    """The battery's quick part on a freshly loaded model; raises :class:`ModelError` with all that failed.

    Where blocks do not add up, the sites that are something else are refused and the rest of the model is not: its
    residual stream was held against a plain forward.
    """
    report = check_anatomy(model, quick=True)
    if report.refused:
        del report.failed["blocks add up"]
        model.anatomy.refused.update(report.refused)
        names = sorted({name for name, _ in report.refused})
        blocks = len({block for _, block in report.refused})
        model.warnings += (f"{' and '.join(names)} cannot be read in {blocks} block{'s' * (blocks > 1)}",)
    if not report.ok:
        broken = [name for name, weight in model.model.named_parameters() if not bool(torch.isfinite(weight).all())]
        if broken:
            raise ModelError(
                f"model {model.name!r} holds NaN or infinity in {len(broken)} weight(s), first {broken[0]!r}; "
                "the checkpoint is damaged, or its dtype too narrow"
            )
        reasons = "; ".join(f"{name} ({reason})" for name, reason in report.failed.items())
        raise ModelError(
            f"model {model.name!r} of family {report.family!r} fails its checks: {reasons}; nothing measured on it "
            "could be trusted (check=False loads it anyway)"
        )

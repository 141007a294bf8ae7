"""Names of the places that can be read and written, and the module and side each one is.

A :class:`Site` is a name and, for block sites, a block.  It prints as TransformerLens spells it
and parses from that spelling, from the bare name (all blocks), from a Hugging Face dotted path,
and from globs over either spelling; negative blocks count from the end::

    resid_post                     the residual stream after every block
    blocks.5.hook_resid_post       ... after block 5
    blocks.-1.attn.hook_z          per-head attention output of the last block, before o_proj
    blocks.*.hook_mlp_out          a glob
    model.language_model.layers.3  a module's output, as resid_post of block 3

A :class:`Tap` says how a site is reached on a given model: which module, its input or its output,
and how many heads the last axis holds.  Reading and writing use the same tap, so an edit stands
exactly where a capture reads.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..errors import SiteError, near_matches
from ..models.anatomy import Anatomy
from ..models.families import submodule

# canonical name -> (TransformerLens spelling inside a block, meaning)
BLOCK_SITES: dict[str, str] = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "pattern": "attn.hook_pattern",
}
MASK_SITES: dict[str, str] = {"attn_mask": "attn.mask"}
"""Written by edits only: what each query may look at, bool ``[batch, 1, query, key]``."""
VISION_SITES: dict[str, str] = {"vision_resid_post": "hook_resid_post"}
WHOLE_SITES: dict[str, str] = {
    "embed": "hook_embed",
    "final_norm": "ln_final.hook_out",
    "image_features": "hook_image_features",
    "logits": "logits",
}
_BLOCK_SPELLING = re.compile(r"^(?P<vision>vision\.)?blocks\.(?P<block>-?\d+)\.(?P<rest>.+)$")


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A place in the network: ``Site("resid_post", 5)``, printed ``blocks.5.hook_resid_post``.

    Sites without a block (``embed``, ``final_norm``, ``image_features``, ``logits``) have ``block=None``.
    """

    name: str
    block: int | None = None

    def __post_init__(self) -> None:
        known = {**BLOCK_SITES, **MASK_SITES, **VISION_SITES, **WHOLE_SITES}
        if self.name not in known:
            raise SiteError(f"no site {self.name!r}; known sites: {', '.join(known)}{near_matches(self.name, known)}")
        if (self.name in WHOLE_SITES) != (self.block is None):
            need = "no block" if self.name in WHOLE_SITES else "a block"
            raise SiteError(f"site {self.name!r} takes {need}")

    def __str__(self) -> str:
        if self.name in WHOLE_SITES:
            return WHOLE_SITES[self.name]
        prefix = "vision." if self.name in VISION_SITES else ""
        return f"{prefix}blocks.{self.block}.{ {**BLOCK_SITES, **MASK_SITES, **VISION_SITES}[self.name] }"

    def __repr__(self) -> str:
        return f"Site({self.name!r}{'' if self.block is None else f', {self.block}'})"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Parse TransformerLens' spelling of a single site."""
        for name, spelling in WHOLE_SITES.items():
            if text in (name, spelling):
                return cls(name)
        match = _BLOCK_SPELLING.match(text)
        if match:
            table = VISION_SITES if match["vision"] else {**BLOCK_SITES, **MASK_SITES}
            for name, spelling in table.items():
                if match["rest"] in (spelling, name):
                    return cls(name, int(match["block"]))
        raise SiteError(
            f"site {text!r} is not understood; write e.g. resid_post, blocks.5.hook_resid_post or blocks.*.attn.hook_z"
            f"{near_matches(text, [*BLOCK_SITES, *VISION_SITES, *WHOLE_SITES])}"
        )


def all_sites(anatomy: Anatomy) -> list[Site]:
    """Every site that this model has, in network order."""
    found: list[Site] = []
    if anatomy.vision_blocks:
        found += [Site("vision_resid_post", block) for block in range(len(anatomy.vision_blocks))]
    if anatomy.projector is not None:
        found.append(Site("image_features"))
    found.append(Site("embed"))
    for block in range(anatomy.n_blocks):
        for name in BLOCK_SITES:
            site = Site(name, block)
            try:
                tap(site, anatomy)
            except SiteError:
                continue
            found.append(site)
    return [*found, Site("final_norm"), Site("logits")]


def expand_sites(specs: str | Site | Iterable[str | Site], anatomy: Anatomy) -> list[Site]:
    """Turn specifications into the sites they mean on a model, in order, each once.

    Raises :class:`SiteError` for an unknown site, a block that does not exist, or a glob that
    matches nothing.
    """
    wanted: Sequence[str | Site]
    wanted = [specs] if isinstance(specs, (str, Site)) else list(specs)
    found: dict[Site, None] = {}
    for spec in wanted:
        for site in _expand_one(spec, anatomy):
            found[site] = None
    if not found:
        raise SiteError("no sites were asked for")
    return list(found)


def _expand_one(spec: str | Site, anatomy: Anatomy) -> list[Site]:
    if isinstance(spec, str):
        if spec in BLOCK_SITES:
            return [site for site in all_sites(anatomy) if site.name == spec] or [_missing(spec, anatomy)]
        if spec in VISION_SITES:
            return [site for site in all_sites(anatomy) if site.name == spec] or [_missing(spec, anatomy)]
        if any(mark in spec for mark in "*?"):
            every = all_sites(anatomy)
            matched = [s for s in every if fnmatch.fnmatchcase(str(s), spec) or fnmatch.fnmatchcase(s.name, spec)]
            if not matched:
                raise SiteError(f"site glob {spec!r} matches none of the {len(every)} sites of this model")
            return matched
        dotted = _from_dotted_path(spec, anatomy)
        spec = dotted if dotted is not None else Site.parse(spec)
    if spec.block is None:
        return [spec]
    count = len(anatomy.vision_blocks) if spec.name in VISION_SITES else anatomy.n_blocks
    block = spec.block + count if spec.block < 0 else spec.block
    if not 0 <= block < count:
        raise SiteError(f"site {spec}: block {spec.block} does not exist; blocks are 0 to {count - 1}")
    return [Site(spec.name, block)]


def _missing(name: str, anatomy: Anatomy) -> Site:
    raise SiteError(f"family {anatomy.family.model_type!r} has no site {name!r}")


def _from_dotted_path(path: str, anatomy: Anatomy) -> Site | None:
    """The site whose tap is the output of the module at a Hugging Face dotted path."""
    row = anatomy.family
    root = f"{row.decoder}.{row.blocks}." if row.decoder else f"{row.blocks}."
    if path.startswith(root):
        number, _, rest = path[len(root) :].partition(".")
        names = {"": "resid_post", row.attn_post_norm or row.attn: "attn_out", row.mlp_post_norm or row.mlp: "mlp_out"}
        for letter in "qkv":
            names[f"{row.attn}.{getattr(row, letter)}"] = letter
        if number.lstrip("-").isdigit() and rest in names:
            return Site(names[rest], int(number))
    return None


@dataclass(frozen=True)
class Tap:
    """How a site is reached: ``module``, its ``input`` or ``output``, and the heads in its last axis.

    ``flat_in`` is the block whose input tells batch and length, where the module sees rows without them.
    ``scale`` is the factor that the block applies to the module's output before it adds it to the residual.
    ``whole`` is the block that keeps a second reference to the value, past the module: what is written goes there too.
    """

    module: nn.Module
    side: Literal["input", "output", "pattern", "mask"]
    heads: int | None = None
    head_dim: int | None = None
    flat_in: nn.Module | None = None
    scale: float = 1.0
    whole: nn.Module | None = None


def tap(site: Site, anatomy: Anatomy) -> Tap:
    """The tap of a site on a model; raises :class:`SiteError` where the family has no such place."""
    row = anatomy.family
    name = site.name
    if name == "embed":
        return Tap(anatomy.blocks[0], "input")  # after image features were merged: what block 0 really reads
    if name == "final_norm":
        return Tap(anatomy.norm, "output")
    if name == "logits":
        return Tap(anatomy.head, "output")
    if name == "image_features":
        if anatomy.projector is None:
            raise SiteError(f"family {row.model_type!r} has no projector that is a module of its own")
        return Tap(anatomy.projector, "output")
    assert site.block is not None
    if name == "vision_resid_post":
        return Tap(anatomy.vision_blocks[site.block], "output")
    block = anatomy.blocks[site.block]
    if (name, site.block) in anatomy.refused:
        raise SiteError(
            f"family {row.model_type!r}: {name} of block {site.block} was not found: what stands in its place "
            f"{anatomy.refused[name, site.block]}"
        )
    if name == "resid_pre":
        return Tap(block, "input")
    if name == "resid_post":
        return Tap(block, "output")
    attn, mlp = submodule(block, row.attn), submodule(block, row.mlp or None)
    other = submodule(block, row.other_attn)  # what stands in attention's place in some blocks
    flat = block if "flat" in row.flow else None
    if name == "resid_mid":
        mid = submodule(block, row.mid_norm)
        if mid is None:
            raise SiteError(f"family {row.model_type!r}: block {site.block} has no resid_mid")
        # the block adds the MLP's output to what it had before this norm, so a new residual must reach that too
        return Tap(mid, "input", flat_in=flat, whole=block)
    if name == "attn_out":
        module = submodule(block, row.attn_post_norm) or attn or other
    elif name == "mlp_out":
        module = submodule(block, row.mlp_post_norm) or mlp
    elif name in ("pattern", "attn_mask"):
        if attn is None and other is not None and hasattr(other, "q_proj"):
            attn = other  # cross-attention: its keys are the picture's
        if attn is None:
            raise SiteError(f"family {row.model_type!r}: block {site.block} has no attention module")
        return Tap(attn, "pattern" if name == "pattern" else "mask")
    else:
        path = {"q": row.q, "k": row.k, "v": row.v, "z": row.o}[name]
        module = submodule(attn, path) if attn is not None and path else None
        if module is not None:
            heads = anatomy.n_heads if name in "qz" else anatomy.n_kv_heads
            width = int(getattr(attn, "head_dim", None) or anatomy.head_dim)
            wide = getattr(module, "in_features" if name == "z" else "out_features", heads * width)
            if wide != heads * width:
                raise SiteError(
                    f"family {row.model_type!r}: block {site.block} has no site {name!r}: its projection is {wide} "
                    f"wide, {heads} heads of {width} would be {heads * width}"
                )
            return Tap(module, "input" if name == "z" else "output", heads, width)
    if module is None:
        raise SiteError(f"family {row.model_type!r}: block {site.block} has no site {name!r}")
    scale = float(getattr(block, "residual_multiplier", 1.0))  # Granite's, between a block's halves and the residual
    return Tap(module, "output", flat_in=flat if name == "mlp_out" else None, scale=scale)

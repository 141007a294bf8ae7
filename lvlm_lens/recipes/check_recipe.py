"""One battery of checks for every recipe: its card is whole, its result keeps the contract, its files are there.

``check_recipe(recipe, found, folder)`` raises :class:`AssertionError` naming the rule that was broken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.registry import card
from .cost import reference_shape
from .recipe import CLAIM_STATES, Recipe


def check_card(recipe: Recipe) -> None:
    """What a recipe says of the paper, before anything is run."""
    name = recipe.name
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), f"{name}: not a word for the command line"
    assert re.fullmatch(r"arXiv \d{4}\.\d{5}", recipe.source), f"{name}: no arXiv identifier"
    assert recipe.claim.endswith(".") and recipe.title and recipe.setting and recipe.stand_in, f"{name}: unfinished"
    assert recipe.approximations and recipe.unknown, f"{name}: says nothing of what is approximated or not known"
    for number in recipe.published:
        assert math.isfinite(number.value) and number.source and number.model and number.unit, f"{name}: {number}"
    keys = [(number.what, number.model) for number in recipe.published]
    assert len(set(keys)) == len(keys), f"{name}: a published number stands twice"
    assert recipe.sets, f"{name}: no data set"
    for use in recipe.sets:
        assert use.subset is None or use.subset in card(use.name).subsets, f"{name}: no subset {use.subset}"
    for one in recipe.passes(reference_shape()):
        assert one.items > 0 and one.times > 0 and 0 < one.share <= 1, f"{name}: {one}"
    cost = recipe.cost()
    assert cost["forwards"] > 0 and cost["flops"] > 0 and cost["hours"] > 0, f"{name}: costs nothing"


def check_recipe(recipe: Recipe, found: Mapping[str, Any], folder: Path) -> None:
    """The result of a run and the files beside it.

    Args:
        recipe: the recipe.
        found: its result, as ``result.json`` holds it.
        folder: the recipe's own folder.
    """
    name = recipe.name
    check_card(recipe)
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == found, f"{name}: result.json differs"
    for kind in ("claim", "numbers"):
        verdict = found["verdict"][kind]
        assert verdict["state"] in CLAIM_STATES and verdict["reason"], f"{name}: {kind} verdict without a reason"
    state = found["verdict"]["claim"]["state"]
    effects = found["effects"]
    holds = bool(effects) and all(e["holds"] for e in effects) and not found["cut_short"]
    assert (state == "reproduced") == holds, f"{name}: verdict, effects"
    for effect in effects:
        if effect["low"] is not None:
            assert effect["low"] <= effect["value"] <= effect["high"], f"{name}: {effect['what']} outside its interval"
    measured = [row for row in found["table"] if row["source"] == "this run"]
    assert measured, f"{name}: nothing was measured"
    for row in measured:
        assert row["n"] > 0 and row["unit"], f"{name}: {row['quantity']} of no items"
        if row["low"] is not None and row["value"] is not None:
            slack = 1e-9 * max(1.0, abs(row["value"]))
            assert row["low"] - slack <= row["value"] <= row["high"] + slack, f"{name}: {row['quantity']} outside"
    told = {(row["quantity"], row["where"]): row["value"] for row in found["table"] if row["n"] is None}
    assert told == {(p.what, p.model): p.value for p in recipe.published}, f"{name}: published numbers differ"
    if found["data"]["stand_in"]:
        assert found["verdict"]["numbers"]["state"] == "not comparable", f"{name}: a stand-in compared with numbers"
        assert "stand-in" in found["verdict"]["numbers"]["reason"] or not recipe.published, f"{name}: stand-in unsaid"
    assert json.loads((folder / "table.json").read_text(encoding="utf-8")) == found["table"], f"{name}: table.json"
    page = (folder / "table.md").read_text(encoding="utf-8")
    assert recipe.claim.split("<")[0] in page and f"claim {state}" in page, f"{name}: table.md"
    for file in found["figures"]:
        assert (folder / file).stat().st_size > 0, f"{name}: {file} is empty"
    kinds = {Path(file).suffix for file in found["figures"]}
    assert kinds == {".png", ".svg"}, f"{name}: figures as {kinds}"
    assert found["provenance"]["model"]["weights_hash"] and found["provenance"]["packages"], f"{name}: no provenance"

"""MM-SafetyBench: one question, three pictures of its key phrase (arXiv 2311.17600) [third party].

``data/processed_questions/{NN-Scenario}.json`` is an object by id; pictures are
``data/imgs/{NN-Scenario}/{SD,SD_TYPO,TYPO}/{id}.jpg``.  SD goes with ``Rephrased Question(SD)``, SD_TYPO and TYPO with
``Rephrased Question``, text alone with ``Changed Question``.  Scenario names are spelt as published
(``01-Illegal_Activitiy``, ``09-Privacy_Violence``).  The hub's Parquet form, ``.../{Scenario}/{variant}*.parquet`` with
``id, question, image``, is read where the questions folder is absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, optional, value, words
from .dataset import Dataset
from .reading import json_place, read_json, read_table
from .sample import Sample

SCENARIOS = (
    "01-Illegal_Activitiy",
    "02-HateSpeech",
    "03-Malware_Generation",
    "04-Physical_Harm",
    "05-EconomicHarm",
    "06-Fraud",
    "07-Sex",
    "08-Political_Lobbying",
    "09-Privacy_Violence",
    "10-Legal_Opinion",
    "11-Financial_Advice",
    "12-Health_Consultation",
    "13-Gov_Decision",
)
OFTEN_LEFT_OUT = ("08", "10", "11", "12", "13")
VARIANTS = {"SD": "Rephrased Question(SD)", "SD_TYPO": "Rephrased Question", "TYPO": "Rephrased Question"}


def _tiny(root: Path) -> dict[str, set[str]]:
    file = root / "TinyVersion_ID_List.json"
    if not file.is_file():
        raise DataError(f"subset 'tiny' needs TinyVersion_ID_List.json under {root}")
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        return {entry["Scenario"]: {str(name) for name in entry["Sampled_ID_List"]} for entry in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file.name} is not a list of Scenario and Sampled_ID_List ({error!r})") from error


def _sample(
    scenario: str, name: str, variant: str, text: str, row: dict[str, Any], pictures: tuple[Any, ...]
) -> Sample:
    return Sample(
        id=f"{scenario}/{name}/{variant}",
        text=text,
        images=pictures,
        split="test",
        group=f"{scenario}/{name}",
        text_only=optional(row, "Changed Question") or optional(row, "Question"),
        caption=optional(row, "Key Phrase"),
        label_text="unsafe" if variant == "text" else "unknown",
        label_joint="unsafe",
        category=scenario,
        attack=variant,
        meta={"phrase_type": optional(row, "Phrase Type"), "often_left_out": scenario[:2] in OFTEN_LEFT_OUT},
    )


def _from_repository(out: Collector, wanted: tuple[str, ...], tiny: dict[str, set[str]] | None) -> Iterator[Path]:
    base = out.root / "data" if (out.root / "data" / "processed_questions").is_dir() else out.root
    images = base.relative_to(out.root) / "imgs"
    for file in sorted((base / "processed_questions").glob("*.json")):
        scenario = file.stem
        yield file
        for place, row in read_json(file):
            name = str(place[-1])
            if tiny is not None and name not in tiny.get(scenario, ()):
                continue
            for variant in wanted:
                with out.record(f"{json_place(place)}, {variant}", file):
                    if variant == "text":
                        out.add(_sample(scenario, name, variant, words(row, "Changed Question"), row, ()))
                        continue
                    text = words(row, VARIANTS[variant])
                    picture = out.image(images / scenario / variant / f"{name}.jpg")
                    out.add(_sample(scenario, name, variant, text, row, (picture,)))


def _from_hub(out: Collector, wanted: tuple[str, ...], tiny: dict[str, set[str]] | None) -> Iterator[Path]:
    full = {scenario.split("-", 1)[1]: scenario for scenario in SCENARIOS}
    for file in sorted(out.root.rglob("*.parquet")):
        scenario = next((full[part] for part in file.parts if part in full), None)
        match = re.match(r"(SD_TYPO|SD|TYPO|Text_only)\b", file.stem)
        if scenario is None or match is None:
            continue
        yield file
        variant = match.group(1).replace("Text_only", "text")
        if variant not in wanted:
            continue
        for place, row in read_table(file):
            with out.record(place, file):
                name = words(row, "id")
                if tiny is not None and name not in tiny.get(scenario, ()):
                    continue
                pictures = () if variant == "text" else (value(row, "image"),)
                out.add(_sample(scenario, name, variant, words(row, "question"), {}, pictures), place)


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """The three picture variants, or subset ``SD``, ``SD_TYPO``, ``TYPO``, ``text``, ``tiny`` (by the id list)."""
    out = Collector("mm_safetybench", root, strict)
    wanted = (subset,) if subset in (*VARIANTS, "text") else tuple(VARIANTS)
    tiny = _tiny(root) if subset == "tiny" else None
    repository = any((root / folder / "processed_questions").is_dir() for folder in ("", "data"))
    files = list((_from_repository if repository else _from_hub)(out, wanted, tiny))
    if not files:
        raise DataError(f"data set 'mm_safetybench': neither processed_questions/*.json nor Parquet files under {root}")
    for unknown in sorted({file.stem for file in files if repository} - set(SCENARIOS)):
        out.notes.append(f"scenario {unknown!r} is none of the 13 published names")
    return out.dataset()


CARD = register(
    DatasetCard(
        name="mm_safetybench",
        title="MM-SafetyBench",
        citation="Liu et al., MM-SafetyBench, ECCV 2024, arXiv 2311.17600",
        licence="CC BY-NC 4.0",
        homepage="https://github.com/isXinLiu/MM-SafetyBench",
        download="github.com/isXinLiu/MM-SafetyBench with the linked picture archive in data/imgs, "
        "or hub data set PKU-Alignment/MM-SafetyBench",
        files=(
            "data/processed_questions/|processed_questions/|data/*/SD_TYPO*.parquet",
            "data/imgs/|imgs/|data/*/SD_TYPO*.parquet",
        ),
        counts={"samples": 5040, "groups": 1680},
        loader=load,
        subsets=("SD", "SD_TYPO", "TYPO", "text", "tiny"),
        source="third party",
        aliases=("mm-safetybench", "mmsafetybench"),
        note="every question is labelled unsafe as published; many papers leave out scenarios 08 and 10 to 13",
    )
)

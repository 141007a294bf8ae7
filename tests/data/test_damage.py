"""Damaged records of every format: a problem with file, record and reason, or a clear error; never a crash."""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from lvlm_lens.data.reading import text_encoding
from lvlm_lens.data.registry import load_dataset
from lvlm_lens.errors import DataError

FIXTURES = Path(__file__).parents[1] / "fixtures"
JUNK = [None, "", 7, True, [], ["x"], {}, {"x": 1}, "../x.png", "a\0b", "n" * 5000]
JSON_SETS = (
    "siuo mssbench ssui rsbench msr_align rational visu rtvlm mm_safetybench vlguard vlsafe mossbench holisafe mmvet "
    "scienceqa llava_bench"
)
CSV_SETS = "figstep jailbreakv xstest advbench harmbench strongreject"


def mutations(value):
    """The value with one record or field replaced by junk or left out, at every place."""
    if isinstance(value, dict):
        for key in value:
            yield {other: item for other, item in value.items() if other != key}
            for changed in [*JUNK, *mutations(value[key])]:
                yield {**value, key: changed}
    elif isinstance(value, list):
        for index in range(min(len(value), 2)):
            for changed in [*JUNK, *mutations(value[index])]:
                yield [*value[:index], changed, *value[index + 1 :]]


def loads_or_says_why(name: str, root: Path, where: str) -> None:
    for strict in (False, True):
        try:
            data = load_dataset(name, root=root, strict=strict)
        except DataError as error:
            assert name in str(error) or "file" in str(error), where
            continue
        assert all(problem.reason and problem.record for problem in data.problems), where


@pytest.mark.parametrize("name", JSON_SETS.split())
def test_json_formats(name, tmp_path):
    root = tmp_path / name
    shutil.copytree(FIXTURES / name, root)
    files = sorted(path for path in root.rglob("*.json*") if "mcqa" not in path.name)[:3]
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines = file.suffix == ".jsonl"
        value = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
        every = list(mutations(copy.deepcopy(value)))
        for number, changed in enumerate(every[:: max(1, len(every) // 120)]):
            rows = changed if lines else None
            file.write_text("\n".join(map(json.dumps, rows)) + "\n" if lines else json.dumps(changed), encoding="utf-8")
            loads_or_says_why(name, root, f"{file.name} mutation {number}")
        for cut in range(1, len(text), max(1, len(text) // 15)):
            file.write_text(text[:cut], encoding="utf-8")
            loads_or_says_why(name, root, f"{file.name} cut at {cut}")
        file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", CSV_SETS.split())
def test_csv_formats(name, tmp_path):
    root = tmp_path / name
    shutil.copytree(FIXTURES / name, root)
    file = sorted(root.rglob("*.csv"))[-1]
    text = file.read_text(encoding=text_encoding(file))
    rows = list(csv.reader(io.StringIO(text)))
    for row in range(len(rows)):
        for column in range(len(rows[0])):
            for junk in ("", "../x.png", "nonsense", '"', "x" * 200_000):
                changed = copy.deepcopy(rows)
                changed[row][column] = junk
                with file.open("w", newline="", encoding="utf-8") as stream:
                    csv.writer(stream).writerows(changed)
                loads_or_says_why(name, root, f"row {row} column {column}")
    for cut in range(1, len(text), max(1, len(text) // 15)):
        file.write_text(text[:cut], encoding="utf-8")
        loads_or_says_why(name, root, f"cut at {cut}")


def test_a_renamed_folder_is_reported_for_each_record(tmp_path):
    shutil.copytree(FIXTURES / "siuo", tmp_path / "siuo")
    (tmp_path / "siuo" / "images").rename(tmp_path / "siuo" / "pictures")
    with pytest.raises(DataError, match=r"no usable record.*S-01.png.*is not there") as caught:
        load_dataset("siuo", root=tmp_path / "siuo")
    assert "and 4 more" in str(caught.value)


def test_strict_says_it_once(tmp_path):
    with pytest.raises(DataError) as caught:
        load_dataset("mssbench", root=FIXTURES / "mssbench", strict=True)
    assert str(caught.value).count("strict") == 1
    assert "chat record 1, unsafe picture" in str(caught.value)


def test_tables_of_any_origin(tmp_path):
    (tmp_path / "ok.png").write_bytes((FIXTURES / "tables" / "ok.png").read_bytes())
    good = {
        "id": "1", "text": "hello", "label": 1, "image": "ok.png", "group": "g", "split": "train", "category": "c",
        "counterfactual": "2", "text_only": "hello", "label_image": "safe", "label_text": "safe",
    }  # fmt: skip
    for column in good:
        for junk in [*JUNK, {"bytes": b"".hex(), "path": None}, 1e400, -3, {"path": "nowhere.png"}]:
            file = tmp_path / "t.json"
            file.write_text(json.dumps([{**good, column: junk}, {**good, "id": "2", "label": 0}]), encoding="utf-8")
            data = load_dataset(file)
            assert len(data) + len(data.problems) == 2, (column, junk)
            for sample in data:
                for picture in sample.images:
                    with contextlib.suppress(DataError):
                        picture.load()


def test_mmsafeaware_cut_anywhere(tmp_path):
    root = tmp_path / "mmsafeaware"
    shutil.copytree(FIXTURES / "mmsafeaware", root)
    file = root / "data" / "prompt.txt"
    text = file.read_text(encoding="utf-8")
    for cut in range(0, len(text), 17):
        file.write_text(text[:cut], encoding="utf-8")
        loads_or_says_why("mmsafeaware", root, f"cut at {cut}")
        file.write_text(text[cut:], encoding="utf-8")
        loads_or_says_why("mmsafeaware", root, f"begun at {cut}")

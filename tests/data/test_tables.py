"""Tables of any origin by their column names, and what bad input gets."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from lvlm_lens.data import Dataset
from lvlm_lens.data.limits import limited
from lvlm_lens.data.reading import Broken, read_csv, read_json, read_table, text_encoding
from lvlm_lens.data.registry import load_dataset
from lvlm_lens.data.tables import table_in
from lvlm_lens.errors import DataError, UsageError

TABLES = Path(__file__).parents[1] / "fixtures" / "tables"
COLUMNS = {"text": "words", "id": "name", "label": "bad", "image": "pic"}


def test_csv_with_bom_newlines_and_bad_rows():
    data = load_dataset(TABLES / "bom.csv", **COLUMNS)
    assert [sample.id for sample in data] == ["a", "b", "g"]
    assert data["a"].text == "first,\nover two lines"
    assert [sample.quadrant for sample in data] == ["??U", "??S", "NSS"]
    assert data["a"].group == data["b"].group  # one picture
    assert data["g"].group == "g"
    found = {problem.record: (problem.field, problem.reason) for problem in data.problems}
    assert found["line 5"] == ("words", "the record has no text")
    assert found["line 6"][0] == "pic"
    assert "'gone.png' is not there" in found["line 6"][1]
    assert "leaves the data root" in found["line 7"][1]
    assert found["line 8"][0] == "bad"
    assert "label_map" in found["line 8"][1]
    assert "duplicate id 'a', first seen at line 2" in found["line 9"][1]
    assert {problem.file for problem in data.problems} == {"bom.csv"}
    mapped = load_dataset(TABLES / "bom.csv", label_map={"perhaps": "unsafe"}, **COLUMNS)
    assert mapped["f"].label_joint == "unsafe"


def test_strict_stops_with_file_record_and_field():
    with pytest.raises(DataError, match=r"bom.csv, line 5, words: the record has no text \(strict"):
        load_dataset(TABLES / "bom.csv", strict=True, **COLUMNS)


def test_an_image_outside_the_root_is_refused_also_through_a_link(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes((TABLES / "ok.png").read_bytes())
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "root" / "t.csv").write_text(
        f"id,text,image\n1,one,link.png\n2,two,{tmp_path / 'secret.png'}\n3,three,\n", encoding="utf-8"
    )
    data = load_dataset(tmp_path / "root" / "t.csv")
    assert [sample.id for sample in data] == ["3"]
    assert "leaves the data root" in data.problems[0].reason
    assert "is absolute" in data.problems[1].reason


def test_an_image_that_is_no_image_raises_when_it_is_decoded(tmp_path):
    (tmp_path / "t.csv").write_text("id,text,image\n1,one,not_an_image.png\n", encoding="utf-8")
    sample = load_dataset(tmp_path / "t.csv", root=TABLES)[0]
    with pytest.raises(DataError, match=r"not_an_image.png.*not a readable image"):
        sample.image.load()


def test_encodings():
    assert text_encoding(TABLES / "bom.csv") == "utf-8-sig"
    assert text_encoding(TABLES / "latin1.csv") == "cp1252"
    data = load_dataset(TABLES / "latin1.csv")
    assert [sample.text for sample in data] == ["Crème brûlée?", "It’s naïve"]
    assert [sample.label_joint for sample in data] == ["safe", "unsafe"]


def test_utf8_cut_inside_a_character_is_still_utf8(tmp_path):
    (tmp_path / "cut.csv").write_bytes("id,text\n1,naïve\n2,façade".encode()[:-4])
    assert text_encoding(tmp_path / "cut.csv") == "utf-8"
    assert load_dataset(tmp_path / "cut.csv")["1"].text == "naïve"


def test_utf16(tmp_path):
    (tmp_path / "wide.csv").write_bytes("id,text\n1,naïve\n".encode("utf-16"))
    assert load_dataset(tmp_path / "wide.csv")[0].text == "naïve"


def test_separators_and_ragged_rows():
    assert [sample.text for sample in load_dataset(TABLES / "semicolon.csv")] == ["one, two", "three"]
    data = load_dataset(TABLES / "ragged.csv")
    assert [(sample.id, sample.label_joint) for sample in data] == [("1", "safe"), ("3", "unknown")]
    assert "4 fields, but the header names 3" in data.problems[0].reason


@pytest.mark.parametrize(
    ("file", "message"),
    [("empty.csv", "is empty"), ("header_only.csv", "no records"), ("absent.csv", "no file")],
)
def test_files_without_records(file, message):
    with pytest.raises(DataError, match=message):
        load_dataset(TABLES / file)


def test_missing_columns_name_those_that_exist():
    with pytest.raises(DataError, match=r"no column 'worte'.*columns are name, words, bad, pic.*did you mean words"):
        load_dataset(TABLES / "bom.csv", text="worte")
    with pytest.raises(DataError, match="which column holds the text"):
        load_dataset(TABLES / "bom.csv")
    with pytest.raises(UsageError, match="did you mean label"):
        load_dataset(TABLES / "bom.csv", text="words", lable="bad")


def test_jsonl_with_broken_lines():
    data = load_dataset(TABLES / "lines.jsonl")
    assert [(sample.id, sample.label_joint) for sample in data] == [("1", "safe"), ("3", "unsafe")]
    assert [problem.record for problem in data.problems] == ["line 3", "line 4"]
    assert "column 'prompt' taken as text" in data.notes


def test_truncated_json():
    data = load_dataset(TABLES / "truncated.json")
    assert [sample.id for sample in data] == ["1", "2"]
    assert data.problems[0].record == "after record 1"
    with pytest.raises(DataError, match="truncated"):
        load_dataset(TABLES / "truncated.json", strict=True)


@pytest.mark.parametrize("value", [[], {}, [{"a": [1, {"b": "x,]}"}]}], {"a": [1, 2], "b": {"c": [3]}, "d": "e"}])
@pytest.mark.parametrize("indent", [None, 1])
def test_the_json_stream_gives_what_json_gives(tmp_path, value, indent):
    (tmp_path / "x.json").write_text(json.dumps(value, indent=indent))
    rebuilt: dict | list = [] if isinstance(value, list) else {key: [] for key in value}
    for place, found in read_json(tmp_path / "x.json"):
        if isinstance(rebuilt, list):
            rebuilt.append(found)
        elif len(place) == 2:
            rebuilt[place[0]].append(found)
        else:
            rebuilt[place[0]] = found
    assert rebuilt == value


def test_the_json_stream_over_chunk_borders(tmp_path):
    records = [{"id": number, "text": "x" * (number * 37 % 5000), "n": 1234567.5} for number in range(200)]
    (tmp_path / "x.json").write_text(json.dumps(records))
    assert [found for _, found in read_json(tmp_path / "x.json")] == records
    broken = json.dumps(records).replace('"id": 150', '"id" 150')
    (tmp_path / "x.json").write_text(broken)
    found = [value for _, value in read_json(tmp_path / "x.json")]
    assert found[:150] == records[:150]
    assert isinstance(found[150], Broken)
    assert len(found) == 151


def test_json_that_is_no_table(tmp_path):
    (tmp_path / "x.json").write_text('"hello"')
    with pytest.raises(DataError, match="not a JSON list or object"):
        load_dataset(tmp_path / "x.json")


def test_big_files_are_streamed(tmp_path):
    with (tmp_path / "big.csv").open("w") as csv, (tmp_path / "big.json").open("w") as other:
        csv.write("id,text,label\n")
        other.write("[")
        for number in range(20_000):
            text = f"number {number} " + "x" * 1000
            csv.write(f"{number},{text},{number % 2}\n")
            other.write(("," if number else "") + json.dumps({"id": number, "text": text, "label": number % 2}))
        other.write("]")
    for name in ("big.csv", "big.json"):
        tracemalloc.start()
        count = sum(1 for _ in read_table(tmp_path / name))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 20_000
        data = load_dataset(tmp_path / name, limit=10)  # drawn from the whole file, not from its beginning
        assert len(data) == 10
        assert sum(sample.harmful for sample in data) == 5
        assert max(int(sample.id) for sample in data) > 1000
        assert peak < 4_000_000, (name, peak)  # the file has 20 MB


def test_columns_twice_and_unreadable_parquet(tmp_path):
    (tmp_path / "twice.csv").write_text("id,text,text\n1,a,b\n")
    with pytest.raises(DataError, match="stands twice"):
        load_dataset(tmp_path / "twice.csv")
    (tmp_path / "x.parquet").write_text("nothing")
    with pytest.raises(DataError, match="not readable as Parquet"):
        load_dataset(tmp_path / "x.parquet")


def test_parquet_keeps_pictures_in_the_file(tmp_path):
    bytes_ = (TABLES / "ok.png").read_bytes()
    rows = [
        {"prompt": f"p{number}", "image": {"bytes": bytes_, "path": None} if number % 3 else None, "label": number % 2}
        for number in range(7)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=3)
    data = load_dataset(tmp_path / "x.parquet")
    assert [bool(sample.images) for sample in data] == [bool(number % 3) for number in range(7)]
    assert data[5].image.load().size == (6, 4)
    assert not hasattr(data[5].image, "data")


def test_frames():
    frame = pandas.DataFrame(
        {"q": ["a", "b", None, "d"], "y": [1.0, 0.0, 1.0, None], "other": [True, False, True, False]},
        index=list("wxyz"),
    )
    data = load_dataset(frame, text="q", label="y")
    assert [sample.label_joint for sample in data] == ["unsafe", "safe", "unknown"]
    assert data.problems[0].record == "row y"
    assert data[0].meta == {"other": True}
    assert load_dataset(data) is data


def test_folder_of_images_with_a_table(tmp_path):
    (tmp_path / "a.png").write_bytes((TABLES / "ok.png").read_bytes())
    with pytest.raises(DataError, match="holds no table"):
        load_dataset(tmp_path)
    (tmp_path / "one.csv").write_text("file_name,text,split\na.png,hello,val\n")
    data = load_dataset(tmp_path)
    assert data.validation[0].image.load().size == (6, 4)
    (tmp_path / "two.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match="several tables"):
        load_dataset(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "hi"}\n')
    assert table_in(tmp_path).name == "metadata.jsonl"


def test_counterfactuals_share_a_group_and_dangling_ones_are_dropped(tmp_path):
    (tmp_path / "t.csv").write_text("id,text,label,counterfactual\n1,a,1,2\n2,b,0,1\n3,c,1,9\n")
    data = load_dataset(tmp_path / "t.csv")
    assert len(data.pairs()) == 1
    assert data["1"].group == data["2"].group != data["3"].group
    assert data["3"].counterfactual is None


def test_limit_balances_classes_and_keeps_pairs():
    data = load_dataset("xstest", root=TABLES.parent / "xstest")
    few = limited(data, 4)
    assert isinstance(few, Dataset)
    assert len(few) == 3  # a pair and a sample of its own; another pair would be one too many
    assert len(few.pairs()) == 1
    assert all(sample.counterfactual in few for sample in few if sample.counterfactual is not None)
    assert limited(data, 100) is data
    with pytest.raises(UsageError, match="at least 1"):
        load_dataset(data, limit=0)


def test_unknown_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"did you mean .*siuo"):
        load_dataset("siou")
    with pytest.raises(DataError, match="no file"):
        load_dataset("mine.csv")
    with pytest.raises(UsageError, match="not int"):
        load_dataset(7)


def test_offline_hub_says_what_to_download(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set.*hf download --repo-type dataset someone/something"):
        load_dataset("someone/something")


def test_read_table_knows_its_suffixes(tmp_path):
    with pytest.raises(DataError, match=r"has suffix .\.txt"):
        read_table(tmp_path / "x.txt")
    (tmp_path / "c.csv").write_text("# version 3\nid,text\n1,a\n")
    assert [row for _, row in read_csv(tmp_path / "c.csv", comments=True)] == [{"id": "1", "text": "a"}]
    assert next(read_csv(tmp_path / "c.csv", comments=True))[0] == "line 3"


def hub_rows(count: int = 6):
    picture = {"bytes": (TABLES / "ok.png").read_bytes(), "path": None}
    return {
        "prompt": [f"p{number}" for number in range(count)],
        "photo": [picture if number % 2 else None for number in range(count)],
        "label": [number % 2 for number in range(count)],
    }


@pytest.mark.parametrize("streamed", [False, True])
def test_sets_of_the_datasets_package(streamed):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "photo": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    one = datasets.Dataset.from_dict(hub_rows(), features=features)
    rows = one.to_iterable_dataset() if streamed else one
    data = load_dataset(rows, image="photo", label_map={0: "unsafe", 1: "safe"})
    assert [sample.label_joint for sample in data] == ["unsafe", "safe"] * 3
    assert [len(sample.images) for sample in data] == [0, 1] * 3
    assert data[1].image.load().size == (6, 4)
    assert data[1].image.key == data[3].image.key  # the encoded bytes, not a decoded picture
    parts = datasets.DatasetDict({"train": one, "validation": one.select(range(2))})
    both = load_dataset(parts, text="prompt", image="photo", split="validation")
    assert [sample.text for sample in both] == ["p0", "p1"]
    assert len(load_dataset(rows, image="photo", limit=4)) == 4

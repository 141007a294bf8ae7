"""Every published format, read from small harmless records with the oddities of the real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvlm_lens.data.cards import DatasetCard, register
from lvlm_lens.data.listing import dataset_rows, describe, inspect
from lvlm_lens.data.ownschema import write_template
from lvlm_lens.data.registry import card, cards, load_dataset
from lvlm_lens.errors import DataError, UsageError

FIXTURES = Path(__file__).parents[1] / "fixtures"

# name: samples, problems, ids of a few
EXPECTED = {
    "siuo": (4, 3),
    "mssbench": (11, 1),
    "mmsafeaware": (8, 2),
    "ssui": (1, 2),
    "rsbench": (1, 1),
    "msr_align": (1, 0),
    "rational": (2, 1),
    "visu": (6, 0),
    "rtvlm": (4, 1),
    "mm_safetybench": (14, 1),
    "figstep": (2, 1),
    "vlguard": (5, 3),
    "vlsafe": (1, 2),
    "jailbreakv": (2, 1),
    "spa_vl": (5, 1),
    "hades": (2, 1),
    "xstest": (7, 2),
    "advbench": (2, 1),
    "harmbench": (1, 1),
    "strongreject": (2, 0),
    "mossbench": (1, 1),
    "holisafe": (5, 1),
    "mmvet": (1, 0),
    "mme": (2, 1),
    "scienceqa": (2, 1),
    "llava_bench": (2, 0),
}


def load(name: str, **options):
    return load_dataset(name, root=FIXTURES / name, **options)


def test_every_registered_set_has_a_fixture():
    assert set(cards()) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_records_and_problems_are_counted(name):
    data = load(name)
    assert (len(data), len(data.problems)) == EXPECTED[name], [str(problem) for problem in data.problems]
    assert data.name == name
    for problem in data.problems:
        assert problem.file, problem
        assert problem.record, problem
        assert problem.reason, problem
    for sample in data:
        assert sample.text.strip()
        assert sample.group
        assert sample.dataset == name
        for picture in sample.images:
            assert picture.load().mode == "RGB"
        assert sample.counterfactual is None or sample.counterfactual in data


@pytest.mark.parametrize("name", sorted(name for name, (_, problems) in EXPECTED.items() if problems))
def test_strict_stops_at_the_first_bad_record(name):
    first = load(name).problems[0]
    with pytest.raises(DataError, match="strict") as caught:
        load(name, strict=True)
    assert first.file in str(caught.value)
    assert first.record in str(caught.value)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_wrong_root_says_what_belongs_there(name, tmp_path):
    with pytest.raises(DataError, match=name):
        load_dataset(name, root=tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset(name, root=tmp_path / "nowhere")


def test_counts_that_differ_are_notes():
    notes = " ".join(load("siuo").notes)
    assert "samples: 4 found, 167 published" in notes
    assert "subcategory=DS: 1 found, 18 published" in notes
    assert not any("published" in note for note in load("siuo", subset="gen").notes)


def test_siuo():
    data = load("siuo")
    assert {sample.quadrant for sample in data} == {"SSU"}
    assert [sample.subcategory for sample in data] == ["S", "S", "DS", "IM"]
    assert data["1"].warning == "The shelf is loose."
    reasons = {problem.field: problem.reason for problem in data.problems}
    assert "P-09.png" in reasons["image"]
    assert "is empty" in reasons["question"]
    assert "duplicate id '2', first seen at record 1" in reasons["id"]
    choice = load("siuo", subset="mcqa")[0]
    assert choice.options[1] == "B. No, it is loose."
    assert choice.answer == "B"


def test_mssbench_pairs_share_the_query_and_differ_in_the_picture():
    data = load("mssbench")
    pairs = data.pairs()
    assert len(pairs) == 5
    assert {pair.clean.quadrant + pair.corrupted.quadrant for pair in pairs} == {"SSUSSS"}
    assert [pair.swap for pair in pairs] == ["image"] * 4 + ["text"]
    assert all(pair.clean.image.key != pair.corrupted.image.key for pair in pairs[:2])
    assert data["chat-1-0-safe"].counterfactual is None  # its partner's picture is missing
    assert data["embodied-0-1-unsafe"].text_only == "The picture shows: a tilted table. Put the cup there."
    assert len(load("mssbench", subset="embodied")) == 6
    assert len(load_dataset("mssbench", root=FIXTURES / "mssbench_combined")) == 10  # the other file name


def test_truncated_json_keeps_what_is_before_the_cut():
    data = load_dataset("mssbench", root=FIXTURES / "truncated")
    assert [sample.id for sample in data if sample.category == "chat"] == [
        "chat-0-0-safe",
        "chat-0-1-safe",
        "chat-0-0-unsafe",
        "chat-0-1-unsafe",
    ]
    assert "the file ends inside a record" in str(data.problems[-1])
    with pytest.raises(DataError, match="truncated"):
        load_dataset("mssbench", root=FIXTURES / "truncated", strict=True)


def test_mmsafeaware_blocks_gaps_and_rows_without_picture():
    data = load("mmsafeaware")
    assert [sample.id for sample in data] == ["1", "3", "128", "129", "990", "1102", "2001", "2305"]
    assert data["1"].meta["sentence"] == "A cat sits\non a mat."
    assert "1999\ninside" in data["3"].text  # a year inside a sentence is not an id
    assert [sample.label_joint for sample in data] == ["safe"] * 3 + ["unsafe"] * 3 + ["safe"] * 2
    assert [sample.category for sample in data][2:6] == ["over-safe", "attack", "typical", "typical"]
    assert [sample.id for sample in data if not sample.images] == ["2305"]
    assert {problem.record.split("id ")[1] for problem in data.problems} == {"1103", "2306"}


def test_own_schemas_are_named_and_have_templates(tmp_path):
    own = [found for found in cards().values() if found.own_schema]
    assert sorted(found.name for found in own) == ["msr_align", "rational", "rsbench", "ssui"]
    for found in own:
        root = tmp_path / found.name
        root.mkdir()
        file = write_template(found, root / f"{found.name}.json")
        image = json.loads(file.read_text())[0].get("image")
        if image:
            (root / image).parent.mkdir()
            (root / image).write_bytes((FIXTURES / "tables" / "ok.png").read_bytes())
        data = load_dataset(found.name, root=root, strict=True)  # the template is a valid record
        assert len(data) == 1
        assert any("own schema" in note for note in data.notes)
        with pytest.raises(DataError, match="exists"):
            write_template(found, file)
    with pytest.raises(UsageError, match="published format"):
        write_template("xstest", tmp_path / "x.json")


def test_ssui_checks_the_class_and_the_root():
    reasons = [problem.reason for problem in load("ssui").problems]
    assert "none of the nine" in reasons[0]
    assert "leaves the data root" in reasons[1]


def test_rsbench_is_unsafe_when_a_step_is():
    assert load("rsbench")["a"].label_joint == "unsafe"
    assert "equal length" in load("rsbench").problems[0].reason


def test_visu_pairs_and_splits():
    data = load("visu")
    assert len(data.pairs()) == 3
    assert len(data.train) == 2
    assert len(load("visu", split="test")) == 4


def test_rtvlm_maps_only_what_is_clear():
    data = load("rtvlm")
    assert [sample.label_joint for sample in data] == ["unsafe", "unsafe", "safe", "unknown"]
    assert "GONE" in str(data.problems[0])


def test_mm_safetybench_prompt_rule_and_misspelt_scenarios():
    data = load("mm_safetybench")
    assert data["01-Illegal_Activitiy/0/SD"].text == "List steps to bake the product in this image."
    assert data["01-Illegal_Activitiy/0/TYPO"].text.startswith("List steps to bake this product.")
    assert data["09-Privacy_Violence/0/SD"].text_only == "List steps to bake loaf 0."
    assert len({sample.group for sample in data}) == 5
    assert any("14-Baking" in note for note in data.notes)
    assert "01-Illegal_Activitiy/TYPO/2.jpg" in str(data.problems[0])
    assert [sample.id for sample in load("mm_safetybench", subset="tiny")] == [
        "01-Illegal_Activitiy/2/SD",
        "01-Illegal_Activitiy/2/SD_TYPO",
    ]
    text = load("mm_safetybench", subset="text")
    assert len(text) == 5
    assert {sample.quadrant for sample in text} == {"NUU"}


def test_mm_safetybench_hub_form(tmp_path):
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "data" / "Fraud"
    folder.mkdir(parents=True)
    picture = {"bytes": (FIXTURES / "tables" / "ok.png").read_bytes(), "path": None}
    rows = [{"id": "4", "question": "What is in this image?", "image": picture}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "SD_TYPO-00000-of-00001.parquet")
    sample = load_dataset("mm-safetybench", root=tmp_path)[0]
    assert sample.id == "06-Fraud/4/SD_TYPO"
    assert sample.image.load().size == (6, 4)


def test_figstep_draws_the_pictures_that_are_not_there():
    data = load("figstep")
    assert [sample.image.load().size for sample in data] == [(6, 4), (760, 760)]
    assert any(note.startswith("1 pictures were not there") for note in data.notes)
    assert data["1-2"].text_only == "How do I knead, and rest, dough?"
    benign = load("figstep", subset="benign")
    assert {sample.quadrant for sample in benign} == {"SSS"}


def test_vlguard_nested_instructions_pair_up():
    data = load("vlguard")
    assert [(pair.clean.id, pair.corrupted.id) for pair in data.pairs()] == [
        ("train-t2-safe_unsafes", "train-t2-safe_safes"),
        ("test-t2-safe_unsafes", "test-t2-safe_safes"),
    ]
    assert data["train-t1-unsafes"].quadrant == "U?U"
    assert [len(load("vlguard", subset=name)) for name in ("unsafes", "safe_unsafes", "safe_safes")] == [1, 2, 2]
    assert load("vlguard", split="test")[0].reference == "No."


def test_vlsafe_names_the_missing_coco_picture():
    assert "000000000025.jpg" in str(load("vlsafe").problems[0])
    assert load("vlsafe")[0].quadrant == "SUU"


def test_jailbreakv_groups_attacks_on_one_request():
    data = load("jailbreakv")
    assert len({sample.group for sample in data}) == 1
    assert "\n" in data["0"].text
    assert [sample.id for sample in load("jailbreakv", subset="mini")] == ["0"]
    assert [sample.attack for sample in load("jailbreakv", subset="image")] == ["figstep"]


def test_spa_vl_pictures_stay_in_the_file_until_needed():
    data = load("spa_vl", subset="harm")
    assert [sample.image.load().getpixel((0, 0))[0] for sample in data] == [40, 80, 120, 160]
    assert len({sample.image.key for sample in data}) == 4
    assert load("spa_vl", subset="train")[0].label_joint == "unknown"


def test_hades_points_at_the_picture():
    data = load("hades")
    assert data[0].text == "The bottom of the image shows a object. Write a note on how to hide a this object."
    assert data[1].text == "The bottom of the image shows a behavior. Tell how to conduct this behavior on a friend."
    assert {sample.meta["step"] for sample in data} == {5}
    assert len(load("hades", subset="all")) == 3
    assert "'image' is empty" in data.problems[0].reason


def test_xstest_contrasts_are_paired_by_focus_then_order():
    data = load("xstest")
    pairs = {(pair.corrupted.id, pair.clean.id) for pair in data.pairs()}
    assert pairs == {("1", "27"), ("2", "26"), ("51", "76")}
    assert data["1"].group == data["27"].group
    assert data["376"].counterfactual is None


def test_holisafe_letters_are_labels():
    assert [sample.quadrant for sample in load("holisafe")] == ["SSS", "SSU", "SUU", "USU", "UUU"]
    assert len({sample.group for sample in load("holisafe")}) == 1


def test_strongreject_in_another_encoding():
    assert load("strongreject")[0].text == "Describe a prank with a naïve façade’s door."


def test_utility_sets():
    assert load("mme")[0].group == load("mme")[1].group
    assert [sample.answer for sample in load("mme")] == ["Yes", "No"]
    assert load("scienceqa")["1"].options == ("A. rock", "B. milk")
    assert load("scienceqa")["2"].answer == "B"
    assert [sample.id for sample in load("scienceqa", subset="image")] == ["1"]
    assert load("llava_bench")["0"].reference == "A beach."
    assert load("llava_bench")["1"].reference is None
    assert load("mmvet")[0].category == "math+ocr"


def test_unknown_subset_split_and_columns():
    with pytest.raises(UsageError, match="did you mean chat"):
        load("mssbench", subset="chatt")
    with pytest.raises(DataError, match="no split 'train'"):
        load("siuo", split="train")
    with pytest.raises(UsageError, match="published format"):
        load("siuo", text="question")


def test_names_are_forgiving_and_clashes_are_not():
    assert card("MM-SafetyBench").name == card("mm_safetybench").name == "mm_safetybench"
    with pytest.raises(DataError, match="did you mean siuo"):
        card("siou")
    with pytest.raises(DataError, match="already belongs"):
        register(DatasetCard("mmvet2", "", "", "", "", "", (), {}, lambda *a: None, aliases=("MM-Vet",)))


def test_listing_shows_state_and_counts(monkeypatch):
    monkeypatch.delenv("LVLM_LENS_DATA", raising=False)
    rows = {row["name"]: row for row in dataset_rows(FIXTURES)}  # one folder with a subfolder for each set
    json.dumps(list(rows.values()))
    assert rows["mini"]["state"] == "embedded"
    assert rows["mini"]["found"]["pairs"] >= 300
    assert "pairs" in describe("mini")
    assert rows["siuo"]["state"] == "differs"
    assert rows["siuo"]["found"]["samples"] == 4
    assert rows["siuo"]["expected"]["samples"] == 167
    assert rows["siuo"]["problems"] == 3
    assert rows["ssui"]["state"] == "read"
    assert rows["ssui"]["own_schema"] is True
    assert {row["state"] for row in dataset_rows()} == {"embedded", "no root"}
    words = describe("vlguard", FIXTURES / "vlguard")
    assert "[there] train.json" in words
    assert "groups: 3,000 published, 3 found" in words
    assert "[missing] images/" in describe("llava_bench", FIXTURES / "vlguard")
    monkeypatch.setenv("LVLM_LENS_DATA", str(FIXTURES))
    assert len(load_dataset("siuo")) == 4
    assert inspect("advbench", FIXTURES / "tables").state == "missing"


def test_a_broken_file_is_a_state_not_a_crash(tmp_path):
    (tmp_path / "harmful_behaviors.csv").write_text("aim,target\nx,y\n")
    seen = inspect("advbench", tmp_path)
    assert seen.state == "broken"
    assert "no column 'goal'; its columns are aim, target" in seen.detail


def test_embedded_xstest_needs_no_root(monkeypatch, tmp_path):
    monkeypatch.delenv("LVLM_LENS_DATA", raising=False)
    data = load_dataset("xstest", strict=True)
    assert len(data) == 450
    assert sum(sample.label_joint == "safe" for sample in data) == 250
    assert sum(sample.label_joint == "unsafe" for sample in data) == 200
    assert not data.notes
    pairs = data.pairs()
    assert len(pairs) == 200
    assert len({pair.corrupted.id for pair in pairs}) == 200
    same = sum(pair.clean.subcategory == pair.corrupted.subcategory for pair in pairs)
    assert same >= 199
    assert inspect("xstest").state == "embedded"
    words = describe("xstest")
    assert "ships" in words and "CC BY 4.0" in words and "Röttger" in words
    assert (inspect("xstest").root / "LICENSE.txt").read_text().startswith("Attribution 4.0 International")
    monkeypatch.setenv("LVLM_LENS_DATA", str(tmp_path))  # a folder without it: the package's copy still serves
    assert len(load_dataset("xstest")) == 450
    with pytest.raises(DataError):
        load_dataset("xstest", root=tmp_path)


def test_another_copy_of_xstest_is_read_where_one_is_named(monkeypatch, tmp_path):
    assert len(load_dataset("xstest", root=FIXTURES / "xstest")) == 7
    assert inspect("xstest", inspect("xstest").root).state == "embedded"
    (tmp_path / "XSTest").mkdir()
    copy = (FIXTURES / "xstest" / "xstest_prompts.csv").read_bytes()
    (tmp_path / "XSTest" / "xstest_prompts.csv").write_bytes(copy)
    monkeypatch.setenv("LVLM_LENS_DATA", str(tmp_path))
    assert len(load_dataset("xstest")) == 7

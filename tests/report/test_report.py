"""The page of a run: what a stranger's folder cannot do, what every kind of run shows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lvlm_lens.cli import main
from lvlm_lens.errors import RunFolderError
from lvlm_lens.report import render_report, write_report
from lvlm_lens.report.parts import cell

COMMITTED = Path(__file__).parents[2] / "figures" / "mini-mini"


@pytest.fixture()
def run(tmp_path):
    """A copy of the committed sweep that a test may damage."""
    folder = tmp_path / "run"
    shutil.copytree(COMMITTED, folder)
    return folder


def change(folder: Path, edit) -> None:
    data = json.loads((folder / "result.json").read_text())
    edit(data)
    (folder / "result.json").write_text(json.dumps(data))


def test_the_page_says_the_finding_first_and_every_table_once():
    page = render_report(COMMITTED)
    data = json.loads((COMMITTED / "result.json").read_text())
    top = page[: page.index("<nav")]
    assert f"from block {data['roles']['perception']['onset']} of {data['model']['blocks']}" in top
    # twice: its label for screen readers, and its caption
    assert page.count("Every measure, and whether it reaches its targets") == 2
    assert "<script src" not in page
    assert set(re.findall(r"https?://[^\s\"'<]+", re.sub(r'data:[^"]+', "", page))) == {"http://www.w3.org/2000/svg"}
    for heading in ("Where does it see danger?", "Does it cause the refusal?", "Does SASA help here?"):
        assert page.count(f">{heading}</h2>") == 1
    assert len(page.encode()) < 6e6


@pytest.mark.parametrize("name", ["../../../../../../etc/passwd", "/etc/passwd"])
def test_a_figure_outside_the_folder_is_refused(run, name):
    def edit(data):
        data["figures"][0].update(png=name, svg=name)

    change(run, edit)
    with pytest.raises(RunFolderError, match="outside the run folder"):
        render_report(run)


def test_a_link_out_of_the_folder_is_refused(run, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (run / "linked.png").symlink_to(tmp_path / "secret.png")
    change(run, lambda data: data["figures"][0].update(png="linked.png", svg="linked.png"))
    with pytest.raises(RunFolderError, match="outside the run folder"):
        render_report(run)


def test_a_file_that_is_no_figure_is_refused(run):
    (run / "words.png").write_text("these are words")
    change(run, lambda data: data["figures"][0].update(png="words.png", svg="words.png"))
    with pytest.raises(RunFolderError, match="neither a PNG nor an SVG"):
        render_report(run)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data.pop("roles"), "roles"),
        (lambda data: data.update(measures=3), "sweep"),
        (lambda data: data["model"].pop("blocks"), "blocks"),
        (lambda data: data.update(schema="lvlm-lens/sweep/99"), "schema"),
        (lambda data: data["roles"].update(perception="yes"), "sweep"),
        (lambda data: data["curves"][0]["value"].__setitem__(0, float("nan")), "NaN"),
        (lambda data: data["curves"][0].update(blocks=[3, 2, 1]), "curves[0]"),
        (lambda data: data["model"].update(blocks=-5), "at least one block"),
        (lambda data: data.update(notes={"a": 1}), "notes"),
    ],
)
def test_a_damaged_result_is_a_message(run, edit, said, capsys):
    change(run, edit)
    assert main(["report", str(run)]) == 8
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told


def test_deep_json_and_not_a_number_are_messages(run, capsys):
    (run / "result.json").write_text("[" * 100_000)
    assert main(["report", str(run)]) == 8
    assert "not a readable JSON file" in capsys.readouterr().err


def test_hostile_strings_stay_text(run):
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    change(run, lambda data: data["model"].update(name=evil))
    page = render_report(run)
    assert "<script>alert(2)" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(2)" in page


def test_where_the_page_is_written(run, tmp_path, capsys):
    assert write_report(run) == run / "report.html"
    assert main(["report", str(run), "--out", str(tmp_path / "nowhere" / "page.html")]) == 8
    assert "is not there" in capsys.readouterr().err
    assert main(["report", str(run), "--out", str(tmp_path)]) == 8
    assert "name of a file" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "missing")]) == 8
    assert "no folder" in capsys.readouterr().err
    unwritable = Path("/proc/page.html")  # no file can be made there, whoever asks
    if unwritable.parent.is_dir():
        assert main(["report", str(run), "--out", str(unwritable)]) == 8
        assert "Traceback" not in capsys.readouterr().err


def test_a_folder_of_evaluate_has_a_page_and_an_empty_one_says_which_have(tmp_path, capsys):
    out = tmp_path / "table"
    words = ["evaluate", "--limit", "8", "--max-new-tokens", "2", "--no-inside", "--out", str(out), "--quiet"]
    assert main([*words, "--defense", "adashield_s"]) == 0
    assert main(["report", str(out)]) == 0
    assert "adashield_s" in (out / "report.html").read_text()
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 8
    assert "evaluate" in capsys.readouterr().err


def test_a_patch_folder_has_a_page(tmp_path):
    (tmp_path / "cells.csv").write_text(
        "direction,site,block,position,pairs,effect,low,high,survives\n"
        "denoise,resid_pre,3,last,12,0.91,0.8,1.0,True\nnoise,resid_pre,3,image,12,0.01,-0.1,0.1,False\n"
    )
    page = render_report(tmp_path)
    assert "1 of 2 cells survive" in page and "0.91 [0.80, 1.00]" in page


def test_the_recorded_selftest_has_a_page(tmp_path):
    record = Path(__file__).parents[2] / "lvlm_lens" / "selftest" / "record.json"
    shutil.copy(record, tmp_path / "study.json")
    page = render_report(tmp_path / "study.json")
    missed = [name for name, word in json.loads(record.read_text())["standing"].items() if word == "missed"]
    assert f"{len(missed)} of" in page and missed[0].replace("_", " ") in page


def test_cells_show_and_sort():
    assert cell(None).shown == "-" and cell(1234).shown == "1,234"
    assert cell({"value": 0.25, "low": 0.1, "high": 0.4}).shown == "25 % [10, 40]"
    assert cell({"value": 0.25, "low": 0.1, "high": 0.4}).key == 0.25


def test_a_training_has_a_page(tmp_path):
    record = {
        "method": {"title": "A method"}, "cost": {"steps": 2, "flops": 1e9, "seconds": 3.0},
        "log": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}, {"runtime": 3.0}],
        "audits": {"before": {}, "after": {"tensors": 4, "changes_logits": 0.125}},
    }  # fmt: skip
    (tmp_path / "training.json").write_text(json.dumps(record))
    page = render_report(tmp_path)
    assert "from 0.500 to 0.250 in 2 steps" in page and "changes the logits by up to 0.125" in page

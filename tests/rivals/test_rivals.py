"""Rival claims: each procedure on arrays whose answer is known, the bench around them, the command, the run folder."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from lvlm_lens.cli import main
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.plots.rivals import plot_rivals
from lvlm_lens.rivals import NOT_FOUND, PROCEDURES, run_rivals
from lvlm_lens.rivals.bench import half_groups
from lvlm_lens.rivals.newer import coding_rate, tellme, x_boundary
from lvlm_lens.rivals.planted import PlantedOutcome, load_record, run_planted, tabulate
from lvlm_lens.rivals.procedure import Published, longest_run
from lvlm_lens.rivals.procedures import care, hiddendetect, safety_heads, shiftdc, tga
from lvlm_lens.rivals.readings import Readings
from lvlm_lens.rivals.registry import choose
from lvlm_lens.storage.arrays import load_arrays, save_arrays

BLOCKS, WIDTH = 8, 12


def readings(n: int = 80, start: int | None = 3, strength: float = 6.0, seed: int = 0) -> Readings:
    """Pairs in which danger, if there is any, is written along one direction from block ``start`` on."""
    rng = np.random.default_rng(seed)
    labels = np.tile([1, 0], n // 2)
    base = rng.standard_normal((n // 2, 1, WIDTH)).repeat(2, 0)
    last = 3.0 + base + 0.5 * rng.standard_normal((n, BLOCKS, WIDTH))
    if start is not None:
        last[:, start:, 0] += strength * labels[:, None]
    groups = np.array([f"pair{i // 2:03d}" for i in range(n)])
    return Readings(labels, groups, np.ones(n, bool), tuple(range(BLOCKS)), BLOCKS, False, (7, 8), last=last, mean=last)


def test_hiddendetect_by_hand():
    r = readings(8)
    cosines = np.zeros((8, BLOCKS))
    cosines[r.harmful] = [0, 0.1, 0.4, 0.5, 0.3, 0.2, 0.4, 0.25]
    found = hiddendetect(replace(r, cosines=cosines))
    assert (found.first, found.last, found.peak) == (2, 6, 3)  # from the first above the last block to the last one
    assert not hiddendetect(replace(r, cosines=np.zeros((8, BLOCKS)))).found


def test_tga_counts_refused_harmful_items_only():
    r = readings(40)
    top = np.where(r.harmful, 7, 1)
    lens = np.zeros((40, BLOCKS), int)
    for row in range(40):
        lens[row, 2 + row % 10 // 2 :] = top[row]  # harmful rows are even: first blocks 2, 3, 4, 5, 6
    lens[0, 3] = 99  # once more something else: it stays only from block 4 on
    found = tga(replace(r, top=top, lens_top=lens))
    assert (found.first, found.last, found.n) == (2, 6, 20)
    assert found.values is not None and found.values[-1] == 1.0 and found.values[2] == pytest.approx(3 / 20)
    with pytest.raises(DataError, match="0 harmful items are refused"):
        tga(replace(r, top=np.zeros(40, int), lens_top=lens))


def test_care_is_a_ratio_of_sums():
    r = readings(20)
    drop, gap = np.full((20, BLOCKS), np.nan), np.full(20, np.nan)
    drop[r.harmful], gap[r.harmful] = np.eye(BLOCKS)[5] * 2 + np.eye(BLOCKS)[4], np.arange(1.0, 11.0)
    found = care(replace(r, drop=drop, gap=gap))
    assert (found.first, found.last, found.peak, found.n) == (3, 5, 5, 10)
    assert found.values is not None and found.values[5] == pytest.approx(20 / 55)


def test_heads_and_shift():
    r = readings(40)
    rng = np.random.default_rng(1)
    right = rng.random((40, 24)) < 0.5
    right[:, 6:12] = True  # the heads of blocks 2 and 3
    found = safety_heads(replace(r, heads_right=right, head_blocks=np.arange(24) // 3))
    assert (found.first, found.peak) == (2, 2) and found.last is not None and found.last >= 3
    push = 0.1 * rng.standard_normal((40, BLOCKS)) - np.where((np.arange(BLOCKS) >= 4) & (np.arange(BLOCKS) < 7), 1, 0)
    push[1] = np.nan
    found = shiftdc(replace(r, push=push))
    assert (found.first, found.last) == (4, 6)
    assert not shiftdc(replace(r, push=np.abs(push))).found
    assert longest_run(np.array([1, 0, 1, 1, 0], bool)).tolist() == [2, 3]
    assert longest_run(np.zeros(3, bool)).tolist() == []


def test_newer_measures_in_closed_form():
    r = readings(60, strength=5.0)
    found = x_boundary(r)
    direct = r.last[r.labels == 1, 4].mean(0) - r.last[r.labels == 0, 4].mean(0)
    assert found.values is not None and found.values[4] == pytest.approx(float(np.sqrt((direct**2).sum())))
    assert (found.first, found.last) == (2, 5)
    n, d, eps = 4, 9, 0.1  # orthonormal rows: every eigenvalue of the Gram is one
    assert coding_rate(np.eye(d)[:n]) == pytest.approx(n / 2 * np.log(1 + d / (n * eps)))
    assert coding_rate(np.eye(d)[:n].T @ np.eye(n)) == pytest.approx(n / 2 * np.log(1 + n / (d * eps)))
    gaps = tellme(r).values
    assert gaps is not None and gaps[3:].min() > gaps[:3].max()  # parted classes take more room together


def test_the_bench_gives_ranges_intervals_and_shuffles():
    procedure = PROCEDURES["safety-layers"]
    found, absent = (run_rivals(readings(start=start), [procedure], draws=10)[0] for start in (3, None))
    assert (found.state, found.first) == ("found", 3) and found.in_halves == 1.0
    assert found.first_low is not None and found.first_low <= 3 <= found.first_high
    assert found.in_shuffled is not None and found.in_shuffled <= 0.5
    assert found.depth_first == pytest.approx(4 / 8)
    assert absent.state == "nothing" and absent.first is None and absent.first_low is None
    again = run_rivals(readings(), [procedure], draws=10)[0]
    assert again == found  # the same seed, the same rows
    asked = run_rivals(readings(), [PROCEDURES["shiftdc"]], draws=10)[0]
    assert asked.state == "not asked" and "push" in asked.reason
    assert "words alone" not in found.note  # its claim is about words
    placed = run_rivals(readings(), [PROCEDURES["tellme"]], draws=10)[0]
    assert placed.state == "placed" and placed.in_halves is None


def test_sasa_says_when_its_order_does_not_hold():
    procedure = PROCEDURES["sasa"]
    tied = procedure.run(readings(n=120))
    assert (tied.first, tied.last) == (3, 3) and "does not begin before semantics" in tied.note
    alone = procedure.run(replace(readings(n=120), joint=np.zeros(120, bool)))
    assert alone.first == 3 and "no items unsafe only together" in alone.note
    r = readings(n=240)
    r.last[:120, 3:5, 0] -= 6.0 * r.labels[:120, None]  # in the joint half danger comes two blocks later
    later = procedure.run(replace(r, joint=np.arange(240) < 120))
    assert (later.first, later.last) == (3, 5) and later.note == "s = 3, f = 5"
    assert not procedure.run(readings(n=120, start=None)).found


def test_halves_keep_groups_whole():
    groups = np.array(["a", "a", "b", "c", "c", "d"])
    for rows in half_groups(groups, 20, 0):
        kept = set(groups[rows])
        assert len(kept) == 2 and len(rows) == sum(g in kept for g in groups)


def test_claims_have_numbers_sources_and_depths():
    for procedure in PROCEDURES.values():
        assert procedure.source and procedure.claim and procedure.rule
        for published in procedure.published:
            assert published.known and 0 <= published.first <= published.last < published.n_blocks
    assert Published("x", 7, 15, 32, "here").depths == (0.25, 0.5)
    assert {"ReGap", "MARS", "MI-Peaks", "SPIN"} == {name.split(" (")[0] for name in NOT_FOUND}
    assert [p.name for p in choose("care,tga,care")] == ["care", "tga"]
    with pytest.raises(UsageError, match="did you mean hiddendetect"):
        choose("hidendetect")


def test_arrays_are_kept_whole(tmp_path):
    save_arrays(tmp_path / "a" / "x.safetensors", {"x": np.arange(3.0)})
    assert load_arrays(tmp_path / "a" / "x.safetensors")[0]["x"].tolist() == [0, 1, 2]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["x.safetensors"]


def outcome(first: int | None, truths: tuple[int, ...], kind: str = "all", strength: float = 1.5) -> PlantedOutcome:
    return PlantedOutcome("p", 40, strength, kind, 10, truths, first, None if first is None else first + 1, True)


def test_outcomes_on_constructed_models_by_hand():
    rows = tabulate([outcome(3, (4,)), outcome(7, (4, 9)), outcome(None, (4,)), outcome(2, (), "nothing")])
    row = rows[0]
    assert row["separation"] is None and row["holds"]["count"] == 2 and row["holds"]["n"] == 3
    assert row["bias"] == pytest.approx((-1 - 2) / 2) and row["error"] == pytest.approx(1.5)
    assert row["width"] == pytest.approx(0.2) and row["false_alarms"]["value"] == 1.0
    assert not outcome(7, (4,)).holds and outcome(5, (4,)).holds


def test_constructed_models_are_asked_once(tmp_path, monkeypatch):
    chosen = [PROCEDURES["hiddendetect"], PROCEDURES["x-boundary"]]
    first = run_planted(chosen, 1, (20,), out=tmp_path)
    monkeypatch.setattr("lvlm_lens.rivals.planted.one_model", None)  # a second look at the model would fail
    assert run_planted(chosen, 1, (20,), out=tmp_path) == first
    assert {row["procedure"] for row in first["rows"]} == {"hiddendetect", "x-boundary"}
    with pytest.raises(UsageError, match="at least 20 pairs"):
        run_planted(chosen, 1, (4,))


def test_the_record_speaks_of_every_claim():
    record = load_record()
    assert record["models"] >= 18 and len(record["pairs"]) == 2
    assert {row["procedure"] for row in record["rows"]} == set(PROCEDURES)


def test_the_command_on_mini_and_its_folder(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    words = ["rivals", "--limit", "20", "--draws", "10", "--out", str(out), "--quiet"]
    words += ["--rivals", "hiddendetect,safety-layers,first-token,x-boundary"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rivals"]] == words[-1].split(",")
    assert all(row["state"] in ("found", "nothing", "placed", "not asked") for row in found["rivals"])
    assert {"rivals.json", "rivals.csv", "values.parquet", "rivals.png", "rivals.svg"} <= {
        f.name for f in out.iterdir()
    }
    rows = list(csv.DictReader((out / "rivals.csv").open()))
    assert len(rows) == 4 and rows[0]["title"]
    monkeypatch.setattr("lvlm_lens.stages.reading.gather", None)  # a second run reads what is there
    monkeypatch.setattr("lvlm_lens.rivals.read.capture", None)
    assert main(words) == 0
    assert main([*words[:-1], "tga"]) == 8  # another run's folder
    assert "belongs to another run" in capsys.readouterr().err
    assert main(["rivals", "--draws", "3"]) == 2


def test_the_list_names_what_was_not_asked(capsys):
    assert main(["rivals", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*PROCEDURES, *NOT_FOUND))


def test_the_figure_shows_every_state():
    chosen = [p for p in PROCEDURES.values() if p.name != "sasa"]  # its probes are the dear part
    rows = [row.to_dict() for row in run_rivals(readings(), chosen, draws=10)]
    assert {row["state"] for row in rows} >= {"found", "placed", "not asked"}
    figure = plot_rivals(rows, BLOCKS)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [row["title"] for row in rows]
    assert sum("not asked" in text.get_text() for text in figure.axes[0].texts) == sum(
        row["state"] == "not asked" for row in rows
    )

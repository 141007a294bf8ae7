"""The standard study on paper: sizes against published ones, hours against sums done by hand."""

import json

import pytest

from lvlm_lens.bench import study
from lvlm_lens.bench.study import Card, Cost, Fits, empty_model, reckon, requests, row_of
from lvlm_lens.cli import main


def test_sizes_are_those_of_the_published_models():
    llava, qwen = (row_of(empty_model(name)) for name in ("LLaVA-1.5-7B", "Qwen2.5-VL-7B"))
    assert llava.tokens == qwen.tokens == 96 + 576
    # four projections of 4096 x 4096, three of 4096 x 11008, two norms; the head beside them
    blocks, head = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096), 32064 * 4096
    assert llava.weights == 2 * (blocks + head)
    assert llava.cache == 2 * 2 * 32 * 4096 * (672 + 64)  # keys and values of two bytes
    tower = 2 * 0.3035e9 * 576  # CLIP ViT-L/14 at 336: 303.5 million numbers
    attention = 32 * 2 * 4096 * 672**2
    assert llava.flops == pytest.approx(2 * blocks * 672 + 2 * head + attention + tower, rel=2e-3)
    # three of 3584 x 18944, q and o of 3584 x 3584, k and v of 3584 x 512 with their biases
    blocks = 28 * (3 * 3584 * 18944 + 2 * 3584**2 + 2 * 3584 * 512 + 3584 + 2 * 512 + 2 * 3584)
    assert qwen.weights == 2 * (blocks + 152064 * 3584)
    assert qwen.cache == 2 * 2 * 28 * 512 * (672 + 64)


def test_hours_on_many_cards_by_hand():
    cost = Cost({"reading": 3600.0}, {"measures": 1800.0}, {"none": 3600.0, "a": 1200.0, "b": 1200.0, "c": 1200.0})
    card = Card(load=0.0, dollars=2.0)
    one, two, many = (cost.on(cards, card) for cards in (1, 2, 64))
    assert one["hours"] == one["card_hours"] == pytest.approx(1 + 2 + 0.5) and one["dollars"] == pytest.approx(7.0)
    assert two["hours"] == pytest.approx(0.5 + 1.0 + 0.5)  # one answers for an hour, the other three times 20 minutes
    assert two["card_hours"] == pytest.approx(1 + 2 + 0.5)
    assert many["hours"] == pytest.approx(1 / 64 + 1.0 + 0.5)  # four systems: more cards answer no faster
    assert many["card_hours"] == pytest.approx(1 + 4 * 1.0 + 0.5)


def test_counts_are_those_of_the_dry_run():
    cost, basis = reckon("LLaVA-1.5-7B", Card(), requests(), Fits(40.0, 20.0, 0.02, 0.05, 0.02, 0.5))
    work = basis["work"]
    assert work["reading the model"]["rows"] == work["reading the twin"]["rows"] == 5000
    assert work["asking none"]["steps"] == 79 * 128 and len(cost.answers) == 16  # 2,500 requests, 32 at a time
    assert work["patching"]["rows"] > 2 * 200 * 32  # both directions, with nulls
    assert set(cost.shared) == {"reading the model", "reading the twin", "reading items in words", "patching"}
    assert cost.answers["none"] == pytest.approx(5000 * basis["prompt"]["flops"] / 400e12 + 79 * 128 * 0.025)


def test_the_command_prints_the_table_and_keeps_the_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "probe_seconds", lambda *sizes: (5.0, 2.5))  # a minute here, and other numbers
    assert main(["bench", "study", "--out", str(tmp_path / "study.json")]) == 0
    told = capsys.readouterr().out
    assert told.count(" h, $") == 6 and "Reckoned, not measured: 400 TFLOP/s" in told and "Found: the table" in told
    found = json.loads((tmp_path / "study.json").read_text())
    for one in found["models"].values():
        first, *more = one["table"]
        assert all(first["hours"] > row["hours"] and first["dollars"] < row["dollars"] for row in more)
        assert one["fits_on_one_core"]["probe"] == 8 * 5.0
    assert "| patching | workers |" in "\n".join(f"| {' | '.join(map(str, row))} |" for row in study.parts_table(found))


def test_bench_scale_asks_for_parts_by_name(capsys):
    assert main(["bench", "scale", "--parts", "nothing"]) == 2
    assert "no part 'nothing' of bench scale; write any of driver, ledger, workers" in capsys.readouterr().err

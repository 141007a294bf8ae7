"""The SASA and defence stages of a sweep: batch size kept, continued where they were stopped, counted beforehand."""

from dataclasses import replace

import numpy as np
import pytest
from row_counting import rows_counted

from lvlm_lens import LVLM
from lvlm_lens.data import Dataset, Sample
from lvlm_lens.defenses import contest, extraction, sasa, sasa_contest, sasa_map, tuned
from lvlm_lens.defenses.probe import LogisticProbe
from lvlm_lens.defenses.sasa_report import sasa_report
from lvlm_lens.locate.roles import LayerRoles, Role
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.stages.defending import Defending, defence_stage, sasa_work, table_stage, table_work

DATA = Dataset(
    [
        Sample(f"{n}-{word}", f"May I {word} box number {n}?", group=f"g{n}", label_joint=label)
        for n in range(14)
        for word, label in (("open", "safe"), ("break", "unsafe"))
    ],
    "boxes",
)
ROLES = LayerRoles(*(Role(name, False, "not asked") for name in ("perception", "semantics", "expression")))


@pytest.fixture
def model(monkeypatch):
    """A text model, with the rows of every first pass of SASA and of every batch of answers."""
    made = LVLM(*tiny_model("llama"))
    made.passes, made.asked, made.most = [], [], 10**9
    first, ask = extraction.record, made.generate_batch

    def first_pass(model, encoded, **options):
        if len(made.passes) == made.most:
            raise KeyboardInterrupt
        made.passes.append(len(encoded))
        return first(model, encoded, **options)

    def generate_batch(samples, *args, **options):
        made.asked.append(len(samples))
        return ask(samples, *args, **options)

    monkeypatch.setattr(extraction, "record", first_pass)
    monkeypatch.setattr(made, "generate_batch", generate_batch)
    return made


def tell(*_):
    """Nobody listens."""


def test_passes_continue_at_the_batch_where_they_were_stopped(model, tmp_path):
    cells = [sasa.SASA().cell(0, 2), sasa.SASA(control="other_sample").cell(1, 3)]
    whole = sasa.extract(model, DATA[:24], cells, batch_size=8)
    assert model.passes == [8, 8, 8]
    model.passes.clear()
    model.most = 2
    with pytest.raises(KeyboardInterrupt):
        sasa.extract(model, DATA[:24], cells, batch_size=8, out=tmp_path)
    model.most = 10**9
    again = sasa.extract(model, DATA[:24], cells, batch_size=8, out=tmp_path)
    assert model.passes == [8, 8, 8]  # two before, one after
    assert (again.engine, again.check_error) == (whole.engine, whole.check_error)
    np.testing.assert_array_equal(again.plain_logits, whole.plain_logits)
    for cell in cells:
        np.testing.assert_array_equal(again.cells[cell], whole.cells[cell])
        assert (again.tokens[cell], again.negative[cell]) == (whole.tokens[cell], whole.negative[cell])
    sasa.extract(model, DATA[:24], cells[:1], batch_size=8, out=tmp_path)  # other cells are other work
    assert model.passes == [8] * 6


def test_the_probes_of_a_report_of_sasa_are_counted(model, monkeypatch):
    """Tables that are turned, training parts that a C is chosen on, and plain fits: as many as the estimate says."""
    seen = {"tables": 0, "tuned": 0, "wide_fits": 0}

    def counted(module, name, unit, how_many=lambda *given: 1):
        real = getattr(module, name)

        def call(*given, **more):
            seen[unit] += how_many(*given)
            return real(*given, **more)

        monkeypatch.setattr(module, name, call)

    for module in (sasa_map, sasa_contest, tuned):
        counted(module, "coordinates", "tables")
    for module in (sasa_map, contest, tuned):
        counted(module, "tuned_scores", "tuned", lambda rows, labels, trains, folds: len(trains))
    counted(LogisticProbe, "fit", "wide_fits")
    sasa_report(model, DATA, quick=True, batch_size=8)
    said = sasa_work(len(DATA), False, model.n_blocks, model.anatomy.vocab_size, model.anatomy.d_model)
    assert {name: getattr(said, name) for name in seen} == seen


def test_a_report_of_sasa_with_one_row_per_forward(model):
    """A model whose rows cannot share a batch (LLM.int8) was refused with a remedy that had been taken already."""
    model.passes.clear()
    report = sasa_report(model, DATA, quick=True, batch_size=1)
    assert set(model.passes) == {1}
    assert any("other_sample left out" in note for note in report.notes)
    assert "other_sample" not in {row["name"] for row in report.controls}


def test_a_report_of_sasa_is_kept(model, tmp_path):
    with rows_counted(model, DATA) as rows:
        found, report = defence_stage(model, DATA, ROLES, 0, tell, 8, tmp_path)
    said = sasa_work(len(DATA), False, model.n_blocks, model.anatomy.vocab_size, model.anatomy.d_model)
    assert 0.5 < said.rows / rows[0] < 2
    assert found["done"] and max(model.passes) == 8
    model.passes.clear()
    kept, same = defence_stage(model, DATA, ROLES, 0, tell, 8, tmp_path)
    assert not model.passes and kept == found and str(same) == str(report)
    assert not (tmp_path / "passes").exists()


def test_answers_of_the_table_are_kept(model, tmp_path):
    with rows_counted(model, DATA) as rows:
        first, _ = table_stage(model, DATA, None, 0, tell, 6, tmp_path / "defenses")
    assert 0.5 < table_work(len(DATA), False, 6).rows / rows[0] < 2  # decoding adds little to it
    assert first["done"] and max(model.asked) == 6
    model.asked.clear()
    again, _ = table_stage(model, DATA, None, 0, tell, 6, tmp_path / "defenses")
    assert not model.asked
    rates = ("attack_success", "over_refusal")
    assert [[row[r] for r in rates] for row in again["rows"]] == [[row[r] for r in rates] for row in first["rows"]]


def test_the_table_says_which_defence_could_not_learn(model, tmp_path):
    split = [replace(one, split="train" if one.harmful else "test") for one in DATA[:16]]
    data = Dataset([*split, *(replace(one, split="test") for one in DATA[16:])], "one label to learn from")
    found, _ = table_stage(model, data, None, 0, tell, 6, tmp_path / "defenses")
    assert [row["system"] for row in found["rows"]] == ["none", "safety_prompt"]
    assert len(found["left_out"]) == 1
    shown = [str(getattr(block, "text", "")) for block in Defending().summary({"defenses": found})]
    assert any("first_token left out: the training set holds 0 harmless" in line for line in shown)

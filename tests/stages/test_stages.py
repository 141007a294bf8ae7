"""Every stage keeps the contract, and memory that runs out halves the batch of any of them."""

import json

import pytest
import torch

from lvlm_lens.config import SweepConfig
from lvlm_lens.errors import NumericalError
from lvlm_lens.stages import stages
from lvlm_lens.stages.stage import Plan, Run, Stage, run_stage
from lvlm_lens.stages.summary import Line, as_html, as_text, table
from lvlm_lens.stages.work import Work


def check_stage(stage: Stage, plan: Plan, record: dict) -> None:
    """What every stage promises: a name, parts that are written once, a cost, a summary of the record."""
    assert stage.name and stage.parts
    cost = stage.cost(plan)
    assert cost and all(isinstance(work, Work) for work in cost.values())
    assert all(value >= 0 for work in cost.values() for value in (work.rows, work.steps, work.probes, work.figures))
    absent = stage.absent()
    assert set(absent) == set(stage.parts) and json.dumps(absent)
    assert set(stage.parts) <= set(record)
    blocks = stage.summary(record)
    assert as_text(blocks) or not blocks
    assert "<script" not in as_html([Line("<script>"), *blocks])


def test_every_stage_keeps_the_contract(mini, mini_data, committed_result):
    plan = Plan(SweepConfig(), mini, mini_data[:40], mini.n_blocks)
    names, parts = [], []
    for stage in stages():
        check_stage(stage, plan, committed_result)
        names.append(stage.name)
        parts += stage.parts
    assert len(set(names)) == len(names) and len(set(parts)) == len(parts)


class Hungry(Stage):
    """Fits three rows per forward."""

    name = "hungry"
    parts = ("hungry",)

    def cost(self, plan):
        return {}

    def run(self, run):
        if run.batch_size > 3:
            raise torch.OutOfMemoryError("no room")
        return {"hungry": {"done": True, "rows": run.batch_size}}


def test_memory_that_runs_out_halves_the_batch_and_is_noted(mini, mini_data, tmp_path):
    run = Run(mini, mini_data, tmp_path, SweepConfig(), batch_size=16)
    assert run_stage(Hungry(), run) == {"hungry": {"done": True, "rows": 2}}
    assert [note.split(": ")[1] for note in run.notes] == [
        f"out of memory with {rows} rows per forward, gone on with {rows // 2}" for rows in (16, 8, 4)
    ]
    assert run.batch_size == 2 and set(run.timings) == {"hungry"}

    class Insatiable(Hungry):
        def run(self, run):
            raise torch.OutOfMemoryError("never enough")

    with pytest.raises(NumericalError, match="one row per forward"):
        run_stage(Insatiable(), run)


def test_halvings_inside_a_loop_are_noted_too(mini, mini_data, tmp_path):
    from lvlm_lens.models.batching import in_batches

    class Looping(Hungry):
        def run(self, run):
            def work(rows):
                if len(rows) > 5:
                    raise torch.OutOfMemoryError("no room")
                return len(rows)

            return {"hungry": {"done": True, "rows": [n for _, n in in_batches(mini_data.samples[:8], 8, work)]}}

    run = Run(mini, mini_data, tmp_path, SweepConfig())
    assert sum(run_stage(Looping(), run)["hungry"]["rows"]) == 8
    assert run.notes and "gone on with" in run.notes[0]


def test_summaries_are_escaped_and_aligned():
    made = table("T & <b>", ("name", "n"), [("<script>alert(1)</script>", "1"), ("b", "22")], numbers=("n",))
    page = as_html([made, Line("a < b")])
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &lt; b" in page
    assert as_text([made]).splitlines()[-1].endswith(" 22")

"""The benchmark grades what engines read, times them by turns, and prints what it measured."""

import io
import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from lvlm_lens.bench import bench_capture, capture_table
from lvlm_lens.bench import worker as workers
from lvlm_lens.bench.capture import _cell
from lvlm_lens.bench.reading import bench_reading
from lvlm_lens.bench.subject import Size, build, requests

TINY = Size(width=64, blocks=3, image_side=4, rows=3, batch=2)


def through(monkeypatch, engine):
    """A worker around an engine of the test's own."""
    monkeypatch.setitem(workers.ENGINES, "test", lambda model, batch: lambda samples: engine(model, samples))
    return workers.Worker("test", TINY)


def honest(model, samples):
    return model.capture(samples, "resid_post", "last")["resid_post"][:, :, 0]


def test_the_subject_has_the_asked_number_of_image_tokens():
    model = build(TINY)
    layout = model.encode(requests(TINY)[0]).layouts[0]
    assert len(layout.images[0]) == 16 and model.n_blocks == 3
    assert len({model.encode(sample).length for sample in requests(TINY)}) == 1  # nothing is padded


@pytest.mark.parametrize("name", [name for name in workers.ENGINES if name != "plain HF forward"])
def test_every_engine_is_graded_against_the_plain_forward(name):
    worker = workers.Worker(name, TINY)
    grade = worker.grade()
    assert grade["grade"] == "SUPPORTED", grade
    assert grade["max_error"] < 1e-4 and grade["moved_by_picture"] > 1e-3
    assert grade["blocks"] == (2 if name == "output_hidden_states=True" else 3)
    assert worker.time()["seconds"] > 0 and worker.memory()["bytes"] >= 0


def test_an_engine_that_loses_the_picture_is_silently_wrong(monkeypatch):
    grade = through(monkeypatch, lambda model, samples: honest(model, requests(TINY))).grade()
    assert grade["grade"] == "SILENTLY_WRONG" and "picture" in grade["why"]


def test_an_engine_off_by_a_block_or_a_row_is_silently_wrong(monkeypatch):
    block = through(monkeypatch, lambda model, samples: np.roll(honest(model, samples), 1, axis=1)).grade()
    assert block["grade"] == "SILENTLY_WRONG" and "differ" in block["why"]
    row = through(monkeypatch, lambda model, samples: honest(model, samples)[[0, 2, 1]]).grade()
    assert row["grade"] == "SILENTLY_WRONG" and "differ" in row["why"]
    nothing = through(monkeypatch, lambda model, samples: honest(model, samples) * np.nan).grade()
    assert nothing["grade"] == "SILENTLY_WRONG"


def test_memory_is_the_growth_of_one_pass(monkeypatch):
    def greedy(model, samples):
        return torch.ones(64 * 2**20 // 4).numpy()[:1]

    worker = through(monkeypatch, greedy)
    assert 63 * 2**20 <= worker.memory()["bytes"] < 80 * 2**20


def test_an_engine_that_fails_is_an_answer_with_its_words(monkeypatch, capsys):
    build = {"do": "build", "engine": "no such engine", "size": asdict(TINY), "threads": torch.get_num_threads()}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(build) + "\n"))
    monkeypatch.setattr("sys.stdout", sys.stdout)  # put back after the worker took it
    workers.main()
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"error": "KeyError: 'no such engine'"}
    cell = _cell("no such engine", {"error": answer["error"]}, None, [1.0], [], None)
    assert cell["grade"] == "ERROR" and "no such engine" in cell["error"]
    assert _cell("x", {"error": None, "grade": "SUPPORTED"}, 100, [1.0, 2.0], [2.0, 4.0], 5)["ratio"] == 0.5


def test_the_benchmark_runs_by_turns():
    result = bench_capture(TINY, rounds=2, engines=["ours, last token, every block"], threads=1, reading_megabytes=2)
    assert json.loads(json.dumps(result)) == result
    plain, ours = result["cells"]
    assert plain["engine"] == "plain HF forward" and plain["ratio"] == 1.0
    assert ours["grade"] == "SUPPORTED" and ours["tokens_per_second"] > 0 and ours["peak_bytes"] >= 0
    assert result["size"]["image_tokens"] == 16
    result["cells"].append({"engine": "broken", "grade": "ERROR", "error": "RuntimeError: no"})
    table = capture_table(result)
    assert "SUPPORTED" in table and "RuntimeError: no" in table and "GB/s" in table


def test_reading_is_measured_on_equal_numbers():
    result = bench_reading(megabytes=4, rounds=2)
    assert result["store_gb_s"] > 0 and result["memmap_gb_s"] > 0
    assert result["ratio"] == pytest.approx(result["store_gb_s"] / result["memmap_gb_s"])

"""What workers write is what one process writes, byte for byte; the commands take them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvlm_lens.cli import main

pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # a cluster and three loads of the model each
CAPTURE = ["capture", "--model", "mini", "--dataset", "mini", "--limit", "200", "--batch-size", "8", "--quiet"]


def run(*words):
    assert main([str(word) for word in words]) == 0


def contents(folder, *patterns):
    """Bytes by name, without the record of the machine and the mark that the folder is shared."""
    found = {}
    for pattern in patterns or ("**/*",):
        for path in sorted(Path(folder).glob(pattern)):
            own = path.name == "manifest.json" or path.name.startswith(".shared-")  # a killed driver leaves that one
            if path.is_file() and not own and "claims" not in path.parts:
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "store"
    run(*CAPTURE, "--out", folder)
    return contents(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_of_workers_is_the_store_of_one_process(tmp_path, alone, workers, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(*CAPTURE, "--out", tmp_path / "store", "--workers", workers)
    assert contents(tmp_path / "store") == alone


def test_a_worker_is_killed_in_a_shard(tmp_path, alone):
    psutil = pytest.importorskip("psutil")
    words = [*(word for word in CAPTURE if word != "--quiet"), "--json"]
    command = [sys.executable, "-m", "lvlm_lens", *words, "--out", str(tmp_path / "store"), "--workers", "2"]
    run_of = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    ledger, until = tmp_path / "store" / "ledger", time.time() + 240
    while not (ledger.is_dir() and list(ledger.glob("[0-9]*.json"))) and time.time() < until:
        time.sleep(0.05)
    own = psutil.Process(run_of.pid).children(recursive=True)
    workers = [process for process in own if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker")]
    assert len(workers) == 2
    max(workers, key=lambda process: process.cpu_times().user).kill()
    told, said = run_of.communicate(timeout=400)
    assert run_of.returncode == 0, said
    assert json.loads(told)["samples"] > 0  # Ray's own words about the death do not stand there
    assert "a worker died" in said
    assert contents(tmp_path / "store") == alone


def test_the_driver_is_killed_and_the_command_repeated(tmp_path, alone):
    command = [sys.executable, "-m", "lvlm_lens", *CAPTURE, "--out", str(tmp_path / "store"), "--workers", "2"]
    first = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    ledger = tmp_path / "store" / "ledger"
    until = time.time() + 240
    while not (ledger.is_dir() and list(ledger.glob("[0-9]*.json"))) and time.time() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in ledger.glob("[0-9]*.json")}
    assert kept
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=400)
    assert contents(tmp_path / "store") == alone
    for name, when in kept.items():
        assert (ledger / name).stat().st_mtime_ns == when  # nothing that was finished was computed again


def test_a_broken_picture_is_left_out_and_nothing_else(tmp_path, capsys):
    from PIL import Image

    rows = ["id,text,image,label"]
    for number in range(12):
        Image.new("RGB", (64, 64), (20 * number, 40, 90)).save(tmp_path / f"{number}.png")
        rows.append(f"r{number},What is this?,{number}.png,{number % 2}")
    (tmp_path / "5.png").write_bytes(b"no picture")
    (tmp_path / "items.csv").write_text("\n".join(rows))
    run(
        "capture", "--dataset", tmp_path / "items.csv", "--root", tmp_path, "--out", tmp_path / "store",
        "--batch-size", "4", "--workers", "2", "--json",
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 11
    assert len(found["left_out"]) == 1 and found["left_out"][0].startswith("r5: ")


def test_a_model_that_does_not_load(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    words = ["--model", str(tmp_path / "model"), "--dataset", "mini", "--out", str(tmp_path / "store"), "--quiet"]
    code = main(["capture", *words])
    wanted = capsys.readouterr().err
    assert main(["capture", *words, "--workers", "2"]) == code
    assert capsys.readouterr().err.strip().splitlines()[-1] == wanted.strip().splitlines()[-1]


def test_a_device_of_its_own_is_refused(tmp_path, capsys):
    assert main([*CAPTURE, "--out", str(tmp_path / "store"), "--workers", "2", "--device", "cpu"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_answers_of_workers_are_those_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = [
        "evaluate", "--defense", "first_token,safety_prompt", "--limit", "16", "--train-limit", "24",
        "--max-new-tokens", "4", "--no-inside", "--quiet",
    ]  # fmt: skip
    run(*asked, "--out", tmp_path / "alone")
    run(*asked, "--out", tmp_path / "workers", "--workers", "2")

    def answers(folder):
        found = {}
        for path in (tmp_path / folder / "answers").glob("answers-*.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
            found[path.name] = [(row["id"], row["text"], row["flagged"]) for row in rows]
        return found

    assert answers("workers") == answers("alone") and len(answers("alone")) == 3
    rows = [json.loads((tmp_path / name / "evaluation.json").read_text())["rows"] for name in ("alone", "workers")]
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if k != "cost"} == {k: v for k, v in other.items() if k != "cost"}


def test_a_sweep_of_workers_finds_what_one_process_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["sweep", "--limit", "140", "--pairs", "8", "--no-sasa", "--no-defenses", "--replicates", "100", "--quiet"]
    run(*words, "--out", tmp_path / "alone")
    run(*words, "--out", tmp_path / "workers", "--workers", "2")
    assert contents(tmp_path / "workers", "activations/**/*") == contents(tmp_path / "alone", "activations/**/*")
    one, other = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("alone", "workers"))
    for part in ("curves", "roles", "quadrants", "backbone"):
        assert one[part] == other[part], part
    assert one["causal"]["cells_table"] == other["causal"]["cells_table"]
    assert other["causal"]["verification"]["cells"] > 0


def test_a_grid_of_workers_is_the_grid_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["patch", "--limit", "160", "--pairs", "8", "--all-pairs", "--positions", "last", "--quiet"]
    run(*words, "--out", tmp_path / "alone")
    run(*words, "--out", tmp_path / "workers", "--workers", "2")
    assert (tmp_path / "workers" / "cells.csv").read_bytes() == (tmp_path / "alone" / "cells.csv").read_bytes()


def test_trainings_of_workers_are_those_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [
        "train", "study", "--windows", "early=0-1,late=4-5", "--seeds", "0", "--steps", "2", "--limit", "12",
        "--rank", "2", "--batch-size", "2", "--test-limit", "6", "--max-new-tokens", "4", "--quiet",
    ]  # fmt: skip
    run(*words, "--out", tmp_path / "alone")
    run(*words, "--out", tmp_path / "workers", "--workers", "2")
    alone = contents(tmp_path / "alone", "*/adapter_model.safetensors", "study.json", "study.md")
    assert len(alone) == 4
    assert contents(tmp_path / "workers", "*/adapter_model.safetensors", "study.json", "study.md") == alone


def test_a_selftest_of_workers_is_that_of_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["selftest", "--models", "3", "--pairs", "20", "--seed", "3"]
    assert main([*words, "--quiet", "--workers", "2"]) == 2
    assert "selftest with workers needs --folder DIR" in capsys.readouterr().err

    def found(name, *more):
        run(*words, "--folder", tmp_path / name, "--json", "--quiet", *more)
        result = json.loads(capsys.readouterr().out)
        for trial in result["trials"]:
            trial.pop("seconds")
        return {key: value for key, value in result.items() if key != "seconds"}

    alone = found("alone")
    assert len(alone["trials"]) == 3 and found("workers", "--workers", "2") == alone

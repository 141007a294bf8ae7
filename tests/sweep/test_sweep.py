"""The sweep end to end, on checkpoints saved to disk and on tables with pictures, and what bad input gets."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_words import arguments
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.cli import main
from lvlm_lens.config import SweepConfig, parse_blocks, resolve_config
from lvlm_lens.data import Sample
from lvlm_lens.data.limits import limited
from lvlm_lens.errors import ModelError, UsageError
from lvlm_lens.estimate import estimate_sweep
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.stages.inputs import load_inputs, run_identity
from lvlm_lens.sweep import SweepResult, run_sweep

KEYS = {
    "schema", "model", "dataset", "curves", "roles", "order_test", "quadrants", "figures", "environment", "timings",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(checkpoints, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    assert main([*arguments(checkpoints, table, out), "--quiet"]) == 0
    return SweepResult.load(out)


def test_result_has_its_keys_and_files(run):
    assert set(run.data) >= KEYS
    for curve in run.data["curves"]:
        assert set(curve) >= {"name", "blocks", "value", "low", "high", "null"}
        assert len(curve["value"]) == len(curve["blocks"]) == 4
        assert all(
            low <= value <= high for low, value, high in zip(curve["low"], curve["value"], curve["high"], strict=True)
        )
    for figure in run.data["figures"]:
        drawn = np.asarray(Image.open(run.folder / figure["png"]).convert("L"))
        assert drawn.shape[1] > 600 and (drawn < 128).mean() > 0.001, figure["name"]  # words and lines, no empty page
        assert (run.folder / figure["svg"]).read_text().lstrip().startswith("<?xml")
    frame = pd.read_parquet(run.folder / "curves.parquet")
    assert set(frame["curve"]) == {curve["name"] for curve in run.data["curves"]}
    assert {f["name"] for f in run.data["figures"]} >= {
        "atlas",
        "perception",
        "semantics",
        "quadrants",
        "strip",
        "trajectory",
    }


def test_random_weights_give_no_role(checkpoints, table, tmp_path, capsys):
    """Six roles on random weights: each may be found by chance at 5 %, so at most one of them is allowed."""
    found = []
    for family, file in (("llava", "data.csv"), ("qwen2_5_vl", "data.jsonl")):
        assert main([*arguments(checkpoints, table, tmp_path / family, family, file), "--json", "--quiet"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["dataset"]["samples"] == 60
        found += [(family, name) for name, role in printed["roles"].items() if role["found"]]
        assert all(role["reason"] for role in printed["roles"].values() if not role["found"])
        assert printed["order_test"]["p_value"] is None
    assert len(found) <= 1, found


def test_same_arguments_give_the_same_numbers(run, checkpoints, table, tmp_path):
    out = tmp_path / "again"
    assert main([*arguments(checkpoints, table, out), "--quiet"]) == 0
    again = SweepResult.load(out)
    for key in ("curves", "roles", "order_test", "quadrants", "trajectories"):
        assert again.data[key] == run.data[key], key


def test_same_command_continues_and_another_is_refused(run, checkpoints, table, capsys):
    shards = sorted((run.folder / "activations" / "model").glob("*.safetensors"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    assert main([*arguments(checkpoints, table, run.folder), "--quiet"]) == 0
    assert [shard.stat().st_mtime_ns for shard in shards] == before  # nothing was run again
    assert main([*arguments(checkpoints, table, run.folder), "--quiet", "--seed", "1"]) == 8
    message = capsys.readouterr().err
    assert "settings.seed: 0 there, 1 now" in message
    assert main([*arguments(checkpoints, table, run.folder, "qwen2_5_vl"), "--quiet"]) == 8


def test_killed_run_continues(checkpoints, table, tmp_path, run):
    """SIGKILL after the first shard of the model; the same command then gives the uninterrupted numbers."""
    out = tmp_path / "killed"
    script = (
        "import sys, os, signal, pathlib\n"
        "import lvlm_lens.stages.reading as s\n"
        "s.SHARD = 16\n"
        "real = s.gather\n"
        "def counted(*a, **k):\n"
        "    if len(list(pathlib.Path(sys.argv[1]).glob('activations/model/*.safetensors'))) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*a, **k)\n"
        "s.gather = counted\n"
        "from lvlm_lens.cli import main\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    words = [*arguments(checkpoints, table, out), "--quiet"]
    done = subprocess.run([sys.executable, "-c", script, str(out), *words], env=os.environ, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert not (out / "result.json").exists()
    kept = sorted((out / "activations" / "model").glob("*.safetensors"))
    assert len(kept) == 2
    import lvlm_lens.stages.reading as reading

    before, reading.SHARD = reading.SHARD, 16
    try:
        assert main(words) == 0
    finally:
        reading.SHARD = before
    again = SweepResult.load(out)
    assert again.roles.to_dict().keys() == run.roles.to_dict().keys()
    for mine, theirs in zip(again.data["curves"], run.data["curves"], strict=True):
        np.testing.assert_allclose(mine["value"], theirs["value"], atol=0.02)  # batches differ in the last bits


def test_text_only_model_on_real_xstest(checkpoints, tmp_path, capsys):
    out = tmp_path / "xstest"
    words = [
        "sweep",
        "--model",
        str(checkpoints / "llama"),
        "--dataset",
        "xstest",
        "--out",
        str(out),
    ]
    assert main([*words, "--json", "--quiet", "--permutations", "20", "--replicates", "200"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["dataset"]["harmless"], printed["dataset"]["harmful"]) == (250, 200)
    assert not any(role["found"] for role in printed["roles"].values())


# -- what bad input gets -----------------------------------------------------------------------------


def fails(words: list[str], capsys) -> tuple[int, str]:
    code = main([*words, "--quiet"])
    return code, capsys.readouterr().err


def test_unknown_model_and_data_set_name_the_near_matches(checkpoints, tmp_path, capsys):
    code, message = fails(["sweep", "--model", "mimi", "--out", str(tmp_path / "a")], capsys)
    assert code == 4 and "did you mean" in message and "mini" in message
    code, message = fails(["sweep", "--dataset", "suio", "--out", str(tmp_path / "b")], capsys)
    assert code == 3 and "siuo" in message
    code, message = fails(["sweep", "--model", str(checkpoints / "lava"), "--out", str(tmp_path / "c")], capsys)
    assert code == 4 and "llava" in message
    (tmp_path / "empty").mkdir()
    code, message = fails(["sweep", "--model", str(tmp_path / "empty"), "--out", str(tmp_path / "d")], capsys)
    assert code == 4 and "config.json" in message


def test_missing_column_empty_file_and_one_class(checkpoints, table, tmp_path, capsys):
    words = arguments(checkpoints, table, tmp_path / "a")
    words[words.index("question")] = "qestion"
    code, message = fails(words, capsys)
    assert code == 3 and "question" in message
    (tmp_path / "empty.csv").write_text("")
    code, message = fails(
        [
            "sweep",
            "--model",
            str(checkpoints / "llava"),
            "--dataset",
            str(tmp_path / "empty.csv"),
            "--out",
            str(tmp_path / "b"),
        ],
        capsys,
    )
    assert code == 3 and "empty" in message
    frame = pd.read_csv(table / "data.csv")
    frame.assign(question=frame.question.where(frame.box.isin(["box0", "box1"]), " ")).to_csv(tmp_path / "blank.csv")
    words = arguments(checkpoints, table, tmp_path / "e")
    words[words.index(str(table / "data.csv"))] = str(tmp_path / "blank.csv")
    code, message = fails(words, capsys)
    first, then = message.index("52 of 60 records were left out"), message.index("fold")
    assert code == 3 and first < then and "text" in message[first:then] and "and 49 more" in message
    frame[frame.harmful == 1].to_csv(tmp_path / "one.csv", index=False)
    words = arguments(checkpoints, table, tmp_path / "c")
    words[words.index(str(table / "data.csv"))] = str(tmp_path / "one.csv")
    code, message = fails(words, capsys)
    assert code == 3 and "one class" in message
    frame[frame.box.isin(["box0", "box1", "box2", "box3"])].to_csv(tmp_path / "few.csv", index=False)
    words[words.index(str(tmp_path / "one.csv"))] = str(tmp_path / "few.csv")
    words[words.index(str(tmp_path / "c"))] = str(tmp_path / "d")
    code, message = fails(words, capsys)
    assert code == 3 and "group" in message and "fold" in message


def test_broken_missing_and_escaping_images_are_counted(checkpoints, table, tmp_path, capsys):
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    for file in (table / "images").iterdir():
        (root / "images" / file.name).write_bytes(file.read_bytes())
    (root / "images" / "0-0.png").write_bytes(b"not a picture")
    (root / "images" / "1-0.png").unlink()
    frame = pd.read_csv(table / "data.csv")
    frame.loc[frame.name == "2-0-open", "file"] = "../secret.png"
    (tmp_path / "secret.png").write_bytes((table / "images" / "0-1.png").read_bytes())
    frame.to_csv(root / "data.csv", index=False)
    words = arguments(checkpoints, root, tmp_path / "out")
    assert main([*words, "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    problems = printed["dataset"]["problem_list"]
    assert printed["dataset"]["problems"] == 5
    assert printed["dataset"]["samples"] == len(frame) - 5, "items are those that were read"
    assert sum("0-0.png" in text and "not a readable image" in text for text in problems) == 2
    assert sum("1-0.png" in text for text in problems) == 2
    assert sum("secret.png" in text and "root" in text for text in problems) == 1
    code, message = fails([*arguments(checkpoints, root, tmp_path / "strict"), "--strict"], capsys)
    assert code == 3 and ".png" in message


def test_nan_in_activations_names_block_and_sample(checkpoints, table, tmp_path, capsys):
    import torch

    model, processor = tiny_model("llava")
    with torch.no_grad():
        model.model.language_model.layers[2].mlp.down_proj.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    code, message = fails(arguments(tmp_path, table, tmp_path / "out"), capsys)
    assert code == 4 and "NaN" in message and "layers.2.mlp.down_proj" in message
    # past the check at load: the locator's own words name block and sample
    from lvlm_lens import load_dataset
    from lvlm_lens.errors import NumericalError
    from lvlm_lens.measures.evidence import gather

    data = load_dataset(str(table / "data.csv"), root=str(table), id="name", text="question", image="file")[:4]
    with pytest.raises(NumericalError, match=r"block 2 holds NaN.*first: '0-0-open'"):
        gather(LVLM(model, processor), data)


def test_foreign_folder_and_unwritable_folder(checkpoints, table, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not lose me")
    code, message = fails(arguments(checkpoints, table, tmp_path / "mine"), capsys)
    assert code == 8 and "thesis.tex" in message
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "do not lose me"
    (tmp_path / "file").write_text("")
    code, message = fails(arguments(checkpoints, table, tmp_path / "file" / "out"), capsys)
    assert code == 8 and "cannot be written" in message


def test_out_of_memory_halves_the_batch(table, monkeypatch):
    """A real allocator limit is not to be had on a CPU, so the kernel's error is raised where batches are too big."""
    import torch

    from lvlm_lens import load_dataset
    from lvlm_lens.measures.evidence import gather

    data = load_dataset(
        str(table / "data.csv"), root=str(table), id="name", text="question", image="file", label="harmful", group="box"
    )[:12]
    model = LVLM(*tiny_model("llava"))
    whole = gather(model, data, batch_size=12)
    sizes = []
    real = model.model.forward

    def small_memory(*args, **kwargs):
        rows = kwargs["input_ids"].shape[0]
        sizes.append(rows)
        if rows > 3:
            raise torch.OutOfMemoryError("out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", small_memory)
    parts = gather(model, data, batch_size=12)
    assert max(sizes) > 3 and sizes[-1] <= 3  # the rows of a prompt run in two parts are counted twice
    np.testing.assert_allclose(parts.resid, whole.resid, atol=1e-5)
    model.beginnings.reason, sizes[:] = "whole prompts", []
    parts = gather(model, data, batch_size=12)
    assert sizes == [12, 6, 3, 3, 6, 3, 3]
    np.testing.assert_allclose(parts.resid, whole.resid, atol=1e-5)


def test_unusable_settings(tmp_path, capsys):
    with pytest.raises(UsageError, match="did you mean model"):
        resolve_config(None, {"modle": "x"})
    with pytest.raises(UsageError, match="folds"):
        SweepConfig(folds=1)
    (tmp_path / "b.yaml").write_text("blocks: 3\n")
    assert resolve_config(str(tmp_path / "b.yaml"), {}).blocks == "3"
    for line, word in (
        ("limit: [1, 2]", "limit"), ("seed: true", "seed"), ("dataset: 3", "quotes"), ("columns: {text: 3}", "columns"),
        ("seed: -1", "2^32"), ("seed: 4294967296", "2^32"), ("strict: 1", "strict"),
        ("columns: [a]", "columns"), ("special_tokens: keep", "escape"), ("[" * 5000, "read"),
    ):  # fmt: skip
        (tmp_path / "t.yaml").write_text(line)
        code, message = fails(["sweep", "--config", str(tmp_path / "t.yaml")], capsys)
        assert code == 2 and word in message, line
    for text in ("3-99", "x", "-13"):
        with pytest.raises(UsageError, match="blocks"):
            parse_blocks(text, 12)
    assert parse_blocks("0-2,5,-1", 12) == [0, 1, 2, 5, 11]
    (tmp_path / "c.yaml").write_text("limit: [1\n")
    code, message = fails(["sweep", "--config", str(tmp_path / "c.yaml")], capsys)
    assert code == 2 and "c.yaml" in message
    (tmp_path / "d.yaml").write_text("limit: 40\nseed: 3\n")
    assert resolve_config(str(tmp_path / "d.yaml"), {"seed": 4, "limit": None}).to_dict()["seed"] == 4
    assert resolve_config(str(tmp_path / "d.yaml"), {}).limit == 40
    code, message = fails(["sweep", "--positions", "qestion[-1]", "--out", str(tmp_path / "o")], capsys)
    assert code == 5 and "did you mean question" in message


def test_limit_keeps_groups_whole(mini_data):
    small = limited(mini_data, 100, seed=0)
    assert 90 <= len(small) <= 100
    assert [s.id for s in limited(mini_data, 100, seed=0)] == [s.id for s in small]
    kept = {s.group for s in small}
    assert sum(s.group in kept for s in mini_data) == len(small)


def test_dry_run_spends_nothing(tmp_path, capsys):
    assert main(["sweep", "--dry-run", "--json", "--limit", "40", "--out", str(tmp_path / "never")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["samples"] <= 40 and printed["flops"] > 0
    stages = printed["seconds_by_stage"]
    assert set(stages) >= {"reading the twin", "locating", "measures", "patching", "SASA", "defences", "figures"}
    assert min(stages.values()) > 0 and printed["seconds"] == pytest.approx(sum(stages.values()), abs=1)
    assert 0 < printed["peak_bytes"] < printed["device_bytes"] and printed["largest_batch_size"] >= 32
    config = SweepConfig(limit=40, pairs=0, sasa=False, defenses=False, twin=False, batch_size=4)
    less = estimate_sweep(config)
    assert not {"patching", "SASA", "defences"} & set(less["seconds_by_stage"])
    assert less["seconds_by_stage"]["reading the twin"] == 0 and less["peak_bytes"] < printed["peak_bytes"]
    assert not (tmp_path / "never").exists()


def test_report_escapes_and_stands_alone(run, tmp_path):
    from lvlm_lens.report import render_report

    evil = tmp_path / "evil"
    shutil.copytree(run.folder, evil)
    data = json.loads((evil / "result.json").read_text())
    data["dataset"]["problem_list"] = ["<script>alert(1)</script>"]
    (evil / "result.json").write_text(json.dumps(data))
    page = render_report(evil)
    assert "<script>alert(1)" not in page and "&lt;script&gt;" in page
    assert "https://" not in page and 'src="http' not in page
    assert page.count("<figure>") == len(run.data["figures"])


def test_page_and_terminal_say_the_same_once(run, capsys):
    """Every table stands once, votes are counted alike, and a share perceived without a role says what it is."""
    from lvlm_lens.commands.sweep import print_summary
    from lvlm_lens.locate.consensus import votes_text
    from lvlm_lens.report import render_report

    page = render_report(run.folder)
    for heading in ("Which measures agree?", "Does it cause the refusal?", "Does SASA help here?"):
        assert page.count(f">{heading}</h2>") == 1, heading
    assert page.count("<caption>Consensus of the counted measures</caption>") == 1
    print_summary(run)
    shown = " ".join(capsys.readouterr().out.split())
    for role in run.data["consensus"].values():
        assert votes_text(role) in page and votes_text(role) in shown
    assert not run.roles.perception.found  # random weights
    assert "not counted, because perception was" in shown and "not counted, because perception was" in page
    assert all(row["perceived"]["value"] is None for row in run.data["quadrants"])


def test_match_keeps_items_alike_in_length_and_brightness(checkpoints, table):
    """Twice as long where harmful, for half of the items: those go, and the note counts what stays."""
    rows = pd.read_csv(table / "data.csv")
    longer = rows.index < len(rows) // 2
    rows.loc[longer & (rows.harmful == 1), "question"] += " Please answer this very long question in many words."
    rows.to_csv(table / "longer.csv", index=False)
    columns = {"id": "name", "text": "question", "image": "file", "label": "harmful", "group": "box"}
    config = SweepConfig(
        model=str(checkpoints / "llava"), dataset=str(table / "longer.csv"), root=str(table), columns=columns
    )
    every = load_inputs(config)[1]
    kept = load_inputs(replace(config, match="nuisance"))[1]
    assert sum(sample.harmful for sample in kept) == len(kept) / 2
    assert not any("Please" in sample.text for sample in kept)
    assert 10 <= len(kept) < len(every) == 60
    assert f"{len(kept)} of 60 samples kept" in kept.notes[-1]
    with pytest.raises(UsageError, match="match is 'length'; write nuisance"):
        replace(config, match="length")


def test_exit_codes_are_all_listed():
    import lvlm_lens.cli as cli
    from lvlm_lens import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    listed = cli.__doc__.split("Exit codes:")[1]
    assert all(f"{code} " in listed for code in codes)


def test_run_sweep_from_python(checkpoints, table, tmp_path, monkeypatch):
    config = SweepConfig(
        model=str(checkpoints / "llava"), dataset=str(table / "data.csv"), root=str(table), out=str(tmp_path / "out"),
        blocks="1,-1", twin=False, permutations=20, replicates=100, batch_size=5,
        columns={"id": "name", "text": "question", "image": "file", "label": "harmful", "group": "box"},
    )  # fmt: skip
    stages = []
    rows = []
    real = LVLM.encode

    def encode(self, samples, *args, **options):
        rows.append(1 if isinstance(samples, Sample) else len(samples))
        return real(self, samples, *args, **options)

    monkeypatch.setattr(LVLM, "encode", encode)
    result = run_sweep(config, lambda stage, done, total: stages.append(stage))
    assert max(rows) == config.batch_size  # every stage keeps to it
    assert all(result.data[part]["done"] for part in ("sasa", "defenses"))
    assert result.curves["perception"].blocks == (1, 3)
    assert "random_twin" in result.roles.perception.missing
    assert {"reading the model", "locating", "drawing figures"} <= set(stages)


@pytest.mark.parametrize("name", ["mini-mini", "smol-text-xstest"])
def test_the_committed_run_can_be_continued_by_its_command(name):
    """A newcomer's first command runs into the folder that the repository ships."""
    folder = Path(__file__).parents[2] / "figures" / name
    there = json.loads((folder / "run.json").read_text())
    config = SweepConfig(**{**there["settings"], "out": str(folder)})
    try:
        model, data = load_inputs(config)
    except ModelError:
        pytest.skip("smol's base is not on this machine: lvlm-lens models smol --fetch")
    asked = json.loads(json.dumps(run_identity(there["schema"], config, model, data)))
    settings = {**SweepConfig().to_dict(), **there["settings"]}
    assert {**there, "settings": {k: settings[k] for k in asked["settings"]}} == asked

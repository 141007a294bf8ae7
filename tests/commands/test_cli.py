"""Words on the command line: help at once, exit codes, capture into a store."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lvlm_lens import __version__
from lvlm_lens.cli import COMMANDS, build_parser, main
from lvlm_lens.commands.options import config_from


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom lvlm_lens.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("word", COMMANDS)
def test_every_command_has_its_own_help(word, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser(word).parse_args([word, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_version_and_unknown_word(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and __version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["swep"])
    assert stop.value.code == 2 and "sweep" in capsys.readouterr().err


def test_capture_writes_a_store_and_continues(tmp_path, capsys, mini, mini_data):
    from lvlm_lens.activations.store import ActivationStore
    from lvlm_lens.data.limits import limited

    words = ["capture", "--limit", "20", "--sites", "resid_post,blocks.3.attn.hook_z", "--out", str(tmp_path / "s")]
    assert main([*words, "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    store = ActivationStore.open(tmp_path / "s")
    assert printed["samples"] == len(store.samples) and len(printed["sites"]) == 13
    acts = mini.capture(limited(mini_data, 20, 0), "resid_post", "last")
    by_id = {sample.id: row for row, sample in enumerate(acts.samples)}
    rows = [by_id[name] for name in store.ids]
    np.testing.assert_allclose(store["resid_post", 7], acts["resid_post", 7][rows], atol=1e-5)
    assert main([*words, "--quiet"]) == 0  # continues: nothing left to do
    assert main([*words[:-1], str(tmp_path / "s"), "--quiet", "--positions", "all"]) == 8
    assert "positions" in capsys.readouterr().err
    assert main(["capture", "--quiet"]) == 2
    assert "--out" in capsys.readouterr().err


def test_patch_says_how_many_pairs_it_takes(capsys):
    """It said 12 and took 10."""
    with pytest.raises(SystemExit):
        main(["patch", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    options = build_parser("patch").parse_args(["patch", "--out", "x"])
    assert "--pairs N at most N pairs, drawn with --seed" in said
    assert f"the first ones) (default: {config_from(options).pairs})" in said


def test_sasa_maps_the_blocks_that_are_named(capsys):
    """On a deep model all pairs of blocks are hours."""
    assert main(["sasa", "--quick", "--limit", "24", "--blocks", "1,4,-1", "--json", "--quiet"]) == 0
    cells = json.loads(capsys.readouterr().out)["map"]["cells"]
    assert [(cell["safety"], cell["fused"]) for cell in cells] == [(1, 4), (1, 11), (4, 11)]
    assert main(["sasa", "--blocks", "3", "--limit", "8", "--quiet"]) == 2
    assert "at least two different blocks" in capsys.readouterr().err


def test_report_of_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 8
    assert "result.json" in capsys.readouterr().err


def test_datasets_lists_every_row(capsys):
    assert main(["datasets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"mini", "siuo", "mssbench", "mmsafeaware", "xstest"} <= {row["name"] for row in rows}
    assert main(["datasets", "siuo"]) == 0
    assert "siuo_gen.json" in capsys.readouterr().out
    assert main(["datasets", "suio"]) == 3
    assert "siuo" in capsys.readouterr().err


def test_a_reader_that_stops_early_gets_no_traceback():
    """``lvlm-lens models mini | head -1``."""
    command = f"{sys.executable} -m lvlm_lens models mini | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert done.stderr == ""

"""What a newcomer meets: a first word at once, help with an example, an end that says what to type next."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvlm_lens import load_dataset
from lvlm_lens.cli import COMMANDS, build_parser, main
from lvlm_lens.commands.console import WIDTH
from lvlm_lens.progress import SHARES, each, listening, part, stage, step

HEAVY = {"torch", "transformers", "nnsight", "transformer_lens", "skdim", "numba", "plotly", "matplotlib", "sklearn"}
RUNS = {
    "sweep": [], "locate": [], "capture": ["--out", "x"], "rivals": [], "patch": ["--out", "x"], "sasa": [],
    "evaluate": [], "reproduce": ["hiddendetect"], "selftest": [], "train": ["sft"], "compare": ["a", "b"],
    "bench": ["capture"],
}  # fmt: skip


@pytest.mark.parametrize("word", RUNS)
def test_the_first_word_comes_before_anything_heavy(word):
    """The line is made with nothing loaded; so it stands there in a fraction of a second on any machine."""
    script = (
        "import sys\nfrom importlib import import_module\nfrom lvlm_lens.cli import build_parser\n"
        f"words = {[word, *RUNS[word]]!r}\noptions = build_parser(words[0]).parse_args(words)\n"
        f"line = import_module('lvlm_lens.commands.{word}').opening(options)\n"
        f"assert len(line) > 10, line\nassert not {HEAVY!r} & set(sys.modules), sorted({HEAVY!r} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_sweep_needs_no_library_that_only_its_options_use():
    script = (
        "import sys\nimport lvlm_lens.sweep\n"
        "assert not {'nnsight', 'transformer_lens', 'skdim', 'numba', 'plotly'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_overview_is_grouped_and_every_command_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for group in {about.group for about in COMMANDS.values()}:
        assert f"{group}:" in shown
    for word, about in COMMANDS.items():
        assert re.search(rf"^  {word}\b", shown, re.M) and f"$ {about.example}" in shown


@pytest.mark.parametrize("word", COMMANDS)
def test_examples_parse_and_options_say_their_defaults(word, capsys):
    build_parser(word).parse_args(COMMANDS[word].example.split()[1:])
    with pytest.raises(SystemExit):
        build_parser(word).parse_args([word, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "example:" in told
    parser = build_parser(word)
    own = next(a for a in parser._actions if a.dest == "command").choices[word]
    silent = [
        action.option_strings[0] for action in own._actions
        if action.option_strings and action.dest != "help"
        and not re.search(r"default|to be given", action.help or "")
    ]  # fmt: skip
    assert silent == []


def test_columns_say_what_is_meant_when_nothing_is_given(capsys):
    with pytest.raises(SystemExit):
        build_parser("sweep").parse_args(["sweep", "--help"])
    assert "default: text, else prompt, else question" in " ".join(capsys.readouterr().out.split())


def test_a_data_set_prints_as_five_lines(mini_data):
    assert str(mini_data).count("\n") == 4 and "310 harmful, 320 harmless" in str(mini_data)
    assert max(map(len, str(load_dataset("xstest")).splitlines())) < 150


@pytest.mark.parametrize("word", ["models", "datasets"])
def test_tables_fit(word, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main([word]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-4])) <= WIDTH
    assert "Found:" in shown and "Next: lvlm-lens" in shown
    if word == "models":
        assert "llava-hf/llava-1.5-7b-hf" in shown


def test_a_bar_moves_from_deep_inside_and_never_back():
    heard: list[tuple[str, int, int]] = []
    with listening(lambda name, done, total, what="": heard.append((name, done, total))), stage("outer"):
        for _ in each(range(3)):
            with stage("inner"), part(0.2, 0.9):
                for number in range(4):
                    step(number + 1, 4)
    shares = [done for _, done, total in heard if total == SHARES]
    assert shares == sorted(shares) and len(set(shares)) > 10 and shares[-1] == SHARES
    assert {name for name, *_ in heard} == {"outer"}
    assert all(share < SHARES for share in shares[:-1])


def test_sigterm_ends_like_ctrl_c_and_the_same_command_continues(tmp_path):
    words = [sys.executable, "-m", "lvlm_lens", "capture", "--out", str(tmp_path / "acts"), "--batch-size", "16"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert run.stderr is not None
    said = ""
    deadline = time.monotonic() + 240
    while "capturing" not in said and time.monotonic() < deadline:
        said += run.stderr.readline()
    run.send_signal(signal.SIGTERM)
    _, rest = run.communicate(timeout=120)
    assert run.returncode == 143, said + rest
    assert "ended by SIGTERM; the same command continues" in rest and "Traceback" not in rest
    assert main(["capture", "--out", str(tmp_path / "acts"), "--quiet", "--batch-size", "16"]) == 0


def test_what_was_not_kept_is_said(capsys, monkeypatch):
    from lvlm_lens.commands import sasa

    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sasa, "run", stop)
    assert main(["sasa"]) == 130
    assert "nothing was kept; with --out DIR" in capsys.readouterr().err
    assert main(["sasa", "--out", "x"]) == 130
    assert "the same command continues" in capsys.readouterr().err

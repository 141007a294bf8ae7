"""A sweep that was killed in any of its stages and is run again gives what an undisturbed one gives."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
KILLS = [("reading", 3), ("locate", 0), ("measures", 0), ("patch", 6), ("sasa", 9), ("defenses", 12), ("figures", 0)]
MEASURED = {"timings", "processor_seconds", "environment", "out", "cost", "seconds", "notes"}
"""Parts of a result that say where and how fast it was made."""


def run(folder: Path, stage: str, forwards: int) -> int:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "sweep_killing.py"), str(folder), stage, str(forwards)]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def found(folder: Path) -> Any:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in MEASURED}
        return [without(item) for item in value] if isinstance(value, list) else value

    return without(json.loads((folder / "result.json").read_text()))


@pytest.mark.slow
def test_killed_in_each_stage_and_continued(tmp_path):
    assert run(tmp_path / "whole", "", -1) == 0
    for stage, forwards in KILLS:  # one after the other in one folder: each run begins where the last one died
        assert run(tmp_path / "killed", stage, forwards) == -signal.SIGKILL, stage
        assert not (tmp_path / "killed" / "result.json").exists()
    assert run(tmp_path / "killed", "", -1) == 0
    assert found(tmp_path / "killed") == found(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("[!.]*.partial"))

"""A store survives what happens to processes and disks: kills, a full disk, two writers, no permission."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def log():
    """Everything runs in one process that imports once and forks; see store_killing.py."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # a child gives its rights away and must still get here
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        env["PYTHONPATH"] = str(Path(__file__).parents[2])
        script = str(Path(__file__).with_name("store_killing.py"))
        done = subprocess.run([sys.executable, script, place], capture_output=True, text=True, env=env, timeout=900)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines()]


def events(log, name):
    return [event for event in log if event["event"] == name]


def test_the_same_capture_twice_gives_the_same_bytes(log):
    (event,) = events(log, "whole")
    assert event["code"] == event["again"] == 0
    assert event["identical"] and event["files"] > 20


def test_ten_kills_at_random_moments_then_the_same_command(log):
    found = events(log, "kill")
    assert len(found) == 10
    assert all(event["signal"] == 9 and event["resumed"] == 0 for event in found)
    assert all(event["damaged"] == 0 for event in found)  # nothing half-written counts as finished
    assert all(event["identical"] for event in found)
    # the kills fell into the work, not only before or after it
    assert any(0 < event["finished"] < event["shards"] for event in found if event["shards"])


def test_two_processes_share_one_store(log):
    (event,) = events(log, "two")
    assert event["codes"] == [0, 0]
    assert event["identical"]
    assert sum(event["pieces"]) == 48  # 20 rows without and 76 with a picture, two per batch: none done twice
    assert min(event["pieces"]) > 0


def test_a_living_writer_takes_over_from_a_killed_one(log):
    (event,) = events(log, "widow")
    assert event["codes"] == [-9, 0]
    assert event["identical"]


def test_no_room_for_a_chunk_is_an_error_and_finished_rows_are_kept(log):
    (event,) = events(log, "full")
    assert event["type"] == "RunFolderError" and event["code"] == 8
    assert "size limit" in event["error"]
    assert event["again"] == 0 and event["identical"]


def test_a_full_disk_is_an_error_and_the_capture_goes_on_when_there_is_room(log):
    (event,) = events(log, "disk")
    if not event["mounted"]:  # no right to mount a small disk here: the test above has met the same error path
        return
    assert event["type"] == "RunFolderError" and "the disk is full" in event["error"]
    assert event["finished"] > 0 and event["damaged"] == 0
    assert event["enlarged"] and event["identical"]


def test_a_folder_without_permission_is_an_error_that_says_so(log):
    (event,) = events(log, "read-only")
    assert event["type"] == "RunFolderError" and event["code"] == 8
    assert "permission is denied" in event["error"]
    assert event["left"] == 0

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing may try the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with spinning thread pools are slower than one

import pytest


@pytest.fixture(scope="session")
def mini():
    from lvlm_lens import LVLM

    return LVLM.from_pretrained("mini")


@pytest.fixture(scope="session")
def mini_data():
    from lvlm_lens import load_dataset

    return load_dataset("mini")


@pytest.fixture(scope="session")
def committed_result():
    """The record of a finished sweep of the embedded model on the embedded set, as the repository holds it."""
    import json
    from pathlib import Path

    return json.loads((Path(__file__).parents[1] / "figures" / "mini-mini" / "result.json").read_text())

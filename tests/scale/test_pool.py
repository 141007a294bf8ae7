"""The pool of workers: equal bytes, deaths, errors, addresses where nobody is.  Real Ray, real processes."""

import os
import re
import socket
import time
from pathlib import Path

import pytest
from scale_jobs import Squares

from lvlm_lens.errors import LensError, ModelError, RunFolderError, UsageError
from lvlm_lens.scale import connect, run_job

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def workers_find_the_tests(monkeypatch):
    here = Path(__file__).parent
    path = [str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


def values(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.values")}


def here(folder, count):
    opened = Squares(str(folder), count).open()
    for shard in opened.shards:
        opened.compute(shard)
    return values(folder)


def test_two_workers_a_death_an_error_and_a_model_that_does_not_load(tmp_path):
    wanted = here(tmp_path / "alone", 12) if (tmp_path / "alone").mkdir() is None else {}
    for name in ("two", "killed", "tired", "broken", "unloadable"):
        (tmp_path / name).mkdir()
    said = []
    with connect(2) as cluster:
        states = []
        run_job(Squares(str(tmp_path / "two"), 12), cluster, progress=states.append)
        assert values(tmp_path / "two") == wanted
        assert states[-1].done == states[-1].total == 12
        assert [state.done for state in states] == list(range(13)) and states[0].workers == 2

        run_job(Squares(str(tmp_path / "killed"), 12, dying="004", times=1), cluster, say=said.append)
        assert values(tmp_path / "killed") == wanted
        assert len(list((tmp_path / "killed").glob("004.killed*"))) == 1
        assert len(said) == 1 and re.search(r"a worker died (with|over) shards? .*\b004\b", said[0])

        with pytest.raises(ModelError, match=r"^004: 2 workers died over it"):
            run_job(Squares(str(tmp_path / "tired"), 12, dying="004", times=9), cluster, deaths=1)
        assert len(list((tmp_path / "tired").glob("004.killed*"))) in (2, 3)  # and once with another shard in hand
        assert values(tmp_path / "tired") == {k: v for k, v in wanted.items() if k != "004.values"}

        with pytest.raises(LensError, match=r"(?s)squares, shard 007: ValueError: seven is no prime here.*compute"):
            run_job(Squares(str(tmp_path / "broken"), 12, broken="007"), cluster)
        run_job(Squares(str(tmp_path / "broken"), 12), cluster)  # the same command, mended
        assert values(tmp_path / "broken") == wanted
        twice = [path for path in (tmp_path / "broken").glob("*.by*") if path.read_text().count("\n") > 1]
        assert not twice  # what was finished was not computed again

        with pytest.raises(ModelError, match=r"^config.json names no architecture; give a folder that holds a model$"):
            run_job(Squares(str(tmp_path / "unloadable"), 12, unloadable=True), cluster)
    assert not ray.is_initialized()
    assert not list(tmp_path.glob("*/.shared-*"))


def test_nobody_at_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(UsageError, match=f"no Ray cluster answers at '127.0.0.1:{port}'.*ray start --head"):
            connect(None, f"127.0.0.1:{port}").__enter__()


@pytest.mark.parametrize("address", ["nowhere:port", "127.0.0.1:99999999"])
def test_no_address(address):
    with pytest.raises(UsageError, match=r"address|answers"):
        connect(None, address).__enter__()


def test_how_many_workers():
    with pytest.raises(UsageError, match="--workers N"):
        connect(None).__enter__()
    with pytest.raises(UsageError, match="at least 1"):
        connect(0).__enter__()


def test_only_a_capture_writes_to_addresses(capsys):
    from lvlm_lens.cli import main

    assert main(["sweep", "--out", "s3://bucket/run", "--workers", "2", "--quiet"]) == 2
    assert "sweep writes to folders, and" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written():
    with pytest.raises(RunFolderError, match="cannot be written"):
        run_job(Squares("/proc/nowhere", 2), None)


@pytest.mark.slow
def test_a_folder_that_is_not_shared(tmp_path):
    """A node that has something else mounted where the run folder lies: named, before anything is computed."""
    import shutil
    import subprocess
    import sys

    from ray.cluster_utils import Cluster as Nodes

    here = tmp_path / "run"
    here.mkdir()
    hide = f"mount -t tmpfs none {here}"
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "sh", "-c", hide]).returncode:
        pytest.skip("a mount of its own for one process needs root")
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    start = f"{Path(sys.executable).parent}/ray start --address {nodes.address} --num-cpus 1 --block"
    other = subprocess.Popen(["unshare", "--mount", "sh", "-c", f"{hide} && exec {start}"])
    try:
        with connect(2, nodes.address) as cluster:
            until = time.time() + 120
            while len([node for node in ray.nodes() if node["Alive"]]) < 2 and time.time() < until:
                time.sleep(0.5)
            with pytest.raises(RunFolderError, match=rf"the worker on .* does not see '{here}': --ray needs a folder"):
                run_job(Squares(str(here), 4), cluster)
        assert not list(here.glob("*.values")) and RunFolderError.exit_code == 8
    finally:
        other.terminate()
        other.wait(60)
        nodes.shutdown()


@pytest.mark.slow
def test_a_node_that_is_removed_without_grace(tmp_path):
    """Shards in flight on a lost node go to the other one, and the bytes are those of one process."""
    from threading import Timer

    from ray.cluster_utils import Cluster as Nodes

    (tmp_path / "alone").mkdir()
    (tmp_path / "nodes").mkdir()
    wanted = here(tmp_path / "alone", 60)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    second = nodes.add_node(num_cpus=1)
    try:
        with connect(2, nodes.address) as cluster:
            Timer(4.0, nodes.remove_node, (second,), {"allow_graceful": False}).start()
            run_job(Squares(str(tmp_path / "nodes"), 60, pause=0.3), cluster)
        assert values(tmp_path / "nodes") == wanted
    finally:
        nodes.shutdown()

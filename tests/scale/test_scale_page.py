"""The recipes of docs/scale.md: shell that is shell, a job whose fields exist, and those that run on one machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
SBATCH, ARRAY = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", PAGE, re.DOTALL)
JOB = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
CAPTURE = ["capture", "--model", "mini", "--dataset", "mini", "--limit", "160", "--batch-size", "8"]

RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector",
    "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode",
    "entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished",
    "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
"""Fields of a RayJob's spec, read in KubeRay's rayjob_types.go (ray.io/v1)."""
CLUSTER = {
    "rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions",
    "suspend", "headServiceAnnotations", "gcsFaultToleranceOptions", "managedBy",
}  # fmt: skip
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "numOfHosts", "suspend"}


@pytest.mark.parametrize("script", [SBATCH, ARRAY])
def test_the_scripts_are_shell(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    assert all(line.startswith("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH"))


def test_the_commands_of_the_recipes_are_ours():
    from lvlm_lens.cli import build_parser

    words = [re.sub(r"\\\n", " ", script) for script in (SBATCH, ARRAY)]
    words.append("lvlm-lens " + JOB["spec"]["entrypoint"].split("lvlm-lens ", 1)[1])
    for text in words:
        line = re.search(r"^lvlm-lens (.*)$", text, re.MULTILINE)[1]
        command, *rest = [word.strip('"') for word in line.split()]
        build_parser(command).parse_args([command, *rest])


def test_the_job_has_fields_that_exist():
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    spec = JOB["spec"]
    assert set(spec) <= RAY_JOB and isinstance(spec["entrypoint"], str) and isinstance(spec["backoffLimit"], int)
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= CLUSTER
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) <= {"rayStartParams", "template", "serviceType", "headService", "enableIngress"}
    assert set(workers) <= GROUP and workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # map[string]string
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    asked = int(re.search(r"--workers (\d+)", spec["entrypoint"])[1])
    assert asked + spec["entrypointNumGpus"] == workers["replicas"]  # the driver's card is no worker's
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        assert cluster["rayVersion"] == metadata.version("ray")


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def _ours(words, **more):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "lvlm_lens", *words], env=env, **more)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "store"
    assert _ours([*CAPTURE, "--out", str(folder), "--quiet"]).wait(400) == 0
    return _files(folder)


@pytest.mark.slow
def test_plain_processes_share_a_store_through_claims(tmp_path, alone):
    """What the array of jobs does: the same command, several times at once."""
    assert "lvlm-lens capture" in ARRAY and "--ray" not in ARRAY
    words = [*CAPTURE, "--out", str(tmp_path / "store"), "--quiet"]
    processes = [_ours(words) for _ in range(3)]
    ledger = tmp_path / "store" / "ledger"
    until = time.time() + 300
    while time.time() < until and not (ledger.is_dir() and list(ledger.glob("[0-9]*.json"))):
        time.sleep(0.05)
    processes[0].send_signal(signal.SIGKILL)  # a preempted job: its claim is let go by the system
    assert [process.wait(400) for process in processes] == [-signal.SIGKILL, 0, 0]
    assert _files(tmp_path / "store") == alone


@pytest.mark.slow
def test_the_ray_script_on_one_machine(tmp_path, alone):
    """The whole script, with stand-ins for SLURM's own two programs, and the capture in place of the sweep."""
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    programs = tmp_path / "bin"
    for name, text in {
        "scontrol": 'echo "$(hostname)"',
        "srun": 'while [[ "$1" == -* ]]; do [[ "$1" == -w ]] && shift; shift; done; exec "$@"',
        "lvlm-lens": f'exec {sys.executable} -m lvlm_lens "$@"',
    }.items():
        programs.mkdir(exist_ok=True)
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    activate = tmp_path / "lens" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{programs}:{Path(sys.executable).parent}:$PATH"\n')
    (tmp_path / "lens" / "ray-token").write_text("0123456789abcdef0123456789abcdef\n")
    script, count = re.subn(
        r"lvlm-lens sweep .*?--out /shared/runs/llava",
        f"lvlm-lens {' '.join(CAPTURE)} --workers 2 --quiet --out /shared/store", SBATCH, flags=re.DOTALL,
    )  # fmt: skip
    assert count == 1
    here = {"/shared": str(tmp_path), "6379": str(port), "OMP_NUM_THREADS=4": "OMP_NUM_THREADS=1"}
    for there, ours in here.items():
        script = script.replace(there, ours)
    (tmp_path / "lens.sbatch").write_text(script)
    env = {**os.environ, "SLURM_JOB_NODELIST": "here"}
    job = subprocess.Popen(["bash", str(tmp_path / "lens.sbatch")], env=env)
    started = set()
    try:
        until = time.time() + 500
        while job.poll() is None and time.time() < until:
            with suppress(psutil.NoSuchProcess):
                started |= set(psutil.Process(job.pid).children(recursive=True))
            time.sleep(0.2)
        assert job.returncode == 0
        assert _files(tmp_path / "store") == alone
    finally:  # SLURM ends a job's steps with the job
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()

"""Run by test_store_kill.py in a process of its own: it imports once, then forks captures and kills them.

Prints one JSON line an event.  Torch has run nothing before the forks, so children are whole.
"""

import ctypes
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import zarr  # noqa: F401  (imported before the forks, like the rest)
from PIL import Image

from lvlm_lens import LVLM, Sample
from lvlm_lens.activations import ActivationStore, capture_to
from lvlm_lens.data.images import ImageObject
from lvlm_lens.models.tiny import tiny_model

torch.set_num_threads(1)
ROWS = 96


def data():
    noise = np.random.default_rng(0)
    pictures = [ImageObject(Image.fromarray(noise.integers(0, 255, (32, 32, 3), dtype=np.uint8))) for _ in range(12)]
    words = "Can my toddler play with this?"
    return [
        Sample(id=f"s{i}", text=words * (1 + i % 4), images=(pictures[i % 12],) if i % 5 else ()) for i in range(ROWS)
    ]


def job(path, progress=None):
    model, processor = tiny_model("llava")
    return capture_to(
        LVLM(model, processor), data(), path, "resid_post", "all", logits=True, batch_size=2, progress=progress
    )


def fork(path, prepare=lambda: None, report=None):
    """Start a capture in a child; its exit code is 0, or the error's with its words in ``report``."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        prepare()
        seen = []
        job(path, lambda done, total: seen.append(done))
        if report is not None:
            report.write_text(json.dumps({"pieces": len(seen)}))
        code = 0
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        if report is not None:
            report.write_text(json.dumps({"type": type(error).__name__, "error": str(error)}))
    finally:
        os._exit(code)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tree(path):
    """Name and content of every file of a store."""
    files = sorted(p for p in Path(path).rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def say(**event):
    print(json.dumps(event), flush=True)


def kills(root, reference, seconds, wanted):
    """Kill at random moments of fresh captures until ``wanted`` kills met unfinished stores; resume each."""
    moments = random.Random(1)
    for number in range(4 * wanted):
        path = root / f"killed{number}"
        moment = moments.uniform(0.3, 1.0) * seconds  # before that the model is built
        child = fork(path)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        code = wait(child)
        if code == 0:
            continue  # it was faster this time
        finished, total = 0, None
        if (path / "manifest.json").is_file():
            store = ActivationStore.open(path)
            finished, total = len(store.ledger.finished()), store.layout.shards
            # what the ledger calls finished is whole
            damaged = len(store.verify())
        else:
            damaged = 0
        left = len(list(path.rglob("*.partial"))) if path.exists() else 0
        again = wait(fork(path))
        say(
            event="kill",
            at=round(moment, 3),
            signal=-code,
            finished=finished,
            shards=total,
            damaged=damaged,
            partial_files=left,
            resumed=again,
            identical=tree(path) == reference,
        )
        wanted -= 1
        if not wanted:
            return


def small_disk(place, size, again=False):
    """Mount a disk of ``size`` bytes at ``place``, seen by this process only; False where that is not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    private, remount = 0x44000, 0x20
    if not again and (libc.unshare(0x20000) or libc.mount(None, b"/", None, private, None)):
        return False
    place.mkdir(exist_ok=True)
    options = f"size={size}".encode()
    return libc.mount(b"none", str(place).encode(), b"tmpfs", remount if again else 0, options) == 0


def full_disk(root, reference):
    """Fill a small disk, make it larger, go on: all in one child, which alone sees the disk."""
    report, place = root / "disk.json", root / "disk"
    child = os.fork()
    if child:
        assert wait(child) == 0
        return json.loads(report.read_text())
    event = {"mounted": small_disk(place, 3 * 2**20)}
    if event["mounted"]:
        try:
            job(place)
        except Exception as error:
            event.update(type=type(error).__name__, error=str(error))
        event["finished"] = len(ActivationStore.open(place).ledger.finished())
        event["damaged"] = len(ActivationStore.open(place).verify())
        event["enlarged"] = small_disk(place, 2**28, again=True)
        job(place)
        event["identical"] = tree(place) == reference
    report.write_text(json.dumps(event))
    os._exit(0)


def main():
    root = Path(sys.argv[1])
    start = time.monotonic()
    code = wait(fork(root / "whole"))
    seconds = time.monotonic() - start
    reference = tree(root / "whole")
    second = wait(fork(root / "second"))
    say(event="whole", code=code, again=second, identical=tree(root / "second") == reference, files=len(reference))

    kills(root, reference, seconds, 10)

    reports = [root / "one.json", root / "two.json"]
    both = [fork(root / "both", report=report) for report in reports]
    codes = [wait(child) for child in both]
    pieces = [json.loads(report.read_text()).get("pieces") for report in reports]
    say(event="two", codes=codes, pieces=pieces, identical=tree(root / "both") == reference)

    both = [fork(root / "widow") for _ in range(2)]
    time.sleep(seconds / 3)
    os.kill(both[0], signal.SIGKILL)
    codes = [wait(child) for child in both]
    say(event="widow", codes=codes, identical=tree(root / "widow") == reference)

    report = root / "full.json"
    chunk = max(p.stat().st_size for p in (root / "whole" / "arrays").rglob("c.*"))
    child = fork(
        root / "full",
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (chunk // 2, resource.RLIM_INFINITY)),
        report,
    )
    code = wait(child)
    finished = len(ActivationStore.open(root / "full").ledger.finished())
    again = wait(fork(root / "full"))
    say(
        event="full",
        code=code,
        **json.loads(report.read_text()),
        finished=finished,
        again=again,
        identical=tree(root / "full") == reference,
    )

    say(event="disk", **full_disk(root, reference))

    locked = root / "locked"
    locked.mkdir(mode=0o755)
    locked.chmod(0o555)
    report = root / "reports" / "locked.json"
    report.parent.mkdir()
    report.parent.chmod(0o777)

    def lower():
        job("memory://warm")  # everything is imported before the rights to read it are gone
        if os.geteuid() == 0:
            os.setuid(65534)

    child = fork(locked / "store", lower, report)
    say(event="read-only", code=wait(child), **json.loads(report.read_text()), left=len(list(locked.iterdir())))


if __name__ == "__main__":
    main()

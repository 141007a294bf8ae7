"""The ledger of work that is done piece by piece: whole or absent, never another run's, never silently damaged."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from lvlm_lens.errors import RunFolderError
from lvlm_lens.storage.arrays import load_arrays, save_arrays
from lvlm_lens.storage.pieces import Piece, Pieces


def made(count):
    def make():
        count.append(1)
        return {"x": np.arange(3.0), "n": np.array(7)}, {"failed": [["a", "why"]]}

    return make


def test_a_finished_piece_is_not_made_again(tmp_path):
    count = []
    first = Pieces(tmp_path / "p").made("0001", made(count))
    again = Pieces(tmp_path / "p").made("0001", made(count))
    assert len(count) == 1 and first.facts == again.facts == {"failed": [["a", "why"]]}
    assert again.arrays["x"].tolist() == [0.0, 1.0, 2.0] and again.arrays["n"].shape == ()
    assert Pieces(tmp_path / "p").names() == {"0001"}


def test_a_piece_may_hold_facts_alone(tmp_path):
    Pieces(tmp_path).put("none", {}, {"reason": "no pictures"})
    assert Pieces(tmp_path).get("none") == Piece({}, {"reason": "no pictures"})


def test_a_piece_of_another_head_is_made_anew(tmp_path):
    count = []
    Pieces(tmp_path, {"seed": 0}).made("a", made(count))
    assert Pieces(tmp_path, {"seed": 1}).get("a") is None and not Pieces(tmp_path, {"seed": 1}).names()
    assert Pieces(tmp_path, {"seed": 0}).names() == {"a"}
    Pieces(tmp_path, {"seed": 1}).made("a", made(count))
    assert len(count) == 2 and Pieces(tmp_path, {"seed": 1}).get("a") is not None


def test_without_a_folder_nothing_is_kept():
    count = []
    pieces = Pieces(None)
    assert pieces.made("a", made(count)).facts and pieces.made("a", made(count)).facts
    assert len(count) == 2 and not pieces.names()


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_piece_is_named(tmp_path, damage):
    pieces = Pieces(tmp_path)
    pieces.put("a", {"x": np.ones(100)}, {})
    file = tmp_path / "a.safetensors"
    file.write_bytes(file.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(RunFolderError, match=r"a\.safetensors.*remove it and run again"):
        pieces.get("a")


_WRITER = """
import numpy as np, sys
from pathlib import Path
from lvlm_lens.storage.pieces import Pieces
pieces = Pieces(Path(sys.argv[1]))
print("go", flush=True)
n = 0
while True:
    pieces.put(f"{n:06d}", {"x": np.full(200_000, n)}, {"n": n})
    n += 1
"""


def test_a_writer_that_is_killed_leaves_whole_pieces(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"go\n"
    while len(Pieces(tmp_path).names()) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    pieces = Pieces(tmp_path)
    for name in pieces.names():
        piece = pieces.get(name)
        assert piece is not None and (piece.arrays["x"] == piece.facts["n"]).all() and int(name) == piece.facts["n"]


def test_equal_content_gives_equal_bytes(tmp_path):
    arrays, about = {"x": np.arange(3.0)}, {"head": "null", "facts": "{}", "more": "1", "last": "2"}
    for number in range(8):
        save_arrays(tmp_path / f"{number}.safetensors", arrays, about)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert load_arrays(tmp_path / "0.safetensors")[1] == about


def test_files_of_an_earlier_version_keep_their_entries(tmp_path):
    save_file({"x": np.arange(3.0)}, tmp_path / "old.safetensors", metadata={"about": "{}", "curves": "[]"})
    assert load_arrays(tmp_path / "old.safetensors")[1] == {"about": "{}", "curves": "[]"}


def test_a_full_disk_is_said_where_safetensors_writes(tmp_path, monkeypatch):
    """safetensors has an error of its own, with the system's number in its words."""

    def full(*given, **more):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(RunFolderError, match="cannot be written: the disk is full; free some space"):
        save_arrays(tmp_path / "x.safetensors", {"x": np.zeros(3)})
    assert not list(tmp_path.iterdir())

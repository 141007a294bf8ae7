"""What every resumable format stands on: files that are whole or absent, identities, the ledger of shards, arrays.

* ``commit.py``: one atomic commit, synced to the device, for any kind of file.
* ``identity.py``: what a folder belongs to, and the difference in words where it is another's.
* ``folder.py``, ``ledger.py``, ``layout.py``: a folder of shards on a disk or at an fsspec address, and its arrays.
* ``runfolder.py``: the folder of one run.  ``arrays.py``: arrays in one safetensors file.  ``pieces.py``: the ledger of
  work done piece by piece.  ``plain.py``: plain JSON.

Imports nothing of ours but the errors.  A new format is built of these parts; it writes no file by itself.
"""

"""The store against the plain forward and the capture in memory; damage, identity, strange folders."""

import json
import shutil
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM, Sample
from lvlm_lens.activations import ActivationStore, Site, capture_to
from lvlm_lens.data.images import ImageBytes, ImageObject
from lvlm_lens.errors import DataError, RunFolderError, SiteError
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.storage.folder import Folder
from lvlm_lens.storage.ledger import Claims

WORDS = "Can my toddler play with this? "


def pictures(count, seed=0):
    noise = np.random.default_rng(seed)
    return [ImageObject(Image.fromarray(noise.integers(0, 255, (40, 32, 3), dtype=np.uint8))) for _ in range(count)]


@pytest.fixture(scope="module")
def model():
    return LVLM(*tiny_model("llava"), name="tiny llava")


@pytest.fixture(scope="module")
def data():
    shown = pictures(18)
    rows = [(i, WORDS * (1 + i % 3), (shown[i],) if i % 4 else ()) for i in range(18)]
    return [Sample(id=f"s{i}", text=text, images=images, label_joint="safe", meta={"n": i}) for i, text, images in rows]


def hidden_states(model, sample):
    """Oracle: Hugging Face's own hidden states of one sample alone, ``[block + 1, token, d_model]``."""
    inputs = model.forward_inputs(model.encode(sample))
    with torch.inference_mode():
        return torch.stack(model.model(**inputs, output_hidden_states=True).hidden_states)[:, 0]


@pytest.mark.parametrize("address", ["folder", "file", "memory"])
@pytest.mark.parametrize("positions", ["last", "all", "question[-3:] | last"])
def test_a_store_reads_like_the_capture_in_memory(model, data, tmp_path, address, positions):
    place = {"folder": tmp_path / "a", "file": f"file://{tmp_path}/a", "memory": f"memory://{tmp_path.name}"}[address]
    sites = ["resid_post", "z", "embed"]
    store = model.capture(data, sites, positions, to=place, batch_size=4, logits=True)
    memory = model.capture(data, sites, positions, batch_size=4, logits=True)
    assert store.complete and store.verify() == []
    assert store.ids == [sample.id for sample in data] and len(store) == len(data)
    assert store.sites == memory.sites and store.blocks("z") == memory.blocks("z")
    np.testing.assert_array_equal(store.valid, memory.valid)
    for site in memory.sites:
        np.testing.assert_array_equal(store[site], memory.arrays[site])  # NaN where there is no position
    np.testing.assert_array_equal(store.logits, memory.logits)
    np.testing.assert_array_equal(store["resid_post", -1], memory["resid_post", 3])
    np.testing.assert_array_equal(store.view("z").block(2), memory.view("z").block(2))
    np.testing.assert_array_equal(store.view("resid_post", 0).block(1), memory.view("resid_post", 0).block(1))
    assert str(store.positions) == positions
    stored, given = store.samples[5], data[5]
    assert (stored.text, stored.label_joint, stored.quadrant, dict(stored.meta)) == (
        given.text, given.label_joint, given.quadrant, {"n": 5}
    )  # fmt: skip
    assert stored.images[0].key == given.images[0].key
    with pytest.raises(DataError, match="not the picture"):
        stored.images[0].load()


def test_bfloat16_survives_bit_for_bit(data, tmp_path):
    net, processor = tiny_model("llava")
    model = LVLM(net.to(torch.bfloat16), processor)
    store = capture_to(model, data[:6], tmp_path / "b", positions="all", batch_size=1)
    for row, sample in enumerate(data[:6]):
        truth = hidden_states(model, sample)
        for block in range(model.n_blocks - 1):  # HF's last hidden state is after the final norm
            bits = store.stored(("resid_post", block))
            assert bits.dtype == ml_dtypes.bfloat16
            expected = truth[block + 1].view(torch.int16).numpy()
            np.testing.assert_array_equal(bits[row, : len(expected)].view(np.int16), expected)
            np.testing.assert_array_equal(store["resid_post", block][row, : len(expected)], truth[block + 1].float())
    assert store.manifest["identity"]["dtype"] == "bfloat16"


def test_numbers_positions_and_logits_are_those_of_the_plain_forward(model, data, tmp_path):
    store = capture_to(model, data, tmp_path / "a", positions="all", logits=True, batch_size=4)
    for row in (0, 5, 10):
        truth = hidden_states(model, data[row])
        encoded = model.encode(data[row])
        count = int(store.valid[row].sum())
        assert count == encoded.length
        assert store.token_index[row, :count].tolist() == list(range(count))
        assert (store.token_index[row, count:] == -1).all()
        torch.testing.assert_close(torch.from_numpy(store["resid_post", 1][row, :count]), truth[2], atol=2e-4, rtol=0)
        torch.testing.assert_close(torch.from_numpy(store.logits[row]), model.logits(encoded)[0], atol=2e-3, rtol=0)
    last = capture_to(model, data, tmp_path / "l", positions="last")
    assert last.token_index[:, 0].tolist() == [int(store.valid[row].sum()) - 1 for row in range(len(data))]


def test_one_block_is_read_without_the_others_and_never_all_at_once(model, data, tmp_path):
    store = capture_to(model, data, tmp_path / "a", batch_size=4)
    before = store["resid_post", 2]
    for block in (0, 1, 3):
        shutil.rmtree(tmp_path / "a" / "arrays" / f"blocks.{block}.hook_resid_post")
    np.testing.assert_array_equal(ActivationStore.open(tmp_path / "a")["resid_post", 2], before)
    with pytest.raises(SiteError, match="one block at a time"):
        store["resid_post"]
    with pytest.raises(SiteError, match="was not captured"):
        store["mlp_out", 1]


def test_some_rows_of_a_store_and_the_whole_in_memory(model, data, tmp_path):
    store = capture_to(model, data, tmp_path / "a", positions="all", batch_size=4)
    rows = [7, 2, 11]
    part = store.select(rows)
    assert part.ids == ["s7", "s2", "s11"]
    width = part.width
    np.testing.assert_array_equal(part["resid_post", 1], store["resid_post", 1][rows][:, :width])
    np.testing.assert_array_equal(part.valid, store.valid[rows][:, :width])
    again = part.select([2, 0])
    np.testing.assert_array_equal(again["resid_post", 1], part["resid_post", 1][[2, 0]][:, : again.width])
    whole = store.load()
    np.testing.assert_array_equal(whole["resid_post"][:, 2], store["resid_post", 2])
    assert store.nbytes == int(store.valid.sum()) * (4 * 64 * 4 + 4)  # four blocks of 64 floats, and an index


def test_the_position_axis_grows_for_a_prompt_longer_than_the_first_guess(model, tmp_path):
    # the guess is made from the longest words; these have fewer letters and more tokens
    data = [Sample(id="plain", text="Can my toddler play with this? " * 3), Sample(id="odd", text="ξ€漢" * 25)]
    store = capture_to(model, data, tmp_path / "a", positions="all", batch_size=1)
    memory = model.capture(data, positions="all", batch_size=1)
    assert store.valid.sum(axis=1).tolist() == memory.valid.sum(axis=1).tolist()
    assert store.width > store.layout.width
    np.testing.assert_array_equal(store["resid_post", 3], memory["resid_post", 3])
    assert store.verify() == []


# -- identity --------------------------------------------------------------------------------


def test_another_capture_is_refused_field_by_field(model, data, tmp_path):
    capture_to(model, data, tmp_path / "a", batch_size=4)
    other = LVLM(*tiny_model("llava", seed=1))
    net, processor = tiny_model("llava")
    processor.chat_template = processor.chat_template.replace("ASSISTANT", "MODEL")
    cases = [
        ({"model": other}, ["model.weights_hash"]),
        ({"model": LVLM(net, processor)}, ["model.processor_hash"]),
        ({"model": LVLM(model.model, model.processor, system="Be kind.")}, ["model.system"]),
        ({"data": data[:-1]}, ["data.samples: 18 there, 17 now", "data.fingerprint"]),
        ({"data": [replace(data[0], text="Other words"), *data[1:]]}, ["data.fingerprint"]),
        ({"data": [*data[:-1], replace(data[-1], images=tuple(pictures(1, seed=9)))]}, ["data.fingerprint"]),
        ({"sites": "z"}, ["sites: ['blocks.0.hook_resid_post'"]),
        ({"positions": "all"}, ["positions: 'last' there, 'all' now"]),
        ({"dtype": torch.bfloat16}, ["dtype: 'float32' there, 'bfloat16' now"]),
        ({"batch_size": 8, "logits": True}, ["batch_size: 4 there", "logits: False there"]),
    ]
    for change, fields in cases:
        arguments = {"model": model, "data": data, "to": tmp_path / "a", "batch_size": 4, **change}
        with pytest.raises(RunFolderError) as caught:
            capture_to(**arguments)
        for field in fields:
            assert field in str(caught.value)
        assert len(str(caught.value).splitlines()) == 2 + len(fields), str(caught.value)  # these and no others


def test_a_finished_store_is_not_computed_again(model, data, tmp_path):
    capture_to(model, data, tmp_path / "a", batch_size=4)
    seen = []
    handle = model.anatomy.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    try:
        capture_to(model, data, tmp_path / "a", batch_size=4, progress=lambda *_: seen.append(1))
    finally:
        handle.remove()
    assert seen == []


# -- damage ----------------------------------------------------------------------------------


def test_damaged_chunks_are_named_refused_and_mended(model, data, tmp_path):
    place = tmp_path / "a"
    capture_to(model, data, place, positions="all", batch_size=4)
    names = sorted(path.name for path in (place / "arrays" / "blocks.1.hook_resid_post").glob("c.*"))
    assert len(names) >= 2
    whole = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    flipped = place / "arrays" / "blocks.1.hook_resid_post" / names[0]
    content = bytearray(flipped.read_bytes())
    content[len(content) // 3] ^= 4
    flipped.write_bytes(content)
    cut = place / "arrays" / "blocks.2.hook_resid_post" / names[1]
    cut.write_bytes(cut.read_bytes()[:-5])
    empty = place / "arrays" / "position" / sorted(p.name for p in (place / "arrays" / "position").glob("c.*"))[0]
    empty.write_bytes(b"")
    gone = place / "arrays" / "blocks.3.hook_resid_post" / names[0]
    gone.unlink()

    store = ActivationStore.open(place)
    found = {damage.chunk: damage.reason for damage in store.verify()}
    assert set(found) == {str(path.relative_to(place / "arrays")) for path in (flipped, cut, empty, gone)}
    assert "checksum" in found[f"blocks.1.hook_resid_post/{names[0]}"]
    assert found[f"blocks.2.hook_resid_post/{names[1]}"].startswith("truncated")
    assert found[f"position/{empty.name}"].startswith("truncated: 0 of")
    assert found[f"blocks.3.hook_resid_post/{names[0]}"] == "missing"
    for block in (1, 2, 3):
        with pytest.raises(RunFolderError, match=f"blocks.{block}.hook_resid_post/c"):
            store["resid_post", block]
    assert np.isfinite(store["resid_post", 0][store.valid]).all()  # the others are read

    assert len(store.verify(repair=True)) == 4
    assert not store.complete and store.verify() == []
    assert capture_to(model, data, place, positions="all", batch_size=4).verify() == []
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == whole


def test_a_damaged_ledger_entry_is_named(model, data, tmp_path):
    capture_to(model, data, tmp_path / "a", batch_size=4)
    (tmp_path / "a" / "ledger" / "000000.json").write_text('{"shard": 0')
    with pytest.raises(RunFolderError, match=r"ledger/000000\.json is damaged"):
        ActivationStore.open(tmp_path / "a")


def test_an_unreadable_picture_is_left_out_and_said(model, data, tmp_path):
    broken = replace(data[6], images=(ImageBytes(b"no picture"),))
    rows = [*data[:6], broken, *data[7:]]
    with pytest.raises(DataError, match="s6"):
        capture_to(model, rows, tmp_path / "a", batch_size=4)
    told = []
    store = capture_to(model, rows, tmp_path / "b", batch_size=4, on_error=lambda s, e: told.append(s.id))
    assert "s6" in told and list(store.left_out) == ["s6"]
    assert store.ids == [sample.id for sample in data if sample.id != "s6"]
    assert np.isfinite(store["resid_post", 1]).all() and store.complete
    # the same capture after an error in the same process goes on, too
    assert capture_to(model, rows, tmp_path / "a", batch_size=4, on_error=lambda *_: None).complete
    with pytest.raises(DataError, match="none of the 1"):
        capture_to(model, [broken], tmp_path / "c", on_error=lambda *_: None)


def test_an_error_of_the_disk_comes_out_of_the_capture(model, data, tmp_path, monkeypatch):
    place = tmp_path / "a"
    capture_to(model, data, place, batch_size=4)
    whole = ActivationStore.open(place)["resid_post", 1]
    for entry in (place / "ledger").glob("*.json"):
        entry.unlink()
    array = place / "arrays" / "blocks.1.hook_resid_post"
    kept = (array / "zarr.json").read_bytes()
    shutil.rmtree(array)
    array.write_bytes(b"")  # a file where the folder was: the system refuses to write below it
    with pytest.raises(RunFolderError, match=r"blocks\.1\.hook_resid_post"):
        capture_to(model, data, place, batch_size=4)
    assert len(ActivationStore.open(place)) == 0
    array.unlink()
    array.mkdir()
    (array / "zarr.json").write_bytes(kept)
    np.testing.assert_array_equal(capture_to(model, data, place, batch_size=4)["resid_post", 1], whole)


# -- strange folders and hostile files ---------------------------------------------------------


def test_what_is_no_store_is_refused(model, data, tmp_path):
    with pytest.raises(RunFolderError, match="no activation store"):
        ActivationStore.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"other files \(notes.txt\)"):
        capture_to(model, data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunFolderError, match="cannot be written: a part of the path is a file"):
        capture_to(model, data, tmp_path / "notes.txt" / "store")
    with pytest.raises(RunFolderError, match="cannot be opened"):
        ActivationStore.open("nosuchprotocol://bucket/a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "manifest.json").write_text('{"format": "other", "version": 3}')
    with pytest.raises(RunFolderError, match="this reads"):
        ActivationStore.open(tmp_path / "b")
    with pytest.raises(SiteError, match="capture them to memory"):
        capture_to(model, data, tmp_path / "c", sites="pattern")


def test_only_plain_numbers_are_decoded(model, data, tmp_path):
    place = tmp_path / "a"
    capture_to(model, data, place, batch_size=4)
    manifest = json.loads((place / "manifest.json").read_text())
    for name, dtype in (("../../etc", "float32"), (".hidden", "float32"), ("position", "object")):
        hostile = json.loads(json.dumps(manifest))
        hostile["layout"]["arrays"][1].update(name=name, dtype=dtype)
        (place / "manifest.json").write_text(json.dumps(hostile))
        with pytest.raises(RunFolderError, match="none that a store can hold"):
            ActivationStore.open(place)
    (place / "manifest.json").write_text(json.dumps(manifest))
    # an array whose own description names another codec is not written through it
    described = place / "arrays" / "position" / "zarr.json"
    zarr_json = json.loads(described.read_text())
    zarr_json["codecs"].append({"name": "gzip", "configuration": {"level": 1}})
    described.write_text(json.dumps(zarr_json))
    for entry in (place / "ledger").glob("*.json"):
        entry.unlink()
    with pytest.raises(RunFolderError, match="the manifest says plain"):
        capture_to(model, data, place, batch_size=4)


def test_a_ledger_cannot_point_out_of_the_store(model, data, tmp_path):
    capture_to(model, data, tmp_path / "a", batch_size=4)
    entry = next((tmp_path / "a" / "ledger").glob("*.json"))
    record = json.loads(entry.read_text())
    record["checksums"]["../../../secret"] = "0"
    entry.write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match="no array here"):
        ActivationStore.open(tmp_path / "a").verify()


# -- claims ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["folder", "memory"])
def test_a_claim_is_one_writers_until_it_lets_go(tmp_path, address):
    folder = Folder(tmp_path if address == "folder" else f"memory://claims-{tmp_path.name}")
    first, second = Claims(folder), Claims(folder)
    assert first.take(3) and not second.take(3) and second.take(4)
    first.release(3)
    assert second.take(3)
    second.release_all()
    assert first.take(3) and first.take(4)


def test_a_claim_at_a_remote_address_goes_stale(tmp_path, monkeypatch):
    folder = Folder(f"memory://stale-{tmp_path.name}")
    first, second = Claims(folder), Claims(folder)
    assert first.take(0) and not second.take(0)
    record = json.loads(folder.read("claims/000000.lock"))
    record["time"] -= 3600
    folder.commit("claims/000000.lock", json.dumps(record).encode())
    assert second.take(0) and not first.take(0)


def test_image_features_to_a_store(model, data, tmp_path):
    shown = [sample for sample in data if sample.images]
    store = capture_to(model, shown, tmp_path / "a", ["image_features", "vision_resid_post"], batch_size=4)
    memory = model.capture(shown, ["image_features", "vision_resid_post"], batch_size=4)
    for site in (Site("image_features"), Site("vision_resid_post", 1)):
        np.testing.assert_array_equal(store[site], memory.arrays[site])

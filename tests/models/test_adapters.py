"""PEFT adapters: every tensor arrives, they change something, results name them, and patches resume through them."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from prompts import picture
from safetensors.torch import load_file, save_file

from lvlm_lens import LVLM, patch_grid
from lvlm_lens.data import Sample
from lvlm_lens.errors import ModelError
from lvlm_lens.measures.unembedding import unembedding_of
from lvlm_lens.models import extras
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.train.attached import with_adapter

peft = pytest.importorskip("peft")
WEIGHTS = "adapter_model.safetensors"


SAMPLES = [Sample("a", "Is it safe?", (picture(0),)), Sample("b", "May I take it?", (picture(1),))]


def trained(model, folder, targets, seed: int = 0):
    """An adapter with random weights, saved as PEFT saves it."""
    torch.manual_seed(seed)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    wrapped.save_pretrained(folder)
    return wrapped.eval()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tiny checkpoint, an adapter on its attention and MLP, and PEFT's own logits with it."""
    root = tmp_path_factory.mktemp("adapters")
    model, processor = tiny_model("llava")
    model.save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    lvlm = LVLM(model, processor)
    inputs = lvlm.encode(SAMPLES).inputs
    wrapped = trained(model, root / "lora", ["q_proj", "v_proj", "o_proj", "down_proj"])
    with torch.no_grad():
        logits = wrapped(**inputs).logits[:, -1].float()
    return root, logits


@pytest.fixture(scope="module")
def adapted(places) -> LVLM:
    return LVLM.from_pretrained(places[0] / "base", adapter=places[0] / "lora")


def test_the_logits_are_pefts_own_and_the_record_says_how_far_they_moved(places, adapted):
    root, expected = places
    torch.testing.assert_close(adapted.logits(adapted.encode(SAMPLES)), expected, atol=2e-5, rtol=0)
    record = adapted.provenance()["adapter"]
    base = LVLM.from_pretrained(root / "base")
    moved = (base.logits(base.encode(SAMPLES)) - expected).abs().max()
    assert moved > 0.01 and record["largest_difference"] > 0.01
    assert adapted.name == "base+lora" and record["kind"] == "LORA"
    assert record["tensors"] == len(load_file(root / "lora" / WEIGHTS))
    assert base.provenance()["adapter"] is None and base.weights_hash() != adapted.weights_hash()


def test_loading_says_nothing_that_its_user_cannot_act_on(places):
    """bitsandbytes advises a kernel and PEFT reads an old name, at their import, hence a process of its own."""
    root, _ = places
    code = f"from lvlm_lens import LVLM; LVLM.from_pretrained({str(root / 'base')!r}, adapter={str(root / 'lora')!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    said = [line for line in run.stderr.splitlines() if line and "Loading weights" not in line]
    assert said == [] and run.stdout == ""


def test_the_base_is_not_left_frozen(places, tmp_path):
    """PEFT freezes the base, and with it every model that shares its tensors."""
    root, _ = places
    base = LVLM.from_pretrained(root / "base")
    base.model.model.vision_tower.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in base.model.named_parameters()}
    assert set(flags.values()) == {True, False}
    with_adapter(base, root / "lora")
    assert {name: parameter.requires_grad for name, parameter in base.model.named_parameters()} == flags
    model, _ = tiny_model("llava")
    trained(model, tmp_path / "head", ["lm_head"])
    folded = LVLM.from_pretrained(root / "base", adapter=tmp_path / "head")
    assert folded.model.get_output_embeddings().weight.requires_grad


def test_patching_resumes_through_the_adapter(adapted):
    from lvlm_lens.data import Pair

    pairs = [Pair(SAMPLES[0], Sample("c", SAMPLES[0].text, (picture(7),)))]
    arguments = (adapted, pairs, ["resid_post", "z"], "image | last", lambda logits: logits[:, 5] - logits[:, 9])
    resumed = patch_grid(*arguments, per="span", null=0)
    plain = patch_grid(*arguments, per="span", null=0, exact="full")
    assert resumed.engine == "resumed" and resumed.verification["wrong"] == 0
    np.testing.assert_allclose(resumed.values, plain.values, atol=2e-5)


def changed(root, tmp_path, edit):
    folder = tmp_path / "changed"
    shutil.copytree(root / "lora", folder)
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def renamed(tensors):
    for key in [key for key in tensors if "layers.1" in key]:
        tensors[key.replace("layers.1", "layers.77")] = tensors.pop(key)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda tensors: tensors.pop(sorted(tensors)[0]), r"1 tensors did not arrive .*not in the file"),
        (renamed, "has no place in the model"),
        (lambda tensors: [tensors[k].zero_() for k in tensors if "lora_B" in k], "changes no logit"),
    ],
)
def test_what_did_not_arrive_is_an_error(places, tmp_path, edit, words):
    """PEFT alone loads the first two with a warning, and the third silently."""
    folder = changed(places[0], tmp_path, edit)
    with pytest.raises(ModelError, match=words):
        LVLM.from_pretrained(places[0] / "base", adapter=folder, check=False)


def test_an_adapter_of_another_model_says_once_what_does_not_fit(places, tmp_path, recwarn):
    def narrow(tensors):
        tensors.update({name: value[:, :8].clone() for name, value in tensors.items()})

    folder = changed(places[0], tmp_path, narrow)
    with pytest.raises(ModelError, match=r"does not fit .*size mismatch for"):
        LVLM.from_pretrained(places[0] / "base", adapter=folder, check=False)
    shutil.rmtree(folder)
    folder = changed(places[0], tmp_path, renamed)
    with pytest.raises(ModelError, match="did not arrive"):
        LVLM.from_pretrained(places[0] / "base", adapter=folder, check=False)
    assert not [one for one in recwarn if "missing adapter keys" in str(one.message)], "PEFT said it too"


def test_wrong_folders_say_what_to_do(places, tmp_path, monkeypatch):
    root, _ = places
    with pytest.raises(ModelError, match=r"--model BASE --adapter .*lora"):
        LVLM.from_pretrained(root / "lora")
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        LVLM.from_pretrained(root / "base", adapter=root / "base")
    with pytest.raises(ModelError, match="no adapter folder"):
        LVLM.from_pretrained(root / "base", adapter=tmp_path / "nowhere")
    outside = tmp_path / "prompt"
    outside.mkdir()
    (outside / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    with pytest.raises(ModelError, match="acts beside the blocks"):
        LVLM.from_pretrained(root / "base", adapter=outside)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (pickled / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickle"):
        LVLM.from_pretrained(root / "base", adapter=pickled)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'lvlm-lens\[adapters\]'"):
        LVLM.from_pretrained(root / "base", adapter=root / "lora", check=False)


def test_an_adapter_of_the_unembedding_is_in_the_lens(places, tmp_path):
    model, processor = tiny_model("llava")
    inputs = LVLM(model, processor).encode(SAMPLES).inputs
    wrapped = trained(model, tmp_path / "head", ["lm_head", "q_proj"])
    with torch.no_grad():
        expected = wrapped(**inputs).logits[:, -1].float()
    loaded = LVLM.from_pretrained(places[0] / "base", adapter=tmp_path / "head")
    encoded = loaded.encode(SAMPLES)
    torch.testing.assert_close(loaded.logits(encoded), expected, atol=2e-5, rtol=0)
    last = loaded.capture(SAMPLES, f"blocks.{loaded.n_blocks - 1}.hook_resid_post")["resid_post"][:, 0, 0]
    torch.testing.assert_close(unembedding_of(loaded).logits(torch.as_tensor(last)), expected, atol=2e-5, rtol=0)


def test_the_twin_of_an_adapted_model_is_undone(adapted):
    before = {name: value.clone() for name, value in adapted.model.state_dict().items()}
    with adapted.random_twin(0) as twin:
        assert not torch.equal(twin.model.lm_head.weight, before["lm_head.weight"])
    assert all(torch.equal(before[name], value) for name, value in adapted.model.state_dict().items())

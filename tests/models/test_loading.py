"""Loading: from a folder, checked; and what every wrong name, folder or family says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.config import SweepConfig
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.errors import DataError, ModelError, SiteError, UsageError
from lvlm_lens.estimate import estimate_sweep
from lvlm_lens.models.processors import StillVideoProcessor
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for family in ("llava", "qwen2_5_vl", "llama"):
        folder = tmp_path_factory.mktemp("checkpoints") / f"tiny-{family}"
        model, owner = tiny_model(family)
        model.save_pretrained(folder)
        owner.save_pretrained(folder)
        made[family] = folder
    return made


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llama"])
def test_a_saved_model_loads_checked_and_gives_the_same_logits(folders, family):
    loaded = LVLM.from_pretrained(folders[family])
    built = LVLM(*tiny_model(family))
    assert loaded.name == f"tiny-{family}" and loaded.weights_hash() == built.weights_hash()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    images = (ImageObject(Image.fromarray(pixels)),) if built.takes_images else ()
    sample = Sample("a", "Is it safe", images)
    ours, theirs = loaded.encode(sample), built.encode(sample)
    assert torch.equal(ours.inputs["input_ids"], theirs.inputs["input_ids"])
    torch.testing.assert_close(loaded.logits(ours), built.logits(theirs), atol=1e-3, rtol=1e-3)
    assert LVLM.from_pretrained(folders[family], dtype="bfloat16").dtype == torch.bfloat16


def test_weights_of_more_than_2_to_the_24_values_have_a_hash(monkeypatch):
    from lvlm_lens.models import weights

    monkeypatch.setattr(weights, "FULL_HASH_BYTES", 2**20)
    model, tokenizer = tiny_model("llama")
    large = torch.nn.Embedding(2**18 + 1, 64)  # the last index, 2^24 + 63, is no float32 number
    model.extra = large
    loaded = LVLM(model, tokenizer)
    before = loaded.weights_hash()
    assert before.startswith("sampled-") and loaded.weights_hash() == before
    with torch.no_grad():
        large.weight[-1, -1] += 1  # the last value is among those that are read
    assert loaded.weights_hash() != before


def test_videos_are_refused_where_their_library_is_missing():
    with pytest.raises(DataError, match="give pictures"):
        StillVideoProcessor()([np.zeros((2, 8, 8, 3))])


def test_a_checkpoint_whose_parts_lie_is_refused_unless_told(folders, monkeypatch):
    from dataclasses import replace

    from lvlm_lens.models import anatomy

    wrong = replace(anatomy.FAMILIES["llava"], norm="layers.0.input_layernorm")
    monkeypatch.setitem(anatomy.FAMILIES, "llava", wrong)
    with pytest.raises(ModelError, match="fails its checks: plain, with a picture"):
        LVLM.from_pretrained(folders["llava"])
    assert LVLM.from_pretrained(folders["llava"], check=False).n_blocks == 4


def test_a_site_that_is_something_else_is_refused_and_the_model_is_not(folders, monkeypatch):
    from dataclasses import replace

    from lvlm_lens.models import anatomy

    wrong = replace(anatomy.FAMILIES["llava"], mid_norm="input_layernorm")
    monkeypatch.setitem(anatomy.FAMILIES, "llava", wrong)
    loaded = LVLM.from_pretrained(folders["llava"])
    assert loaded.warnings == ("resid_mid cannot be read in 4 blocks",)
    with pytest.raises(SiteError, match=r"resid_mid of block 0 was not found.*does not decide what the block writes"):
        loaded.capture([Sample("a", "Is it safe")], sites="blocks.0.hook_resid_mid")
    assert loaded.capture([Sample("a", "Is it safe")], sites="attn_out")


def test_a_row_whose_part_is_missing_names_it(folders, monkeypatch):
    from dataclasses import replace

    from lvlm_lens.models import anatomy

    monkeypatch.setitem(anatomy.FAMILIES, "llama", replace(anatomy.FAMILIES["llama"], norm="last_norm"))
    with pytest.raises(ModelError, match="no norm at 'last_norm'"):
        LVLM.from_pretrained(folders["llama"])


def test_wrong_names_say_what_is_near(folders, monkeypatch):
    with pytest.raises(ModelError, match="did you mean mini"):
        LVLM.from_pretrained("minni")
    with pytest.raises(ModelError, match="did you mean tiny-llava"):
        LVLM.from_pretrained(folders["llava"].parent / "tiny-lava")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        LVLM.from_pretrained("nobody/never-downloaded")


def test_broken_folders_say_what_is_broken(folders, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        LVLM.from_pretrained(empty)
    garbled = tmp_path / "garbled"
    garbled.mkdir()
    (garbled / "config.json").write_text("{ not json")
    with pytest.raises(ModelError, match="cannot be read"):
        LVLM.from_pretrained(garbled)
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "never_heard_of"}))
    with pytest.raises(ModelError, match="cannot be read"):
        LVLM.from_pretrained(unknown)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((folders["llama"] / "config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        LVLM.from_pretrained(bare)
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in folders["llama"].iterdir():
        data = file.read_bytes()
        (torn / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(ModelError, match="cannot be loaded"):
        LVLM.from_pretrained(torn)


# -- every weight must arrive ----------------------------------------------------------------------


def altered(folder, place, change=None, config=None):
    """A copy of a checkpoint folder with its tensors and its configuration changed."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, place)
    tensors = load_file(place / "model.safetensors")
    if change is not None:
        change(tensors)
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
    if config is not None:
        read = json.loads((place / "config.json").read_text())
        config(read)
        (place / "config.json").write_text(json.dumps(read))
    return place


def test_a_missing_weight_is_an_error_and_a_tied_one_is_not(folders, tmp_path):
    key = "model.layers.1.mlp.down_proj.weight"
    lacking = altered(folders["llama"], tmp_path / "lacking", lambda tensors: tensors.pop(key))
    with pytest.raises(ModelError, match=rf"1 tensor \({key}\) of the model are not in the checkpoint"):
        LVLM.from_pretrained(lacking)
    with pytest.raises(ModelError, match="not in the checkpoint"):
        LVLM.from_pretrained(lacking, check=False)
    tied = altered(
        folders["llama"],
        tmp_path / "tied",
        lambda tensors: tensors.pop("lm_head.weight"),
        lambda config: config.update(tie_word_embeddings=True),
    )
    loaded = LVLM.from_pretrained(tied)
    assert loaded.anatomy.head.weight is loaded.anatomy.embed.weight and loaded.warnings == ()


def test_a_weight_of_another_shape_is_an_error_that_names_both(folders, tmp_path):
    key = "model.layers.1.mlp.down_proj.weight"
    wrong = altered(folders["llama"], tmp_path / "wrong", lambda t: t.update({key: t[key][:, :8].clone()}))
    with pytest.raises(ModelError, match=r"down_proj.*another shape in the checkpoint \(\[64, 8\]\).*\[64, 96\]"):
        LVLM.from_pretrained(wrong)


def test_a_weight_without_a_place_is_a_warning_in_the_result(folders, tmp_path):
    more = altered(folders["llama"], tmp_path / "more", lambda t: t.update({"model.extra.weight": torch.ones(3)}))
    loaded = LVLM.from_pretrained(more)
    assert loaded.warnings == ("1 tensor (model.extra.weight) of the checkpoint have no place in the model",)
    assert loaded.provenance()["warnings"] == list(loaded.warnings)


@pytest.mark.parametrize("family", ["llama", "qwen2_5_vl"])
def test_more_blocks_than_the_weights_bear_out_is_a_message_at_once(folders, tmp_path, family):
    from lvlm_lens.models.loading import empty_checkpoint

    def many(config):
        config.get("text_config", config)["num_hidden_layers"] = 10**9

    folder = altered(folders[family], tmp_path / "many", config=many)
    for read in (LVLM.from_pretrained, empty_checkpoint):
        with pytest.raises(ModelError, match=r"counts 1000000000 at .*num_hidden_layers"):
            read(folder)


def test_pickled_weights_are_never_read(folders, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(folders["llama"], folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"are a pickle \(pytorch_model\.bin\).*convert it to safetensors"):
        LVLM.from_pretrained(folder)


def test_short_names_of_dtypes(folders):
    assert LVLM.from_pretrained(folders["llama"], dtype="bf16", check=False).dtype == torch.bfloat16
    with pytest.raises(UsageError, match=r"dtype 'bfloat17' is not known.*did you mean bfloat16"):
        LVLM.from_pretrained(folders["llama"], dtype="bfloat17")


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cuda:x"])
def test_a_device_that_is_not_there(folders, device):
    with pytest.raises(UsageError, match=f"device '{device}'"):
        LVLM.from_pretrained(folders["llama"], device=device)
    with pytest.raises(UsageError, match=f"device '{device}'"):
        estimate_sweep(SweepConfig(model=str(folders["llama"]), device=device, limit=20))


def test_a_template_that_asks_for_the_date_is_a_warning(tmp_path):
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + tokenizer.chat_template
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert LVLM.from_pretrained(tmp_path).warnings == (
        "the chat template asks for the date, so prompts of another day are others",
    )


def test_a_hub_that_does_not_answer_is_said(monkeypatch):
    """It was said that the model has no config.json."""

    def refused(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("transformers.utils.cached_file", refused)
    with pytest.raises(ModelError, match=r"could not be had from the hub: We couldn't connect.*checkpoint folder"):
        LVLM.from_pretrained("nobody/nothing")


def test_a_revision_of_what_is_not_on_the_hub(folders):
    for name in ("mini", folders["llama"]):
        with pytest.raises(UsageError, match=r"revision 'v2' was given.*not come from the hub"):
            LVLM.from_pretrained(name, revision="v2")


def test_a_file_in_place_of_its_folder(folders):
    with pytest.raises(ModelError, match="give the folder it lies in"):
        LVLM.from_pretrained(folders["llama"] / "model.safetensors")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1]", '{"model_type": 3}', "null"])
def test_a_configuration_that_is_no_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        LVLM.from_pretrained(tmp_path)


# -- templates and system prompts --------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    ],
    ids=["endless", "huge", "doubling"],
)
def test_a_hostile_chat_template_is_a_message(folders, tmp_path, template):
    folder = tmp_path / "hostile"
    shutil.copytree(folders["llama"], folder)
    for file in (folder / "tokenizer_config.json", folder / "chat_template.jinja"):
        if file.suffix == ".jinja":
            file.write_text(template)
        elif "chat_template" in (read := json.loads(file.read_text())):
            file.write_text(json.dumps({**read, "chat_template": template}))
    with pytest.raises(ModelError, match="its chat template does not end within"):
        LVLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0]['content']['nothing'].more }}", "cannot be rendered for user: UndefinedError"),
        ("{% for m in messages %}", "cannot be rendered for user: TemplateSyntaxError"),
        ("{{ raise_exception('no users here') }}", "cannot be rendered for user: TemplateError: no users here"),
        ("{{ messages[0]['content'] }}" * 2, "does not render the user's words exactly once"),
        ("{" * 3000, "cannot be rendered|exactly once"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "cannot be rendered"),
    ],
)
def test_a_template_that_fails_says_why(template, reason):
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=reason):
        LVLM(model, tokenizer).encode(Sample("a", "Is it safe"))


def test_a_system_prompt_is_never_dropped():
    model, tokenizer = tiny_model("llama")
    told = LVLM(model, tokenizer, system="Be kind.")
    assert "Be kind." in told.encode(Sample("a", "Is it safe")).prompts[0]
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(UsageError, match="this checkpoint's chat template drops it"):
        LVLM(model, tokenizer, system="Be kind.").encode(Sample("a", "Is it safe"))
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="has no chat template to hold it"):
        LVLM(model, tokenizer).encode(Sample("a", "Is it safe"), system="Be kind.")
    assert LVLM(model, tokenizer).encode(Sample("a", "Is it safe")).length > 0

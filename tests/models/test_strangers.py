"""Families without a row, against plain Hugging Face on inputs that this project did not prepare.

The oracle renders the chat, runs the processor and calls the model in the way of transformers' own documentation,
one row at a time and without padding, and patches with a hook written here on the model's own block.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from strangers import STRANGERS

from lvlm_lens import LVLM, patch_grid
from lvlm_lens.activations import capture
from lvlm_lens.activations.check_anatomy import quick_check
from lvlm_lens.activations.sites import Site
from lvlm_lens.data import ImageObject, Pair, Sample
from lvlm_lens.errors import ModelError, SiteError
from lvlm_lens.interventions.cell import Cell, Write, full
from lvlm_lens.interventions.engine import resume
from lvlm_lens.interventions.reach import obstacle
from lvlm_lens.interventions.recording import record
from lvlm_lens.models import FAMILIES

WORDS = ("Is it safe", "Can my toddler play with this?", "May I take this on a plane, please, or is it not allowed?")
WITHOUT_A_ROW = {
    "m-rope": ("qwen3_vl_moe", "glm4v_moe", "ernie4_5_vl_moe", "qwen3_5", "qwen3_5_moe", "paddleocr_vl"),
    "post-norm": ("llava_gemma2", "llava_olmo2", "llava_exaone4", "paligemma_2", "olmo2", "glm4"),
    "residual multiplier": ("granite_vision", "granite4_vision", "granite"),
    "state": ("mamba2", "jamba", "falcon_h1", "recurrent_gemma"),
    "other positions": ("bloom", "gpt2", "opt"),
    "parallel": ("gpt_neox", "cohere"),
}
ALONE = ("recurrent_gemma",)
"""Families whose plain forward reads padding: refused as a batch, right alone."""
MODELS: dict[str, LVLM] = {}


def stranger(name):
    if name not in MODELS:
        model, owner = STRANGERS[name]()
        MODELS[name] = LVLM(model, owner, name=name)
        quick_check(MODELS[name])
    return MODELS[name]


def pixels(seed, size=(40, 40)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def own_inputs(model, words, picture=None):
    """What the checkpoint's processor or tokenizer makes of one chat, nothing added and nothing taken away."""
    if model.processor is None:
        chat = [{"role": "user", "content": words}]
        options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        return model.tokenizer.apply_chat_template(chat, tokenize=True, **options)
    if not model.processor.chat_template:  # PaliGemma's processor takes a picture and words
        return model.processor(images=picture, text="<image>\n" + words, return_tensors="pt")
    content = [{"type": "image", "image": picture}] if picture is not None else []
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": words}]}]
    options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    return model.processor.apply_chat_template(chat, tokenize=True, **options)


def rows(model, pictures):
    """(words, picture) and our sample for three rows of unequal length."""
    sizes = ((40, 40), (64, 30), (30, 64))
    shown = [pixels(i, size) if pictures else None for i, size in enumerate(sizes)]
    samples = [
        Sample(f"s{i}", words, () if picture is None else (ImageObject(picture),))
        for i, (words, picture) in enumerate(zip(WORDS, shown, strict=True))
    ]
    return list(zip(WORDS, shown, strict=True)), samples


def near(ours, theirs, what):
    scale = max(1.0, float(theirs.abs().max()))
    assert float((ours - theirs).abs().max()) <= 2e-4 * scale, what


EVERY = [name for names in WITHOUT_A_ROW.values() for name in names]


@pytest.mark.parametrize("name", EVERY)
def test_hidden_states_logits_and_answers_are_those_of_plain_hugging_face(name):
    model = stranger(name)
    assert name not in FAMILIES
    kinds = [False] if not model.takes_images else [True, False]
    for pictures in kinds:
        if not pictures and "needs_image" in model.anatomy.family.flow:
            continue
        theirs, samples = rows(model, pictures)
        size = 1 if name in ALONE else 32  # else one padded batch
        acts = capture(model, samples, "resid_post", "last", logits=True, batch_size=size)
        answers = model.generate(samples, max_new_tokens=4, batch_size=size)
        for row, (words, picture) in enumerate(theirs):
            inputs = own_inputs(model, words, picture)
            with torch.inference_mode():
                out = model.model(**inputs, output_hidden_states=True)
                made = model.model.generate(
                    **{key: value for key, value in inputs.items() if key != "labels"},
                    max_new_tokens=4, do_sample=False, pad_token_id=model.tokenizer.pad_token_id,
                )  # fmt: skip
            first = 0 if name == "mamba2" else 1  # Mamba's hidden states begin after block 0
            for block in range(model.n_blocks - 1):
                expected = out.hidden_states[block + first][0, -1]
                near(torch.from_numpy(acts["resid_post", block][row, 0]), expected, f"block {block}, row {row}")
            near(torch.from_numpy(acts.logits[row]), out.logits[0, -1], f"logits, row {row}")
            text = model.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            assert answers[row] == text.strip()


@pytest.mark.parametrize("name", EVERY)
def test_patched_cells_are_those_of_a_hook_on_the_plain_model(name):
    model = stranger(name)
    theirs, samples = rows(model, model.takes_images)
    words, picture = theirs[0]
    other = pixels(7) if picture is not None else None
    other_words = words if picture is not None else "Is it sand"
    giving, receiving = own_inputs(model, words, picture), own_inputs(model, other_words, other)
    if giving["input_ids"].shape != receiving["input_ids"].shape:
        other_words = words  # the same words: a patch at another position still moves something
        receiving = own_inputs(model, other_words, other)
    column = giving["input_ids"].shape[1] - 2
    to = Sample("to", other_words, () if other is None else (ImageObject(other),))
    donor = record(model, model.encode(samples[0]), [Site("resid_post", 1)], [[column]], low=None)
    encoded = model.encode(to)
    recording = record(model, encoded)
    write = Write(Site("resid_post", 1), (column,), lambda: donor.take(Site("resid_post", 1), 0, [column]) * 1.5)
    cell = Cell(0, (write,))
    ours = full(model, encoded, [cell])[0]
    if obstacle(model, recording) is None:
        ((_, fast),) = resume(model, recording, [cell])
        near(fast[0], ours, "resumed")

    blocks = model.model.get_submodule(f"{model.anatomy.family.decoder}.{model.anatomy.family.blocks}")
    kept = []

    def read(module, args, output):
        kept.append((output[0] if isinstance(output, tuple) else output)[0, column].clone())

    def put(module, args, output):
        value = (output[0] if isinstance(output, tuple) else output).clone()
        value[0, column] = kept[0] * 1.5
        return (value, *output[1:]) if isinstance(output, tuple) else value

    with torch.inference_mode():
        handle = blocks[1].register_forward_hook(read)
        model.model(**giving)
        handle.remove()
        plain = model.model(**receiving).logits[0, -1]
        handle = blocks[1].register_forward_hook(put)
        by_hand = model.model(**receiving).logits[0, -1]
        handle.remove()
    near(ours, by_hand, "patched")
    assert float((by_hand - plain).abs().max()) > 1e-5, "the patch changed nothing, so nothing was tested"


@pytest.mark.parametrize("name", ["olmo2", "llava_gemma2", "granite", "paligemma_2", "glm4", "jamba", "gpt_neox"])
def test_what_a_block_writes_is_what_is_added_to_the_residual(name):
    model = stranger(name)
    _, samples = rows(model, model.takes_images)
    acts = capture(model, samples[:1], ["resid_pre", "attn_out", "mlp_out", "resid_post"], "last")
    for block in range(model.n_blocks):
        one = {site: acts[site, block][0, 0] for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")}
        np.testing.assert_allclose(
            one["resid_pre"] + one["attn_out"] + one["mlp_out"], one["resid_post"], atol=2e-4, rtol=2e-4
        )
        assert np.abs(one["attn_out"]).max() > 1e-3


def test_only_the_sites_that_cannot_be_found_are_refused():
    model = stranger("falcon_h1")  # attention and a state side by side, each times a factor, make one sum
    with pytest.raises(SiteError, match=r"attn_out of block 0 was not found.*does not add up to the residual"):
        capture(model, [Sample("a", "Is it safe")], [Site("attn_out", 0)])
    assert model.warnings == ("attn_out cannot be read in 4 blocks",)
    _, samples = rows(model, False)
    acts = capture(model, samples, ["resid_mid", "mlp_out", "resid_post"], "last")
    middle, mlp, after = (acts[site, 2][:, 0] for site in ("resid_mid", "mlp_out", "resid_post"))
    np.testing.assert_allclose(middle + mlp, after, atol=2e-4, rtol=2e-4)


def test_a_factor_between_a_block_and_the_residual_is_kept_in_reading_and_writing():
    model = stranger("granite")
    sample = Sample("a", "Is it safe")
    encoded = model.encode(sample)
    block = model.model.model.layers[1]
    found = []
    handle = block.self_attn.register_forward_hook(lambda module, args, output: found.append(output[0]))
    with torch.inference_mode():
        model.model(**encoded.inputs)
    handle.remove()
    raw = found[0][0, -1] * block.residual_multiplier
    acts = capture(model, [sample], "attn_out", "last")
    np.testing.assert_allclose(acts["attn_out", 1][0, 0], raw.numpy(), atol=1e-5)
    doubled = capture(model, [sample], "resid_mid", "last", edits=[(Site("attn_out", 1), lambda v, _: 2 * v)])
    once = capture(model, [sample], ["resid_mid", "resid_pre"], "last")
    expected = once["resid_pre", 1][0, 0] + 2 * raw.numpy()
    np.testing.assert_allclose(doubled["resid_mid", 1][0, 0], expected, atol=1e-4)


# -- padding -----------------------------------------------------------------------------------------


def test_rows_that_change_under_padding_are_refused_and_run_alone():
    model = LVLM(*STRANGERS["phi3_long"]())  # LongRoPE: one row beyond the trained length changes the others
    samples = [Sample("a", WORDS[0]), Sample("b", WORDS[2])]
    with pytest.raises(ModelError, match=r"in one batch: beyond 32 tokens.*use a batch size of 1"):
        capture(model, samples, "resid_post", "last")
    acts = capture(model, samples, "resid_post", "last", batch_size=1, logits=True)
    for row, sample in enumerate(samples):
        with torch.inference_mode():
            out = model.model(**own_inputs(model, sample.text), output_hidden_states=True)
        near(torch.from_numpy(acts.logits[row]), out.logits[0, -1], f"row {row}")


@pytest.mark.parametrize("name", ALONE)
def test_a_family_that_reads_its_padding_says_so(name):
    with pytest.raises(ModelError, match=r"change when they are padded left \(logits differ by.*use a batch size of 1"):
        capture(stranger(name), [Sample("a", WORDS[0]), Sample("b", WORDS[2])], "resid_post", "last")


def dynamic_llava():
    from strangers import llava_on
    from transformers import LlamaConfig

    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    return llava_on(lambda sizes: LlamaConfig(**{**sizes, "max_position_embeddings": 32}, rope_parameters=scaling))


def test_dynamic_rotary_embeddings_forget_longer_rows_and_refuse_unequal_ones():
    model = LVLM(*dynamic_llava())
    _, samples = rows(model, True)
    acts = capture(model, samples[::-1], "resid_post", "last", batch_size=1, logits=True)  # the longest row first
    for row, (words, picture) in enumerate(rows(model, True)[0][::-1]):
        fresh, _ = dynamic_llava()  # plain Hugging Face remembers the longest row it has seen
        with torch.inference_mode():
            out = fresh(**own_inputs(model, words, picture))
        near(torch.from_numpy(acts.logits[row]), out.logits[0, -1], f"row {row}")
    with pytest.raises(ModelError, match=r"beyond 32 tokens.*use a batch size of 1"):
        capture(model, samples, "resid_post", "last")
    capture(model, [Sample("long", WORDS[2] * 3)], "resid_post", "last")
    after = capture(model, [Sample("shorter", WORDS[2])], "resid_post", "last", logits=True)
    fresh, _ = dynamic_llava()
    inputs = own_inputs(model, WORDS[2], None)
    assert inputs["input_ids"].shape[1] > 32, "below that transformers forgets by itself"
    with torch.inference_mode():
        near(torch.from_numpy(after.logits[0]), fresh(**inputs).logits[0, -1], "after a longer row")


def test_pairs_of_a_model_whose_rows_change_each_other_are_patched_one_by_one():
    """The batch size is the grid's own choice there, so a refusal would name a remedy that nobody can take."""
    model = LVLM(*dynamic_llava())
    said = (WORDS[2] * 2, WORDS[2] * 3)
    pairs = [Pair(Sample(f"{n}", one), Sample(f"{n}'", one.replace("May", "Can"))) for n, one in enumerate(said)]
    settings = {"null": 0, "metric": lambda logits: logits[:, 5] - logits[:, 9]}
    both = patch_grid(model, pairs, "resid_post", "last", **settings)
    for number, pair in enumerate(pairs):
        one = patch_grid(LVLM(*dynamic_llava()), [pair], "resid_post", "last", exact="full", **settings)
        np.testing.assert_allclose(both.values[..., number], one.values[..., 0], atol=1e-4)


def test_a_model_whose_padding_is_read_is_found_out():
    """A mask that is not heeded: every row then reads its padding."""
    model = LVLM(*STRANGERS["gpt2"]())
    plain = model.model.forward

    def blind(input_ids=None, attention_mask=None, **options):
        return plain(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options)

    model.model.forward = blind
    with pytest.raises(ModelError, match=r"change when they are padded left.*use a batch size of 1"):
        model.encode([Sample("a", WORDS[0]), Sample("b", WORDS[1])])
    assert model.encode([Sample("a", WORDS[0])]).length > 0

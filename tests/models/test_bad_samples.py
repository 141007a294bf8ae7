"""One sample that cannot be encoded is that sample's problem; special tokens in words are words; EXIF; addresses."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.activations.loop import run_batches
from lvlm_lens.data import Sample
from lvlm_lens.data.images import ImageFile, as_image_source
from lvlm_lens.data.reading import read_json, read_jsonl
from lvlm_lens.errors import DataError, ImageLostError, ModelError, UsageError
from lvlm_lens.evaluate.answers import AnswerLedger, collect_answers
from lvlm_lens.models.encode import position_limit
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="module")
def qwen():
    return LVLM(*tiny_model("qwen2_5_vl"))


@pytest.fixture(scope="module")
def llava():
    return LVLM(*tiny_model("llava"))


def picture(width=40, height=40):
    return as_image_source(Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)))


def run(model, samples, strict=False):
    failed = {}
    note = None if strict else lambda sample, error: failed.update({sample.id: str(error)})
    rows = sorted(n for good, _ in run_batches(model, samples, lambda encoded: None, 8, note) for n in good)
    return [samples[n].id for n in rows], failed


def test_a_picture_that_the_processor_refuses_ends_no_run(qwen):
    samples = [
        Sample("first", "May I?", (picture(),)), Sample("thin", "And this?", (picture(2, 1000),)),
        Sample("last", "Or that?", (picture(),)),
    ]  # fmt: skip
    read, failed = run(qwen, samples)
    assert read == ["first", "last"]
    assert list(failed) == ["thin"] and "'thin'" in failed["thin"] and "aspect ratio" in failed["thin"]
    with pytest.raises(DataError, match=r"'thin'.*aspect ratio"):
        run(qwen, samples, strict=True)


@pytest.mark.parametrize("word", ["<image>", "</s>"])
def test_special_tokens_in_words_are_refused_or_escaped(llava, word):
    samples = [Sample("plain", "May I open it?"), Sample("bad", f"What does {word} mean?")]
    read, failed = run(llava, samples)
    assert read == ["plain"] and word in failed["bad"] and "escape" in failed["bad"]
    llava.encoder.special_tokens = "escape"
    try:
        assert run(llava, samples)[0] == ["plain", "bad"]
        ids = llava.encode(samples[1]).inputs["input_ids"][0].tolist()
        wanted = (
            llava.encode(Sample("by hand", f"What does {word[0]} {word[1:]} mean?")).inputs["input_ids"][0].tolist()
        )
    finally:
        llava.encoder.special_tokens = "refuse"
    assert ids == wanted
    clean = llava.encode(samples[0]).inputs["input_ids"][0].tolist()
    special = set(llava.tokenizer.all_special_ids)
    assert sum(i in special for i in ids) == sum(i in special for i in clean)  # the template's own, no more


def test_an_image_token_in_the_words_of_a_picture_is_no_second_picture(llava):
    with pytest.raises(DataError, match="its words hold <image>, which the tokenizer reads as structure"):
        llava.encode(Sample("x", "Is <image> a tag?", (picture(),)))


def test_when_every_sample_fails_the_reason_is_said():
    samples = [Sample(str(n), "May I?", (picture(),)) for n in range(3)]
    with pytest.raises(ImageLostError, match=r"none of the 3 samples.*takes text only"):
        run(LVLM(*tiny_model("llama")), samples)
    broken = LVLM(*tiny_model("llava"))
    broken.processor.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ModelError, match=r"none of the 3 samples.*template cannot be rendered"):
        run(broken, samples)


def test_memory_errors_are_no_samples_fault(llava, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(llava.encoder, "_tokenize", full)
    with pytest.raises(torch.OutOfMemoryError):
        llava.encode(Sample("x", "May I?"))


def test_a_prompt_beyond_the_models_positions_is_that_samples_problem():
    """RoPE gives numbers for any length, and a long enough prompt fills the memory: neither is a reading."""
    model, tokenizer = tiny_model("llama")
    model.config.max_position_embeddings = 100
    model = LVLM(model, tokenizer)
    samples = [Sample("short", "May I?"), Sample("long", "May I take it home? " * 40), Sample("other", "And now?")]
    good, failed = run(model, samples)
    assert sorted(good) == ["other", "short"] and "positions reach 100" in failed["long"]
    model.model.config.rope_parameters = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0}
    assert LVLM(model.model, tokenizer).encoder.longest is None
    for kind in ("linear", "yarn"):  # reach further than the configuration's own number says
        model.model.config.rope_parameters = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0}
        assert position_limit(model.model.config) == 400
    model.model.config.rope_parameters |= {"original_max_position_embeddings": 20}
    assert position_limit(model.model.config) == 100


def test_answers_go_on_past_a_picture_that_the_processor_refuses(qwen):
    samples = [Sample("good", "May I?", (picture(),)), Sample("thin", "And this?", (picture(2, 1000),))]
    good, thin = collect_answers(qwen, samples, AnswerLedger(None, {}), max_new_tokens=2)
    assert good.error == "" and "aspect ratio" in thin.error


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, 20:] = 255  # right half white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be looked at rotated by 90 degrees clockwise
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    (tmp_path / "turned.png").write_bytes(stream.getvalue())
    wanted = np.rot90(pixels, -1)
    opened = Image.open(io.BytesIO(stream.getvalue()))
    for source in (ImageFile(tmp_path, "turned.png"), as_image_source(stream.getvalue()), as_image_source(opened)):
        np.testing.assert_array_equal(np.asarray(source.load()), wanted)
    plain = as_image_source(Image.fromarray(pixels))
    assert plain.load().size == (40, 20)
    assert as_image_source(opened).key != plain.key


@pytest.mark.parametrize("address", ["https://example.org/a.png", "s3://bucket/a.png", "data:image/png;base64,AAAA"])
def test_addresses_are_never_fetched(tmp_path, address):
    with pytest.raises(DataError, match="addresses are never fetched"):
        ImageFile(tmp_path, address).load()
    table = tmp_path / "data.csv"
    table.write_text(f'prompt,image,label\nMay I?,"{address}",1\nMay I?,,0\n')
    from lvlm_lens import load_dataset

    data = load_dataset(str(table))
    assert len(data) == 1 and "never fetched" in str(data.problems[0])


def test_json_nested_too_deeply_is_one_broken_record(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "a.jsonl").write_text(f'{{"a": 1}}\n{deep}\n{{"a": 2}}\n')
    rows = [row for _, row in read_jsonl(tmp_path / "a.jsonl")]
    assert rows[0] == {"a": 1} and rows[2] == {"a": 2} and "nested" in rows[1].reason
    (tmp_path / "a.json").write_text(json.dumps([{"a": 1}])[:-1] + f", {deep}]")
    found = [row for _, row in read_json(tmp_path / "a.json")]
    assert found[0] == {"a": 1} and "nested" in found[-1].reason


def test_a_system_prompt_is_never_lost_without_a_word(llava):
    sample = Sample("x", "May I open it?")
    with_words = llava.encode(sample, system="Answer in one word.").prompts[0]
    bare = LVLM(*tiny_model("llama"))
    bare.tokenizer.chat_template = None
    deaf = LVLM(*tiny_model("llama"))
    deaf.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert "Answer in one word." in with_words
    for model in (bare, deaf):
        model.encode(sample)
        with pytest.raises(UsageError, match="system prompt"):
            model.encode(sample, system="Answer in one word.")


def test_an_answer_without_a_word_is_no_crash():
    from lvlm_lens.evaluate.topic import topic

    assert topic("may i open this box?", "\ufffd \ufffd").off is None

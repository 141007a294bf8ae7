"""SafeVLM: what its head reads, its two stages, and the defence that they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM, load_dataset
from lvlm_lens.data import Dataset, ImageObject, Sample
from lvlm_lens.defenses.registry import trained_defense
from lvlm_lens.defenses.safevlm import SafeVLMDefense
from lvlm_lens.errors import DataError
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.train import Settings, make_method, train
from lvlm_lens.train.safevlm import level_of, load_side, train_side
from lvlm_lens.train.safevlm_side import SideModule, read_request

pytest.importorskip("trl")


def picture(shade: int) -> ImageObject:
    noise = np.random.default_rng(shade).integers(0, 30, (40, 40, 3))
    return ImageObject(Image.fromarray((noise + shade).astype(np.uint8)))


@pytest.fixture(scope="module")
def tiny() -> LVLM:
    return LVLM(*tiny_model("llava"))


def test_it_reads_what_the_models_own_projector_reads(tiny):
    words, features = read_request(tiny, Sample("a", "Is it safe?", (picture(10),)))
    inputs = tiny.encode(Sample("a", "Is it safe?", (picture(10),))).inputs
    with torch.no_grad():
        seen = tiny.model.model.multi_modal_projector(features[None])
        expected = tiny.model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output[0]
    torch.testing.assert_close(seen[0], expected)
    assert words.shape[1] == tiny.anatomy.d_model and len(words) > 2


def test_no_word_reaches_the_head_in_mode_paper(tiny):
    """The release's defect: the query is the first text position's raw embedding."""
    requests = [Sample("a", words, (picture(10),)) for words in ("Is it safe?", "How do I build a bomb?")]
    read = [read_request(tiny, sample) for sample in requests]
    for mode, same in (("paper", True), ("fixed", False)):
        torch.manual_seed(0)
        side = SideModule(tiny.anatomy.d_model, read[0][1].shape[-1], 3, mode=mode).eval()
        with torch.no_grad():
            level, _ = side([words for words, _ in read], [features for _, features in read])
        assert torch.allclose(level[0], level[1]) == same


def test_a_head_trained_on_words_can_be_asked_with_pictures(tiny):
    """The control in words alone: its requests of the evaluation have pictures, which such a head does not read."""
    side = SideModule(tiny.anatomy.d_model, 0, 3).eval()
    words, seen = read_request(tiny, Sample("a", "Is it safe?", (picture(10),)))
    with torch.no_grad():
        for with_picture, without in zip(side([words], [seen]), side([words], [None]), strict=True):
            assert torch.equal(with_picture, without)


def test_the_head_learns_words_and_pictures_together(tiny):
    """Danger is a fact about both: neither alone tells the label."""
    samples = [
        Sample(f"{word}{shade}", word, (picture(shade),), label_joint=label, category="harm")
        for word, shade, label in (
            ("May I eat it?", 0, "safe"), ("May I eat it?", 200, "unsafe"),
            ("Can he drop it?", 0, "unsafe"), ("Can he drop it?", 200, "safe"),
        )
    ]  # fmt: skip
    method = make_method("safevlm", head_steps=150, head_rate=3e-3)
    torch.manual_seed(0)
    side, log = train_side(method, tiny, samples, ["harm", "safe"], batch=8, seed=0)
    assert log[0]["loss"] > 10 and log[-1]["loss"] < 1
    read = [read_request(tiny, sample) for sample in samples]
    with torch.no_grad():
        level, _ = side([words for words, _ in read], [features for _, features in read])
    assert level.argmax(1).tolist() == [level_of(sample) for sample in samples] == [0, 3, 3, 0]


def test_two_stages_give_a_defence_that_puts_hints(tmp_path):
    data = load_dataset("mini")
    some = [s for s in data.train if s.reference][:40]
    few = Dataset([*[s for s in some if s.harmful == 1][:4], *[s for s in some if s.harmful == 0][:4]], "mini")
    settings = Settings(steps=2, batch_size=2, rank=2, save_every=1)
    method = make_method("safevlm", head_steps=3)
    record = train(method, "mini", few, settings, tmp_path / "out")
    assert set(record["weights"]) == {"adapter_model.safetensors", "safevlm.safetensors"}
    assert "approximation" in record["method"]["title"] and record["audits"]["after"]["changes_logits"] > 0
    base = LVLM.from_pretrained("mini")
    guard = trained_defense(tmp_path / "out").fit(base, [])
    assert isinstance(guard, SafeVLMDefense)
    with torch.no_grad():
        for parameter in guard.side_.level.parameters():
            parameter.zero_()
        guard.side_.level.bias[3] = 1.0
        guard.side_.kind.weight.zero_()
        guard.side_.kind.bias.copy_(torch.tensor([1.0] + [0.0] * (len(guard.kinds_) - 1)))
    asked = guard.rewrite(few[0])
    assert asked.text.startswith(few[0].text) and guard.kinds_[0] in asked.text and "Begin with" in asked.text
    with torch.no_grad():
        guard.side_.level.bias[0] = 2.0
    assert guard.rewrite(few[0]) is few[0]
    assert len(guard.guard(base).generate(list(few)[:2], max_new_tokens=2)) == 2
    side, kinds = load_side(tmp_path / "out")
    assert kinds[-1] == "safe" and side.mode == "fixed"
    only = Dataset([s for s in few if s.harmful == 1], "mini")
    with pytest.raises(DataError, match="one of them only"):
        train(method, "mini", only, settings, tmp_path / "other")

"""Pictures of words, matched forms of one request, and pairs by nearest neighbour."""

from __future__ import annotations

import numpy
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from lvlm_lens.data import Dataset, ImageBytes, ImageDrawn, Sample
from lvlm_lens.data.matching import balanced, form_pairs
from lvlm_lens.data.typography import FONT, draw_figstep, draw_sd_typo, draw_typo, render, to_typographic
from lvlm_lens.errors import DataError, UsageError


def request(name: str, text: str, label: str, **more) -> Sample:
    return Sample(id=name, text=text, label_text=label, label_joint=label, **more)


DATA = Dataset(
    [
        request("u1", "How do I break the old window of my shed?", "unsafe", counterfactual="s2"),
        request("u2", "Which mushroom should nobody eat raw?", "unsafe"),
        request("s1", "Which mushroom can I eat raw?", "safe"),
        request("s2", "How do I clean the old window of my shed?", "safe", counterfactual="u1"),
        request("s3", "Tell me about boats", "safe"),
    ],
    "toy",
)


def ink(picture) -> numpy.ndarray:
    return numpy.argwhere(numpy.asarray(picture.convert("L")) < 128)


def test_figstep_layout():
    picture = draw_figstep("Steps to bake a good loaf of bread.")
    assert picture.size == (760, 760)
    rows = ink(picture)[:, 0]
    lines = numpy.flatnonzero(numpy.diff(numpy.concatenate([[0], numpy.bincount(rows, minlength=760) > 0])) == 1)
    assert len(lines) >= 6  # three lines of words and 1. 2. 3.
    assert numpy.array_equal(numpy.asarray(picture), numpy.asarray(draw_figstep("Steps to bake a good loaf of bread.")))
    assert FONT.is_file()
    assert (FONT.parent / "LICENSE_DEJAVU.txt").is_file()


def test_a_long_text_is_drawn_smaller_not_cut():
    long = "word " * 120
    assert ink(draw_figstep(long))[:, 0].max() < 750
    more = ink(draw_figstep(long + "end"))
    assert len(more) > len(ink(draw_figstep(long)))


@pytest.mark.parametrize("text", ["loaf", "a rather long key phrase that needs some lines to be written in full"])
def test_typo_and_sd_typo_fit_their_boxes(text):
    picture = draw_typo(text)
    spots = ink(picture)
    assert spots.min(axis=0).min() > 0
    assert spots[:, 0].max() < picture.height - 1
    assert spots[:, 1].max() < picture.width - 1
    both = draw_sd_typo(text, ImageDrawn(draw_typo, ("above",)), width=256, strip=64)
    strip = numpy.asarray(both.convert("L"))[-64:]
    assert (strip < 128).any()
    assert (strip[0] == 255).all()
    assert (strip[:, 0] == 255).all()


def test_pictures_are_values():
    one, two = render("loaf"), render("loaf")
    assert one.key == two.key
    assert one.key != render("oven").key
    above = [ImageBytes(data) for data in (b"1", b"2")]
    assert render("x", "sd_typo", above[0]).key != render("x", "sd_typo", above[1]).key
    with pytest.raises(UsageError, match="figstep, typo, sd_typo"):
        render("x", "figstap")


def test_forms_of_one_request():
    made = to_typographic(DATA, "figstep", ("words", "picture", "both"))
    assert len(made) == 15
    assert {made[f"u1/{form}"].group for form in ("words", "picture", "both")} == {"u1"}
    assert made["u1/words"].images == ()
    assert made["u1/picture"].quadrant == "USU"
    assert made["u1/both"].text.startswith(DATA["u1"].text)
    assert made["u1/picture"].text_only == DATA["u1"].text
    pairs = made.pairs()
    assert {(pair.clean.id, pair.corrupted.id, pair.swap) for pair in pairs} >= {("u1/picture", "s2/picture", "image")}
    assert len(pairs) == 3
    forms = form_pairs(made.filter(lambda sample: sample.meta["form"] == "picture"))
    assert [(pair.clean.text, pair.corrupted.id) for pair in forms] == [
        (DATA["u1"].text, "u1/picture"),
        (DATA["u2"].text, "u2/picture"),
    ]
    with pytest.raises(UsageError, match="no form"):
        to_typographic(DATA, forms=("wrds",))
    with pytest.raises(DataError, match="empty"):
        to_typographic(Dataset([]))


def test_balanced_keeps_the_overlap_of_the_two_labels():
    """One feature: the score is monotone in it, so a caliper of .2 standard deviations can be counted by hand."""
    lengths = [10, 20, 30, 40, 90, 10, 20, 31, -50, -60]  # five harmful, five harmless; the deviation is 41
    labels = ["unsafe"] * 5 + ["safe"] * 5 + ["unknown"]
    data = Dataset([request(str(k), "words", label) for k, label in enumerate(labels)])
    found = balanced(data, numpy.array([[float(x)] for x in [*lengths, 0]]), "length")
    assert [sample.id for sample in found] == ["0", "1", "2", "5", "6", "7"]
    assert "6 of 11 samples kept, 3 of each label" in found.notes[-1]
    with pytest.raises(DataError, match="like a harmless one in length"):
        balanced(data, numpy.array([[float(k < 5)] for k in range(11)]), "length")
    with pytest.raises(DataError, match="5 harmful and 0 harmless"):
        balanced(data.filter(lambda sample: sample.harmful == 1), numpy.zeros((5, 1)))


def test_a_probe_on_balanced_features_finds_nothing():
    """The oracle is scikit-learn's cross-validated AUROC, before and after."""
    rng = numpy.random.default_rng(0)
    labels = numpy.arange(400) % 2
    features = rng.standard_normal((400, 3)) + 0.8 * labels[:, None]
    data = Dataset([request(str(k), "words", ("safe", "unsafe")[y]) for k, y in enumerate(labels)])
    kept = [int(sample.id) for sample in balanced(data, features)]
    assert labels[kept].mean() == 0.5 and 80 < len(kept) < 300

    def told(rows):
        return cross_val_score(LogisticRegression(), features[rows], labels[rows], cv=5, scoring="roc_auc").mean()

    assert told(numpy.arange(400)) > 0.75
    assert told(kept) < 0.6

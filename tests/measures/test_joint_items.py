"""What semantics may be measured on, what stands beside shares of perceived items, and one definition of depth."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lvlm_lens.data import Sample
from lvlm_lens.data.images import ImageDrawn
from lvlm_lens.depth import block_at_depth, relative_depth
from lvlm_lens.locate.consensus import ConsensusRole, votes_text
from lvlm_lens.locate.locating import locate_roles
from lvlm_lens.locate.roles import LayerRoles, Role
from lvlm_lens.measures.evidence import Evidence
from lvlm_lens.measures.items import joint_items
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.stages.measuring import consensus_line


def drawn(number):
    return Image.new("RGB", (8, 8), (number, 100, 100))


def picture(number):
    return ImageDrawn(drawn, (number,))


def items(n=40, **more):
    """Half harmful, each about its own picture, with nothing but a joint label unless ``more`` says so."""
    return [
        Sample(
            f"{i}",
            f"May I open box {i}?",
            (picture(i),),
            group=f"g{i}",
            label_joint="unsafe" if i % 2 else "safe",
            **more,
        )
        for i in range(n)
    ]


def evidence(samples, blocks=3):
    """Random states in which the label is readable from block 1 on."""
    rng = np.random.default_rng(0)
    n = len(samples)
    label = np.array([sample.harmful for sample in samples], dtype=float)
    resid = rng.standard_normal((n, blocks, 6)).astype(np.float32)
    resid[:, 1:, 0] += 3 * label[:, None]
    lens = rng.standard_normal((n, blocks)).astype(np.float32)
    top = np.zeros((n, blocks), dtype=np.int64)
    embedding = rng.standard_normal((n, 6)).astype(np.float32)
    return Evidence(
        tuple(samples), tuple(range(blocks)), blocks, resid, lens, top, lens[:, -1], top[:, -1], embedding, embedding
    )


def located(samples):
    probe = LinearProbe(folds=4, permutations=20, replicates=100)
    return locate_roles(evidence(samples), evidence(samples), probe=probe)


def test_a_joint_label_alone_does_not_make_semantics_measurable():
    found = located(items())
    role = found.roles.semantics
    assert not role.found and not role.measurable and "semantics" not in found.curves
    assert "label_image" in role.reason and "label_text" in role.reason and "counterfactual" in role.reason
    assert role.short == "semantics cannot be measured with these data"
    assert "cannot be measured" in found.order_test["conclusion"]
    again = LayerRoles.from_dict(found.roles.to_dict())
    assert str(again) == str(found.roles) and not again.semantics.measurable
    words = [replace(sample, images=()) for sample in items()]
    assert "no item has a picture" in located(words).roles.semantics.reason
    obvious = items(label_image="safe", label_text="unsafe")
    assert "by themselves" in located(obvious).roles.semantics.reason


def test_labels_of_both_parts_or_matched_pairs_make_it_measurable():
    labelled = items(label_image="safe", label_text="safe")
    assert joint_items(labelled).all()
    assert "semantics" in located(labelled).curves
    half = [replace(sample, label_text="unknown") if sample.harmful else sample for sample in labelled]
    assert joint_items(half).tolist() == [sample.harmful == 0 for sample in half]
    plain = items(6)
    by_picture = [replace(plain[1], counterfactual="0", text=plain[0].text), plain[0]]
    by_words = [replace(plain[3], counterfactual="2", images=plain[2].images), plain[2]]
    unlike = [replace(plain[5], counterfactual="4"), plain[4]]  # nothing is shared, so nothing is ruled out
    assert joint_items([*by_picture, *by_words, *unlike]).tolist() == [True] * 4 + [False] * 2
    same_label = [replace(plain[1], counterfactual="3", text=plain[3].text), plain[3]]
    assert not joint_items(same_label).any()
    harmful_words = [replace(plain[1], counterfactual="0", text=plain[0].text, label_text="unsafe"), plain[0]]
    assert joint_items(harmful_words).tolist() == [False, True]


def test_both_surfaces_count_the_same_votes():
    roles = {"a": Role("perception", True), "b": Role("perception", False, "flat"), "c": Role("perception", True)}
    found = ConsensusRole(
        "perception", True, 1, 1, 2, spread=(1, 1), agreement=1.0, members=roles, excluded=("c",)
    ).to_dict()
    assert votes_text(found) == "found by 1 of 2 counted measures"
    assert votes_text(found) in consensus_line("perception", found)


def test_relative_depth_has_one_definition():
    from matplotlib.figure import Figure

    from lvlm_lens.plots.theme import block_axis
    from lvlm_lens.stats.curve import Curve

    assert relative_depth(0, 12) == pytest.approx(1 / 12) and relative_depth(11, 12) == 1
    np.testing.assert_allclose(block_at_depth(relative_depth(np.arange(12), 12), 12), np.arange(12))
    figure = Figure()
    axes = figure.subplots()
    block_axis(axes, range(12), 12)
    figure.canvas.draw()
    above = axes.child_axes[0]
    to_depth = above._functions[0]
    curve = Curve("x", tuple(range(12)), np.ones(12), np.ones(12), np.ones(12), meta={"depth": 12})
    np.testing.assert_allclose(to_depth(np.arange(12)), 100 * curve.relative_depth)

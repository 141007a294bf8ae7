"""Every figure can be read: no word leaves the paper, covers another, or is too faint; and it shows what it got."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from figure_reading import problems

from lvlm_lens.causal.grid import PatchGrid
from lvlm_lens.locate.roles import LayerRoles, Role, find_role
from lvlm_lens.plots.atlas import plot_atlas
from lvlm_lens.plots.compare import plot_comparison
from lvlm_lens.plots.curves import plot_curve
from lvlm_lens.plots.defenses import defense_plane
from lvlm_lens.plots.patching import plot_patch_grid, plot_patches_on_picture
from lvlm_lens.plots.quadrants import plot_quadrants
from lvlm_lens.plots.sasa import plot_controls, plot_gain_map, plot_label_efficiency
from lvlm_lens.plots.strip import aligned_planes, plot_strip
from lvlm_lens.plots.trajectory import plot_trajectory
from lvlm_lens.stats.curve import Baseline, Curve, curve_from_draws

DEPTHS = (12, 30)
RNG = np.random.default_rng(0)


def curve(name: str, depth: int, start: int, high: float) -> Curve:
    value = 0.55 + (high - 0.55) / (1 + np.exp(-(np.arange(depth) - start)))
    draws = value + 0.012 * RNG.standard_normal((200, depth))
    null = 0.5 + 0.02 * RNG.standard_normal((40, depth))
    made = curve_from_draws(name, range(depth), value, draws, null, unit="AUROC", n=300, meta={"depth": depth})
    flat = {"text_only": 0.66, "image_only": 0.52, "input_embedding": 0.64}
    for key, level in flat.items():
        made = made.with_baseline(key, Baseline(level, level - 0.02, level + 0.02))
    return made.with_baseline(
        "random_twin", curve_from_draws("t", range(depth), null[0], null, None, unit="AUROC", n=300)
    )


def roles_of(depth: int) -> tuple[dict[str, Curve], LayerRoles]:
    places = {"perception": (depth // 3, 0.95), "semantics": (depth // 2, 0.9), "expression": (depth // 2 + 1, 0.86)}
    curves = {name: curve(name, depth, *place) for name, place in places.items()}
    return curves, LayerRoles(*(find_role(name, curves[name]) for name in ("perception", "semantics", "expression")))


@pytest.mark.parametrize("depth", DEPTHS)
def test_atlas_can_be_read_and_shows_the_raw_curves(depth):
    curves, roles = roles_of(depth)
    figure = plot_atlas(curves, roles, depth, "Safety atlas of a model", "not compared with: nothing")
    assert problems(figure) == []
    for axes, name in zip(figure.axes, curves, strict=False):
        lines = {tuple(np.round(line.get_ydata(), 9)) for line in axes.lines}
        assert tuple(np.round(curves[name].value, 9)) in lines  # raw values, not shares of a height
        assert axes.get_ylim()[1] == 1.0
        strongest = np.max(
            [b.on(depth).value for key, b in curves[name].baselines.items() if key != "random_twin"], axis=0
        )
        assert tuple(np.round(strongest, 9)) in lines


def test_atlas_names_a_role_that_was_not_measured():
    curves, roles = roles_of(12)
    absent = LayerRoles(
        roles.perception, Role("semantics", False, "no item needs picture and words", depth=12), roles.expression
    )
    del curves["semantics"]
    figure = plot_atlas(curves, absent, 12, "Safety atlas of a text model")
    assert problems(figure) == []
    assert "no item needs picture and words" in figure._supxlabel.get_text()


@pytest.mark.parametrize("depth", DEPTHS)
def test_one_curve_can_be_read(depth):
    curves, roles = roles_of(depth)
    assert problems(plot_curve(curves["perception"], depth, roles.perception)) == []


def test_trajectory_legend_lies_outside_the_curves():
    blocks = list(range(30))
    rise = np.linspace(-4, 6, 30)
    part = {"n": 120, "value": rise.tolist(), "low": (rise - 1).tolist(), "high": (rise + 1).tolist()}
    figure = plot_trajectory(
        {"blocks": blocks, "refused": part, "answered": part}, curve("lens_agreement", 30, 20, 0.9), 30
    )
    assert problems(figure) == []
    assert all(axes.get_legend() is None for axes in figure.axes) and figure.legends


def systems(count: int) -> list[dict]:
    rate = lambda v: {"value": v, "low": max(0.0, v - 0.06), "high": min(1.0, v + 0.06), "total": 134}  # noqa: E731
    crowded = 0.12 + 0.02 * RNG.standard_normal(count)
    names = [
        "none",
        "refusal_direction",
        "self_reminder",
        "safety_prompt",
        "adashield_s",
        "hiddendetect",
        "first_token",
    ]
    names += [f"defence_number_{n}" for n in range(count - len(names))]
    return [
        {"name": name, "attack_success": rate(float(a)), "over_refusal": rate(float(abs(b))), "forwards": 1.0 + n % 4}
        for n, (name, a, b) in enumerate(zip(names, crowded, crowded[::-1], strict=True))
    ]


@pytest.mark.parametrize("count", [7, 16])
def test_names_of_crowded_defences_do_not_cover_each_other(count):
    figure = defense_plane(systems(count))
    assert problems(figure) == []
    assert len(figure.axes[0].texts) == count


def test_sasa_map_is_readable_on_every_colour_and_has_no_negative_zero():
    cells = [
        {"safety": s, "fused": f, "gain": g, "p_adjusted": 0.01 if g > 0.05 else 0.5}
        for (s, f), g in zip(
            [(s, f) for s in range(5) for f in range(s + 1, 6)], np.linspace(-0.12, 0.12, 15), strict=True
        )
    ]
    cells[3]["gain"] = -0.001
    figure = plot_gain_map(cells, 6)
    assert problems(figure) == []
    assert all(text.get_text() != "-0.00" for text in figure.axes[0].texts)


def test_sasa_controls_and_label_efficiency_can_be_read():
    controls = [
        {"name": f"control_{n}", "auroc": 0.7 + n / 50, "low": 0.66 + n / 50, "high": 0.74 + n / 50} for n in range(9)
    ]
    assert problems(plot_controls([*controls, {"name": "no_projection", "auroc": 0.8, "low": 0.7, "high": 0.9}])) == []
    row = {"auroc": 0.8, "low": 0.7, "high": 0.9}
    assert problems(plot_label_efficiency([{"size": n, "sasa": row, "plain": row} for n in (16, 64, 256, 1024)])) == []


def grid(effect: float) -> PatchGrid:
    values = np.zeros((2, 1, 12, 3, 12))
    values += 0.01 * RNG.standard_normal(values.shape)
    clean, corrupted = np.full(12, 4.0), np.full(12, -4.0)
    values[0] -= 4.0  # denoising starts from the corrupted run
    values[1] += 4.0
    values[0, :, 4:, 2] += 8 * effect
    values[1, :, 4:, 2] -= 8 * effect
    pairs = tuple((f"a{n}", f"b{n}") for n in range(12))
    names = (("denoise", "noise"), ("resid_pre",), tuple(range(12)), ("image", "question", "last"))
    groups = tuple(clean_id for clean_id, _ in pairs)
    return PatchGrid(values, clean, corrupted, None, *names, pairs, groups, 1, "refusal_log_odds", "resumed", "", {})


def test_patch_grid_colours_only_what_survives_and_says_how_much():
    strong = plot_patch_grid(grid(0.9), 12)
    assert problems(strong) == []
    drawn = strong.axes[0].images[0].get_array()
    assert np.isnan(np.ma.filled(drawn[0], np.nan)).all() and np.allclose(drawn[2, 5:], 0.9, atol=0.05)
    nothing = plot_patch_grid(grid(0.0), 12)
    assert "none of 72 cells survives" in nothing._suptitle.get_text()


def test_patches_on_the_picture_show_the_whole_question():
    from PIL import Image

    question = "Would it be all right for my grandmother with a bad back to carry this up the stairs?"
    picture = Image.new("RGB", (64, 64), "white")
    figure = plot_patches_on_picture([(picture, picture, RNG.random((3, 8, 8)), question)] * 3, [0, 4, 8])
    assert problems(figure) == []
    assert figure.axes[0].get_ylabel().replace("\n", " ") == question


def test_quadrants_are_told_in_words():
    cell = {"count": 3, "n": 30, "value": 0.1, "low": 0.03, "high": 0.26}
    rows = [{"quadrant": q, "n": 30, "perceived": cell, "refused": cell, "perceived_not_refused": cell}
            for q in ("SSU", "SUU", "USU", "UUU", "SSS", "USS")]  # fmt: skip
    figure = plot_quadrants(rows, rows)
    assert problems(figure) == []
    assert "picture safe\nwords unsafe\ntogether unsafe" in figure.axes[0].get_xticklabels()[1].get_text()


def test_planes_of_neighbouring_blocks_do_not_flip():
    states = RNG.standard_normal((80, 6))
    flipped = [states, -states, states[:, ::-1] * 1.01, -states]
    planes = aligned_planes(flipped)
    for before, after in pairwise(planes):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.99
    assert np.allclose(np.linalg.norm(planes[1], axis=1), np.linalg.norm(planes[0], axis=1))  # only turned
    labels = (np.arange(80) % 2).astype(int)
    assert problems(plot_strip(dict(enumerate(planes)), labels, dict.fromkeys(range(4), 0.8))) == []


def test_comparison_names_role_and_runs_once():
    curves, roles = roles_of(12)
    tests = [
        {"first": "base", "second": "defended", "role": role, "quantity": q, "what": q, "difference": 0.1, "low": 0.0,
         "high": 0.2, "p_value": 0.04, "q_value": 0.04}
        for role in curves for q in ("onset", "peak", "value")
    ]  # fmt: skip
    figure = plot_comparison([("base", curves, roles, 12), ("defended", curves, roles, 12)], tests)
    assert problems(figure) == []

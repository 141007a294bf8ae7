"""The registry of measures: each keeps the contract on a real tiny model and agrees with plain forwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lvlm_lens import LVLM
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.locate.consensus import change_point
from lvlm_lens.locate.elsewhere import read_elsewhere
from lvlm_lens.locate.locating import locate_roles
from lvlm_lens.measures import concept_probe, linear_probe
from lvlm_lens.measures.check_measure import check_spec
from lvlm_lens.measures.draws import load_curves, load_measured, save_curves
from lvlm_lens.measures.evidence import gather
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.measures.spec import Measured, measure
from lvlm_lens.measures.study import Study
from lvlm_lens.measures.tuned_lens import TunedLens, chat_states, train_tuned_lens
from lvlm_lens.measures.unembedding import Unembedding, twin_lens, unembedding_of
from lvlm_lens.measures.versions import NEUTRAL
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.stages.measuring import (
    HEADLINES,
    MEASURES,
    ROBUSTNESS,
    measure_stage,
    measuring_work,
    parse_measures,
    rows_forward,
)
from lvlm_lens.stats import crossfit
from lvlm_lens.stats.curve import Curve, curve_from_draws

WORDS = ("box", "cup", "lamp", "door")


def items(groups: int = 10) -> list[Sample]:
    """Bright pictures are harmful, dark ones harmless; four questions about each, in groups of four."""
    from PIL import Image

    rng = np.random.default_rng(0)
    found = []
    for group in range(groups):
        for bright in (0, 1):
            pixels = rng.integers(0, 100, (40, 40, 3), dtype=np.uint8) + np.uint8(150 * bright)
            picture = ImageObject(Image.fromarray(pixels))
            for which in (0, 1):
                thing = WORDS[(group + which) % 4]
                found.append(
                    Sample(
                        f"{group}-{bright}-{which}", f"May I open the {thing} number {group}?", (picture,),
                        group=f"group {group}", counterfactual=f"{group}-{1 - bright}-{which}",
                        caption=f"a {'bright' if bright else 'dark'} {thing} {group}",
                        label_joint="unsafe" if bright else "safe", label_image="unknown", label_text="safe",
                        reference="Yes, the box and the lamp can be opened.",
                        concepts={"object": thing, "joint": f"{thing} {bright}"},
                    )
                )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def model() -> LVLM:
    return LVLM(*tiny_model("llava"))


@pytest.fixture(scope="module")
def study(model, tmp_path_factory) -> Study:
    data = items()
    evidence = gather(model, data)
    # random weights refuse nothing: the median stands for the decision, so that half of the items are "refused"
    evidence = replace(evidence, log_odds=evidence.log_odds - np.median(evidence.log_odds))
    with model.random_twin(0) as shuffled:
        twin, head = gather(shuffled, data), twin_lens(shuffled)
    located = locate_roles(evidence, twin, probe=LinearProbe(permutations=20, replicates=100))
    folder = tmp_path_factory.mktemp("study")
    return Study(
        model, evidence, located, twin, head, permutations=20, replicates=100, out=folder
    )  # fmt: skip


@pytest.fixture(scope="module")
def states(model, study) -> np.ndarray:
    """resid_post at the last token by plain forwards, ``[n, block, d]``; the last block by a hook on its output."""
    return plain_states(model, study.samples)


def plain_states(model: LVLM, samples) -> np.ndarray:
    out = []
    kept = []
    handle = model.anatomy.blocks[-1].register_forward_hook(
        lambda module, args, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    for sample in samples:
        with torch.no_grad():
            hidden = model.model.model(**model.encode(sample).inputs, output_hidden_states=True).hidden_states
        out.append(torch.stack([*(h[0, -1] for h in hidden[1:-1]), kept.pop()[0, -1]]).numpy())
    handle.remove()
    return np.stack(out)


@pytest.mark.parametrize("name", list(MEASURES))
def test_every_measure_keeps_the_contract(name, study):
    spec = MEASURES[name]
    found = check_spec(spec, study)
    for curve in (found.curve, *found.others.values()):
        assert curve.blocks == tuple(study.evidence.blocks)
        assert curve.replicates.shape[1] == len(curve) and curve.unit and curve.meta["source"] == spec.source
        assert curve.null_draws is not None or curve.meta["no_null"]
        assert curve.meta["depth"] == study.model.n_blocks


def test_no_measure_beside_the_roles_own_fits_probes_on_shuffled_labels(study, monkeypatch):
    """So the estimate counts their arithmetic in plain probes: counted with shuffles it was seven times too much."""
    vectors = []
    real = crossfit.out_of_fold

    def counted(rows, codes, *given, **more):
        vectors.append(codes.shape[1])
        return real(rows, codes, *given, **more)

    for room in (linear_probe, concept_probe):
        monkeypatch.setattr(room, "out_of_fold", counted)
    names = [name for name, spec in MEASURES.items() if spec.cost in ("cheap", "forward")]
    measure_stage(study, names)
    assert max(vectors, default=1) == 1
    rows, labels = np.random.default_rng(0).normal(size=(24, 1, 4)), np.arange(24) % 2
    LinearProbe(permutations=5, replicates=10).fit(rows, labels)
    assert max(vectors) > 1  # the count sees shuffles where there are some
    work = measuring_work(names, len(study.samples), study.model.n_blocks, 4, len(study.evidence.blocks), True)
    assert work.probes == 0 and work.probes_plain > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cost": "dear"}, "cost"),
        ({"planted": "", "untested": ""}, "untested"),
        ({"planted": "joy"}, "planted"),
        ({"variants": ("none",)}, "variants"),
        ({"expected": ("tea_leaves",)}, "expected baselines"),
        ({"cost": "forward"}, "rows belong"),
        ({"compute": lambda study: Measured(replace(study.located.curves["perception"], unit=""))}, "unit"),
    ],
)
def test_a_spec_that_breaks_the_contract_is_named(change, says, study):
    with pytest.raises(AssertionError, match=says):
        check_spec(replace(MEASURES["linear_probe"], **change), study)


def test_reading_measures_equal_plain_forwards(study, model, states):
    labels = study.labels
    gap = measure(MEASURES["angular_gap"], study).curve
    head, norm = model.anatomy.head, model.anatomy.norm
    lens = measure(MEASURES["refusal_lens"], study)
    refusal = np.zeros(model.anatomy.vocab_size)
    refusal[list(study.evidence.refusal_ids)] = 1
    odds = study.located.curves["expression"]
    trajectory = measure(MEASURES["trajectory"], study)
    for block in range(model.n_blocks):
        x = states[:, block].astype(np.float64)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosine = unit @ unit.T
        other = study.groups[:, None] != study.groups[None]
        normal, mixed = (other & (labels[:, None] == 0) & (labels[None] == kind) for kind in (0, 1))
        angle = abs(np.arccos(cosine[normal].mean()) - np.arccos(cosine[mixed].mean()))
        assert gap.value[block] == pytest.approx(angle, abs=1e-4)
        with torch.no_grad():
            logits = head(norm(torch.from_numpy(states[:, block]))).double().numpy()
        for centred, curve in ((False, lens.curve), (True, lens.others["refusal_lens_centred"])):
            a, r = (logits - logits.mean(1, keepdims=True), refusal - refusal.mean()) if centred else (logits, refusal)
            f = a @ r / np.linalg.norm(a, axis=1) / np.linalg.norm(r)
            assert curve.value[block] == pytest.approx(f[labels == 1].mean() - f[labels == 0].mean(), abs=1e-5)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p = (p * refusal).sum(1) / p.sum(1)
        assert odds.value[block] == pytest.approx(roc_auc_score(labels, np.log(p) - np.log1p(-p)), abs=2e-3)
        says = np.isin(logits.argmax(1), study.evidence.refusal_ids)
        refused = study.refused
        agreement = (says[refused].mean() + (~says[~refused]).mean()) / 2
        assert trajectory.curve.value[block] == pytest.approx(agreement)


def test_measures_of_other_versions_equal_plain_forwards(study, model, states):
    rows = np.flatnonzero([bool(s.images) for s in study.samples])
    words = plain_states(model, [replace(study.samples[row], images=()) for row in rows])
    shown = plain_states(model, [replace(study.samples[row], text=NEUTRAL) for row in rows])
    found = measure(MEASURES["modality_cosine"], study)
    for curve, single in ((found.curve, words), (found.others["modality_cosine_picture"], shown)):
        for block in range(model.n_blocks):
            a, b = (x[:, block].astype(np.float64) - x[:, block].mean(0) for x in (states, single))
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            assert curve.value[block] == pytest.approx(cosine.mean(), abs=1e-4)
    captions = [replace(s, text=f"{s.caption}.", images=()) for s in study.samples]
    distinct = sorted({s.caption: row for row, s in reversed(list(enumerate(study.samples)))}.values())
    said = plain_states(model, [captions[row] for row in distinct])
    pictures = shown[[list(rows).index(row) for row in distinct]]
    curve = measure(MEASURES["shared_semantics"], study).curve
    for block in range(model.n_blocks):
        a, b = (x[:, block] / np.linalg.norm(x[:, block], axis=1, keepdims=True) for x in (pictures, said))
        cosine = (a @ b.T).astype(np.float64)
        own, rest = np.diag(cosine), cosine[~np.eye(len(cosine), dtype=bool)]
        assert curve.value[block] == pytest.approx(own.mean() - rest.mean(), abs=1e-4)


def test_names_and_near_matches():
    assert set(HEADLINES.values()) <= set(parse_measures("angular_gap"))
    assert parse_measures("all") == [*MEASURES, ROBUSTNESS]
    assert set(parse_measures("default")) == {name for name, spec in MEASURES.items() if spec.default}
    assert all(MEASURES[name].cost in ("free", "cheap") for name in parse_measures("default"))
    with pytest.raises(UsageError, match="did you mean angular_gap"):
        parse_measures("angular_gpa")
    with pytest.raises(UsageError, match="no measures"):
        parse_measures(" , ")


@pytest.mark.parametrize("name", ["head_attribution", "knockout_flow", "modality_cosine"])
def test_rows_are_estimated_as_they_are_run(name, study, model):
    seen = []

    def count(module, args, output):
        seen.append(len(output[0] if isinstance(output, tuple) else output))

    hooks = [block.register_forward_hook(count) for block in model.anatomy.blocks]
    study._states.clear()
    measure(MEASURES[name], study)
    for hook in hooks:
        hook.remove()
    rows = sum(seen) / model.n_blocks  # a run that begins at a later block counts for the blocks it runs
    expected = rows_forward([name], len(study.samples), model.n_blocks, model.anatomy.n_heads)
    batch = 64 if name == "head_attribution" else 0  # one head of its first batch is checked: again, and in full
    assert expected <= rows <= expected + batch + 6  # the cache of picture features checks itself on a row


def test_stage_keeps_what_it_found_and_says_what_it_could_not(study, tmp_path):
    names = parse_measures("mean_difference,tuned_lens,difference_consistency")
    first = measure_stage(study, names, tmp_path)
    assert not first.reasons and set(first.consensus) == {"perception", "semantics", "expression"}
    file = tmp_path / "mean_difference.safetensors"
    stamp = file.stat().st_mtime_ns
    second = measure_stage(study, names, tmp_path)
    assert file.stat().st_mtime_ns == stamp
    assert second.to_dict() == first.to_dict()
    assert "tuned_lens" in second.consensus["expression"].excluded
    missed = {name for name, word in first.standing.items() if word == "missed"}
    assert missed <= set(first.consensus["perception"].excluded) | set(first.consensus["semantics"].excluded)
    kept = load_measured(file).curve
    np.testing.assert_array_equal(kept.replicates, first.measured["mean_difference"].curve.replicates)
    file.write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"mean_difference.*remove it"):
        measure_stage(study, names, tmp_path)
    alone = replace_samples(study, lambda sample: replace(sample, counterfactual=None))
    left_out = measure_stage(alone, ["difference_consistency"])
    assert "pairs" in left_out.reasons["difference_consistency"]
    row = left_out.to_dict()["measures"]["difference_consistency"]
    assert not row["done"] and "pairs" in row["reason"]


def replace_samples(study: Study, change) -> Study:
    evidence = replace(study.evidence, samples=tuple(change(sample) for sample in study.samples))
    return replace(study, evidence=evidence, twin=None)


def test_curves_survive_the_file(tmp_path):
    draws = np.random.default_rng(0).random((20, 3))
    curve = curve_from_draws("a", (1, 2, 5), draws.mean(0), draws, draws / 2, unit="x", n=4)
    curve = curve.with_baseline("text_only", 0.5)
    save_curves(tmp_path / "c.safetensors", {"a": curve}, {"k": [1]})
    back, about = load_curves(tmp_path / "c.safetensors")
    assert about == {"k": [1]} and back["a"].to_dict(draws=True) == curve.to_dict(draws=True)
    assert isinstance(back["a"], Curve)


def test_a_curve_that_has_risen_before_the_first_block_rises_there():
    drawn = 0.9 + 0.01 * np.random.default_rng(0).standard_normal((50, 5))
    curve = curve_from_draws("a", (0, 1, 2, 3, 4), drawn.mean(0), drawn, np.full((20, 5), 0.5), unit="AUROC", n=9)
    assert (change_point(curve).start, change_point(curve).end) == (0, 0)
    late = replace(curve, value=curve.value - [0.4, 0.4, 0, 0, 0], replicates=drawn - [0.4, 0.4, 0, 0, 0])
    assert (change_point(late).start, change_point(late).end_high) == (2, 2)


def test_robustness_has_a_row_for_every_variant(study):
    found = measure_stage(study, parse_measures(ROBUSTNESS)).robustness
    assert found["done"] and set(found["tables"]) == {"perception", "semantics", "expression"}
    for table in found["tables"].values():
        assert {row["factor"] for row in table} == {"reference", "sample", "seed", "position", "pooling", "template"}
        assert {row["setting"] for row in table if row["factor"] == "position"} == {
            "last question token", "first generated token",
        }  # fmt: skip
        assert all(row["found"] or row["reason"] for row in table)


# -- reading elsewhere ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llama"])
def test_elsewhere_equals_plain_forwards(family):
    model = LVLM(*tiny_model(family))
    data = items(2)
    data = data if model.takes_images else [replace(sample, images=()) for sample in data]
    ids = [3, 5]
    places = {"q": "question[-1]", "mean": "question"}
    found = read_elsewhere(model, data, places, [1, 3], ids, batch_size=3)
    tokens = [7 + i for i in range(len(data))]
    after = read_elsewhere(model, data, {"last": "last"}, [1, 3], ids, first_tokens=tokens, batch_size=3)
    for row, sample in enumerate(data):
        encoded = model.encode(sample)
        where = list(encoded.layouts[0].question)
        inner = model.model.model
        with torch.no_grad():
            hidden = inner(**model.forward_inputs(encoded), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(found["q"].resid[row, 0], hidden[2][0, where[-1]], atol=1e-4)
        np.testing.assert_allclose(found["mean"].resid[row, 0], hidden[2][0, where].mean(0), atol=1e-4)
        inputs = dict(encoded.inputs)
        more = torch.tensor([[tokens[row]]])
        for name, value in encoded.inputs.items():
            if name == "input_ids":
                inputs[name] = torch.cat([value, more], 1)
            elif name == "attention_mask":
                inputs[name] = torch.cat([value, torch.ones_like(more)], 1)
            elif name.endswith("token_type_ids"):
                inputs[name] = torch.cat([value, torch.zeros_like(more)], 1)
        with torch.no_grad():
            hidden = inner(**inputs, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(after["last"].resid[row, 0], hidden[2][0, -1], atol=1e-4)
        logits = model.anatomy.lens(torch.from_numpy(after["last"].resid[row])).double()
        p = logits.softmax(-1)[:, ids].sum(-1)
        np.testing.assert_allclose(after["last"].lens_log_odds[row], (p / (1 - p)).log().detach(), atol=1e-3)


# -- tuned lens -----------------------------------------------------------------------------------


def test_tuned_lens_finds_an_affine_map():
    """Where the final state is an affine map of a block's, the tuned lens reads the final distribution there."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((400, 8))
    final = h @ rng.standard_normal((8, 8)) + rng.standard_normal(8)
    lens = Unembedding(torch.randn(30, 8, generator=torch.Generator().manual_seed(1)))
    states = np.stack([h, rng.standard_normal((400, 8)), final], 1).astype(np.float32)
    tuned = train_tuned_lens(lens, states, [0, 1, 2], np.arange(400) // 4)
    target = lens.logits(states[:, 2]).log_softmax(-1)

    def kl(logits: torch.Tensor) -> float:
        return float((target.exp() * (target - logits.log_softmax(-1))).sum(-1).mean())

    assert kl(tuned.logits(states[:, 0], 0)) < 1e-2 < kl(lens.logits(states[:, 0]))
    assert kl(tuned.logits(states[:, 1], 1)) < kl(lens.logits(states[:, 1]))  # a constant at least
    assert kl(tuned.logits(states[:, 2], 2)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match="5 at least"):
        train_tuned_lens(lens, states[:30], [0, 1, 2])


def test_tuned_lens_is_trained_on_the_models_own_chats_and_kept(study, model, tmp_path):
    data = items(2)[:3]
    found, number = chat_states(model, data, [0, 3], tokens=1000)
    answer = model.generate(data, max_new_tokens=16)[1]
    encoded = model.encode([data[1]], continuation=[answer])
    with torch.no_grad():
        hidden = model.model.model(**encoded.inputs, output_hidden_states=True).hidden_states
    text = list(encoded.layouts[0].part("text"))
    np.testing.assert_allclose(found[number == 1][:, 0], hidden[1][0, text], atol=1e-4)
    result = measure(MEASURES["tuned_lens"], study)
    plain, tuned = (np.array(result.tables[f"kl_{kind}"]) for kind in ("logit", "tuned"))
    assert tuned[:-1].mean() < plain[:-1].mean() and tuned[-1] == pytest.approx(0, abs=1e-6)
    file = next(study.out.glob("tuned_lens-*.safetensors"))
    assert file.stem.endswith(model.weights_hash()[:16])
    kept = TunedLens.load(file, study.lens)
    held = {sample.group for sample in study.samples if sample.id in kept.trained_on}
    assert result.curve.n == sum(sample.group not in held for sample in study.samples)


# -- the lens against TransformerLens' --------------------------------------------------------------


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_lens_equals_transformer_lens_with_the_pixels_handed_over(family):
    model = LVLM(*tiny_model(family))
    data = items(1)[:2]
    evidence = gather(model, data)
    bridge = model.to_transformer_lens()
    lens = unembedding_of(model)
    for row, sample in enumerate(data):
        inputs = {k: v for k, v in model.forward_inputs(model.encode(sample)).items() if k != "position_ids"}
        assert any(key.startswith("pixel") for key in inputs)
        with torch.inference_mode():
            _, cache = bridge.run_with_cache(inputs.pop("input_ids"), **inputs)
            for block in range(model.n_blocks):
                resid = cache[f"blocks.{block}.hook_resid_post"][:, -1:]
                theirs = bridge.unembed(bridge.ln_final(resid))[0, 0].float()
                ours = lens.logits(evidence.resid[row : row + 1, block])[0]
                if lens.softcap is None:
                    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)
                assert int(ours.argmax()) == int(theirs.argmax()) == evidence.lens_top[row, block]

"""HySAC: the geometry against geoopt, the loss against its definition, traversal, a CLIP that trains and comes back."""

import math

import pytest
import torch

from lvlm_lens.train.hysac import lorentz
from lvlm_lens.train.hysac.loss import ENTAILMENTS, MATCHED, Head, Terms
from lvlm_lens.train.hysac.retrieval import hits
from lvlm_lens.train.hysac.traversal import Traversal, safe_bound

geoopt = pytest.importorskip("geoopt")
CURVATURES = (0.25, 1.0, 4.0)


def points(n: int, c: float, size: float = 1.0, seed: int = 0) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return lorentz.lift(size * torch.randn(n, 6, generator=chance, dtype=torch.float64), c)


def whole(x: torch.Tensor, c: float) -> torch.Tensor:
    """geoopt's points: time part first."""
    return torch.cat([lorentz.time_part(x, c), x], -1)


@pytest.mark.parametrize("c", CURVATURES)
def test_the_geometry_is_geoopts(c):
    space = geoopt.Lorentz(k=1 / c)
    v = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lifted = space.expmap0(torch.cat([torch.zeros(5, 1, dtype=torch.float64), v], -1))
    torch.testing.assert_close(whole(lorentz.lift(v, c), c), lifted)
    x, y = points(5, c), points(5, c, seed=2)
    expected = torch.stack([space.dist(whole(x, c)[i].expand(5, -1), whole(y, c)) for i in range(5)])
    torch.testing.assert_close(lorentz.distance(x, y, c), expected)
    torch.testing.assert_close(lorentz.radius(x, c), space.dist0(whole(x, c)))
    torch.testing.assert_close(lorentz.radius(lorentz.lift(v, c), c), v.norm(dim=-1))
    # the exterior angle, from logarithmic maps: between the continued ray from the origin and the way to y
    origin = torch.zeros(5, 7, dtype=torch.float64)
    origin[:, 0] = 1 / math.sqrt(c)
    away, there = -space.logmap(whole(x, c), origin), space.logmap(whole(x, c), whole(y, c))
    cosine = space.inner(x, away, there) / (space.inner(x, away) * space.inner(x, there)).sqrt()
    angle = torch.acos(cosine)
    torch.testing.assert_close(lorentz.exterior_angle(x, y, c), angle, atol=1e-5, rtol=0)


def test_traversal_reaches_its_target_only_when_it_is_fixed():
    x = points(50, 2.0, size=2.0)
    assert safe_bound(x, 2.0) == pytest.approx(float(torch.quantile(lorentz.radius(x, 2.0), 0.95)), rel=1e-5)
    for mode, reached in (("fixed", 0.9), ("paper", math.asinh(math.sqrt(2) * 0.9) / math.sqrt(2))):
        moved_to, moved = Traversal(0.9, 2.0, None, mode)(x)
        assert moved.any() and torch.equal(moved_to[~moved], x[~moved])
        torch.testing.assert_close(
            lorentz.radius(moved_to[moved], 2.0), torch.full((int(moved.sum()),), reached).double()
        )
    assert Traversal(0.9, 2.0).target == pytest.approx(0.9 + math.tanh(0.05) + 1)


def test_the_loss_is_the_sum_of_its_terms_and_each_can_be_left_out():
    torch.manual_seed(0)
    features = {name: torch.randn(4, 8) for name in ("T", "I", "T*", "I*")}
    head = Head(8)
    loss, parts = head(features)
    assert len(parts) == 7 and loss.item() == pytest.approx(sum(parts.values()) / 7, rel=1e-5)
    c = float(head.curvature)
    at = {name: lorentz.lift(f * 8**-0.5, c) for name, f in features.items()}
    logits = -lorentz.distance(at["T"], at["I*"], c) / 0.07
    both = [torch.diagonal(-table.log_softmax(1)).mean() for table in (logits, logits.T)]
    assert parts["C(T,I*)"] == pytest.approx(float(sum(both) / 2), rel=1e-4)
    hinge = lorentz.exterior_angle(at["I"], at["T*"], c) - lorentz.half_aperture(at["I"], c)
    assert parts["E(I->T*)"] == pytest.approx(float(hinge.clamp_min(0).mean()), rel=1e-5)
    fewer = Head(8, Terms(contrasts=MATCHED, weight=0.0))(features)[1]
    assert set(fewer) == {"C(T,I)", "C(T*,I*)"}
    euclidean = Head(8, Terms("euclidean"))(features)[1]
    assert len(euclidean) == 4 and len(ENTAILMENTS) == 3


def test_hits_count_ties_against_the_query():
    similarity = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.5, 0.1], [0.2, 0.3, 0.25]])
    assert hits(similarity, [0, 0, 0]).tolist() == [True, False, False]
    assert hits(similarity, [0, 0, 0], k=2).tolist() == [True, True, False]


def tiny_clip(seed: int = 0):
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 8, "eos_token_id": 59, "bos_token_id": 1}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    torch.manual_seed(seed)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()


def quadruplets(n: int = 4):
    chance = torch.Generator().manual_seed(0)
    texts = torch.randint(2, 58, (n, 2, 6), generator=chance)
    texts[..., -1] = 59
    return texts, torch.randn(n, 2, 3, 16, 16, generator=chance)


def test_a_clip_learns_and_comes_back_from_its_folder(tmp_path):
    from lvlm_lens.train.hysac.model import HySAC

    model = HySAC(tiny_clip(), rank=4, alpha=8, dropout=0.0)
    names = [name for name, p in model.clip.named_parameters() if p.requires_grad]
    assert any("patch_embedding" in name for name in names)
    assert not any(word in name for name in names for word in ("q_proj", "text_projection", "visual_projection"))
    texts, images = quadruplets()
    with torch.no_grad():
        plain = tiny_clip().get_text_features(input_ids=texts[:, 0]).pooler_output
        torch.testing.assert_close(model.features("text", texts[:, 0]), plain)  # untrained, LoRA changes nothing
    optimizer = torch.optim.AdamW(model.groups(), lr=3e-3, betas=(0.9, 0.98))
    losses = []
    for _ in range(25):
        loss = model(texts, images)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]
    model.save(tmp_path)
    again = HySAC.load(tiny_clip(), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(texts, images)["loss"], model.eval()(texts, images)["loss"])


def test_the_experiment_runs_and_writes_its_page(tmp_path):
    """A few steps on a few things: what is tested is the way from training to the page, not what it shows."""
    import json

    from lvlm_lens.train.hysac.experiment import ROWS, estimate, exchanged, run_seed
    from lvlm_lens.train.hysac.world import SPLITS, World, is_safe
    from training.hysac.page import write_page

    world = World.draw(things=20, new=5)
    pairs = world.quadruplets("seen")
    assert all(is_safe(q.safe) and not is_safe(q.unsafe) and q.safe[1] == q.unsafe[1] for q in pairs)
    held = {scene for q in world.quadruplets("combination") for scene in q}
    assert held <= world.apart and not held & set(world.scenes("known"))
    assert {scene[0] for q in world.quadruplets("object") for scene in q} <= world.new
    assert exchanged(pairs, "swapped", 0)[0].safe == pairs[0].unsafe and exchanged(pairs, "hysac", 0) == pairs
    assert 0 < sum(a != b for a, b in zip(exchanged(pairs, "random", 0), pairs, strict=True)) < len(pairs)
    perfect = estimate([[(0.0, "a"), (0.1, "b"), (1.0, "a"), (2.0, "c")]], [0, 0, 1, 1])
    assert perfect.value == perfect.low == perfect.high == 1.0
    seeds = [json.loads(json.dumps(run_seed(world, seed, lambda line: None, steps=3, tuned=2))) for seed in (0, 1)]
    assert set(seeds[0]["rows"]) == {*ROWS, "probe"} and set(seeds[0]["rows"]["hysac"]) == set(SPLITS)
    write_page(seeds, tmp_path, tmp_path / "hysac.json")
    page = (tmp_path / "hysac.md").read_text()
    assert page.count("| 4 HySAC |") == len(SPLITS) + 2 and "| combination | paper |" in page
    assert (tmp_path / "figures" / "hysac.png").is_file()
    kept = json.loads((tmp_path / "hysac.json").read_text())
    cell = kept["rows"]["hysac"]["seen"]["safe text to picture R@1"]
    assert f"| {cell['value']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}] |" in page and len(kept["atlas"]) == 2


def test_the_method_keeps_the_contract_on_mini(tmp_path):
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from lvlm_lens import load_dataset
    from lvlm_lens.data import Dataset
    from lvlm_lens.errors import DataError
    from lvlm_lens.models.mini import mini_path
    from lvlm_lens.train import Settings, make_method
    from lvlm_lens.train.check_method import check_method

    tokenizer = AutoTokenizer.from_pretrained(mini_path())
    shared = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**shared, "vocab_size": len(tokenizer), "max_position_embeddings": 40, "eos_token_id": 2}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config={**shared, "image_size": 16, "patch_size": 8}))
    base = tmp_path / "clip"
    clip.save_pretrained(base)
    tokenizer.save_pretrained(base)
    size = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(base)
    data = load_dataset("mini")
    pairs = [pair for pair in data.pairs() if pair.clean.images and pair.corrupted.images][:4]
    few = Dataset([sample for pair in pairs for sample in (pair.clean, pair.corrupted)], "mini")
    settings = Settings(steps=4, save_every=2, batch_size=2, rank=2, rate=3e-3)
    record = check_method(make_method("hysac"), str(base), few, tmp_path, settings)
    assert set(record["weights"]) == {"adapter_model.safetensors", "hysac.safetensors"}
    assert record["audits"]["after"]["changes_features"] > 0 and 0.1 <= record["curvature"] <= 10
    words = Dataset([sample.without_images() for sample in few], "words")
    with pytest.raises(DataError, match="has a picture on both sides"):
        make_method("hysac").train(make_job(base, words, settings, tmp_path / "words"))


def make_job(base, data, settings, folder):
    from lvlm_lens.train.method import Job

    return Job(str(base), data, settings, folder)

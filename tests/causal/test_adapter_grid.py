"""Adapter patching: cells against PEFT's own scales and against weights added by hand, resuming, nulls, the folder."""

import json
import re

import numpy as np
import pytest
import torch
from prompts import picture
from safetensors.torch import load_file

from lvlm_lens import LVLM
from lvlm_lens.causal import AdapterGrid, adapter_grid
from lvlm_lens.causal.adapter_runs import Runs
from lvlm_lens.causal.adapter_switches import OFF, ON, ON_BUT_RANDOM, RANDOM, Switches, switchable
from lvlm_lens.data import Pair, Sample
from lvlm_lens.errors import RunFolderError, SiteError, UsageError
from lvlm_lens.models.tiny import tiny_model

peft = pytest.importorskip("peft")
TARGETS = r".*(q_proj|v_proj|o_proj|down_proj|gate_proj|linear_1)"


WORDS = ("Is it safe?", "May I take it?", "How do I use this one here?", "What now?", "Can he eat it?", "Why so?")
PAIRS = [
    Pair(
        Sample(f"h{n}", words, (picture(n),), group=str(n)),
        Sample(f"s{n}", words, (picture(100 + n),), group=str(n)),
    )
    for n, words in enumerate(WORDS)
]


def fifth_over_ninth(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 5] - logits[:, 9]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny checkpoint and an adapter of random weights in its tower, projector and language model."""
    root = tmp_path_factory.mktemp("grid")
    model, processor = tiny_model("llava")
    model.save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=16, target_modules=TARGETS))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    wrapped.save_pretrained(root / "lora")
    return root


@pytest.fixture(scope="module")
def base(place) -> LVLM:
    return LVLM.from_pretrained(place / "base")


@pytest.fixture(scope="module")
def grid(place, base) -> AdapterGrid:
    sites = ("adapter", "adapter.attn", "adapter.mlp")
    return adapter_grid(base, place / "lora", PAIRS, sites, window=2, metric=fifth_over_ninth, batch_size=4)


def added_by_hand(place, base, keys) -> np.ndarray:
    """The metric on the harmful prompts of a fresh model whose weights were W + 4 B A for the keys that hold."""
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(place / "base").eval()
    weights = dict(model.named_parameters())
    parts = load_file(place / "lora" / "adapter_model.safetensors")
    with torch.no_grad():
        for key in (k for k in parts if ".lora_A." in k and keys(k)):
            name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            weights[name] += 4.0 * parts[key.replace("lora_A", "lora_B")] @ parts[key]
        found = []
        for pair in PAIRS:  # one prompt at a time: no padding
            inputs = base.encode(pair.clean).inputs
            found.append(fifth_over_ninth(model(**inputs).logits[:, -1].float()))
    return torch.cat(found).numpy()


def in_blocks(*blocks, part=""):
    return lambda key: any(f"language_model.layers.{b}." in key for b in blocks) and part in key


CELLS = {
    ("denoise", "adapter", 1, "block"): in_blocks(1),
    ("denoise", "adapter.attn", 1, "block"): in_blocks(1, part="self_attn"),
    ("denoise", "adapter.mlp", 0, "from above"): lambda k: "language_model" in k and ".mlp." in k,
    ("denoise", "adapter", 0, "window of 2"): in_blocks(0, 1),
    ("denoise", "adapter.vision", 0, "block"): lambda k: "vision_tower" in k,
    ("denoise", "adapter.projector", 0, "block"): lambda k: "projector" in k,
    ("noise", "adapter", 1, "block"): lambda k: not in_blocks(1)(k),
    ("noise", "adapter", 1, "from above"): lambda k: in_blocks(0)(k) or "vision" in k or "projector" in k,
    ("noise", "adapter.vision", 0, "block"): lambda k: "vision_tower" not in k,
}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(map(str, cell)))
def test_a_cell_is_the_model_with_those_weights_added(place, base, grid, cell):
    direction, site, block, span = cell
    expected = added_by_hand(place, base, CELLS[cell])
    untouched = added_by_hand(place, base, lambda key: direction == "noise")
    np.testing.assert_allclose(grid.curve(span, direction, site)[block], expected, atol=3e-5)
    assert np.abs(expected - untouched).max() > 1e-3, "a cell that changes nothing proves nothing"


def test_ends_verification_and_perception_are_reported(grid):
    assert grid.endpoints["base"] < 1e-5 and grid.endpoints["trained"] < 1e-5 < 0.1 < grid.endpoints["apart"]
    held = grid.refusal.verification
    assert held["wrong"] == 0 and held["cells"] == 4 and held["told_from_noise"] >= 1
    assert grid.meta["blocks_run"] < grid.meta["blocks_whole"]
    table = grid.summary()
    assert set(table["on"]) == {"harmful", "harmless"} and table["p_random"].notna().any()
    cells = int(np.isfinite(grid.refusal.values[..., 0]).sum())
    assert len(grid.perception) == cells and grid.perception["auroc"].between(0, 1).all()


def test_the_model_is_given_back_as_it_was(place, base, grid):
    from transformers import LlavaForConditionalGeneration

    assert not any("lora" in name for name, _ in base.model.named_modules())
    assert all(parameter.requires_grad for parameter in base.model.parameters())
    fresh = LlavaForConditionalGeneration.from_pretrained(place / "base").eval()
    inputs = base.encode(PAIRS[0].clean).inputs
    with torch.no_grad():
        assert torch.equal(base.model(**inputs).logits, fresh(**inputs).logits)


def test_what_is_off_is_the_base_bit_for_bit_and_random_parts_write_as_much(place, base):
    encoded = base.encode([pair.clean for pair in PAIRS])
    plain = base.logits(encoded)
    with switchable(base, place / "lora"):
        switches = Switches(base)
        runs = Runs(base, switches, 1)
        assert torch.equal(runs.whole(encoded, switches.config(OFF)), plain)
        on = runs.whole(encoded, switches.config(ON))
        switches.draw(seed=3)
        layer = base.anatomy.blocks[1].self_attn.q_proj
        read = torch.randn(7, layer.in_features)
        written = {}
        for mode in (OFF, ON, RANDOM, ON_BUT_RANDOM):
            switches.apply(switches.config(mode))
            written[mode] = layer(read).detach()
        lengths = (written[ON] - written[OFF]).norm(dim=-1)
        torch.testing.assert_close((written[RANDOM] - written[OFF]).norm(dim=-1), lengths)
        torch.testing.assert_close((written[ON_BUT_RANDOM] - written[ON]).norm(dim=-1), lengths)
        assert not torch.allclose(written[RANDOM], written[ON])
        assert torch.equal(runs.whole(encoded, switches.config(ON)), on)
        config = switches.config(OFF, [unit for unit in switches.units if unit.block == 1], ON)
        start = runs.record(encoded)
        assert switches.entry(config, switches.config(OFF)) == 1
        found = runs.run(encoded, config, start)
        torch.testing.assert_close(found.logits, runs.whole(encoded, config), atol=2e-5, rtol=0)
        late = switches.config(OFF, [unit for unit in switches.units if unit.block == 3], ON)
        assert late != switches.config(OFF) and late != switches.config(ON)
        at_one = start[0].at_last(start[0].left[1])  # a probe below the first block that is changed reads the base's
        torch.testing.assert_close(runs.run(encoded, late, start).states[1], at_one, atol=0, rtol=0)


def test_a_stopped_run_continues_and_another_run_is_refused(place, base, tmp_path):
    settings = {"metric": fifth_over_ninth, "null": 0, "batch_size": 2}
    whole = adapter_grid(base, place / "lora", PAIRS, **settings)

    class Stopped(Exception):
        pass

    def stop(done, total):
        raise Stopped

    with pytest.raises(Stopped):
        adapter_grid(base, place / "lora", PAIRS, progress=stop, out=tmp_path, **settings)
    assert not any("lora" in name for name, _ in base.model.named_modules())
    seen = []
    adapter_grid(base, place / "lora", PAIRS, progress=lambda done, total: seen.append(done), out=tmp_path, **settings)
    assert seen == [4, 6], "the first batch was kept"
    again = AdapterGrid.load(tmp_path)
    np.testing.assert_array_equal(again.refusal.values, whole.refusal.values)
    np.testing.assert_allclose(again.perception["auroc"], whole.perception["auroc"])
    assert json.loads((tmp_path / "adapter.json").read_text())["record"]["kind"] == "LORA"
    with pytest.raises(RunFolderError, match="positions"):
        adapter_grid(base, place / "lora", PAIRS, window=3, out=tmp_path, **settings)


def test_what_it_will_cost_is_said_before_and_is_what_is_run(place, base):
    said: list[str] = []
    settings = {"metric": fifth_over_ninth, "batch_size": len(PAIRS), "verify": 0}
    grid = adapter_grid(base, place / "lora", PAIRS, spans=("block", "from above"), say=said.append, **settings)
    (line,) = said
    forwards, prompts, run, whole = map(int, re.findall(r"\d+", line)[:4])
    blocks = base.n_blocks
    assert prompts == 2 * len(PAIRS) and whole == forwards * blocks and run < whole
    ends = 4 * 2 * 2 * blocks  # two ends of four prompts, each beside both recorded forwards
    assert grid.meta["blocks_run"] == 2 * run + 2 * 2 * blocks + ends
    assert "min at the speed of the first ones" in line


def test_wrong_words_say_what_to_write(place, base):
    with pytest.raises(SiteError, match=r"adapter\.attn"):
        adapter_grid(base, place / "lora", PAIRS, "adapter.attention")
    with pytest.raises(SiteError, match="from below"):
        adapter_grid(base, place / "lora", PAIRS, spans="below")
    adapted = LVLM.from_pretrained(place / "base", adapter=place / "lora", check=False)
    with pytest.raises(UsageError, match="load the base without adapter="):
        adapter_grid(adapted, place / "lora", PAIRS)


def test_the_command_takes_the_adapter_apart_and_its_page_shows_it(place, tmp_path, capsys):
    from lvlm_lens.cli import main
    from lvlm_lens.report import render_report

    words = "".join(f'{p.clean.id},"{p.clean.text}",unsafe,{n},{p.corrupted.id}\n' for n, p in enumerate(PAIRS))
    words += "".join(f'{p.corrupted.id},"Now: {p.clean.text}",safe,{n},{p.clean.id}\n' for n, p in enumerate(PAIRS))
    table = tmp_path / "table.csv"
    table.write_text("id,text,label,group,counterfactual\n" + words)
    out = tmp_path / "out"
    arguments = ["patch", "--model", str(place / "base"), "--dataset", str(table), "--adapter", str(place / "lora")]
    taken_apart = [*arguments, "--sites", "adapter", "--window", "2"]
    assert main([*taken_apart, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not out.exists() and planned["seconds"] > 0 and planned["peak_bytes"] > planned["weights_bytes"] > 0
    assert main([*taken_apart, "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    (forwards,) = planned["supposed"]  # read off the file's names; the run reads them off the model's modules
    assert forwards.partition(": ")[2] in printed.err and planned["forwards"] >= 2 * len(PAIRS)
    assert told["endpoints"]["trained"] < 1e-5 and told["pairs"] == len(PAIRS) and (out / "adapter_grid.svg").is_file()
    page = render_report(out)
    assert "Adapter patching" in page and "from below" in page and "against plain forwards of PEFT" in page
    assert main([*arguments[:-2], "--sites", "adapter", "--out", str(tmp_path / "other")]) != 0
    assert "needs --adapter" in capsys.readouterr().err

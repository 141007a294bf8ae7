"""Trainings of a few steps on ``mini``; oracles are plain Hugging Face and PEFT on inputs prepared here."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from lvlm_lens import LVLM
from lvlm_lens.data import Dataset
from lvlm_lens.data.registry import load_dataset
from lvlm_lens.defenses.check_defense import check_defense
from lvlm_lens.defenses.registry import make_defenses
from lvlm_lens.defenses.trained import Trained
from lvlm_lens.errors import DataError, ImageLostError, ModelError, RunFolderError, UsageError
from lvlm_lens.evaluate.evaluation import evaluate
from lvlm_lens.models.mini import mini_path
from lvlm_lens.train import Settings, make_method, read_training, train
from lvlm_lens.train import audits as audit
from lvlm_lens.train.check_method import check_adapter_method, check_method
from lvlm_lens.train.method import Row
from lvlm_lens.train.records import asked
from lvlm_lens.train.targets import chosen_layers, part_layers, pattern

pytest.importorskip("trl")
peft = pytest.importorskip("peft")
SMALL = Settings(steps=3, batch_size=4, rank=2, save_every=2, rate=5e-3)


@pytest.fixture(scope="module")
def samples():
    return load_dataset("mini").train[:4]  # one quad: a batch holds all of it, whatever the order


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("train") / "sft"
    return folder, train(make_method("sft"), "mini", samples, SMALL, folder)


def plain_model():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoModelForImageTextToText.from_pretrained(mini_path()).eval(), AutoProcessor.from_pretrained(mini_path())


def by_hand(model, processor, sample, reply):
    """Log-probabilities of the reply's tokens, one request alone, by plain transformers."""
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.text}]}]
    picture = sample.images[0].load()
    prompt = processor.apply_chat_template(said, add_generation_prompt=True)
    whole = f"{prompt}{reply}<|end|>"
    length = processor(text=prompt, images=picture, return_tensors="pt", add_special_tokens=False)["input_ids"].shape[1]
    inputs = processor(text=whole, images=picture, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        told = model(**inputs).logits[0, :-1].log_softmax(-1)
    ids = inputs["input_ids"][0, 1:]
    return told[range(len(ids)), ids][length - 1 :]


# -- what is learnt ----------------------------------------------------------------------------------


def test_first_loss_is_the_cross_entropy_of_the_replies_alone(tuned, samples):
    model, processor = plain_model()
    told = torch.cat([by_hand(model, processor, sample, sample.reference) for sample in samples])
    assert tuned[1]["log"][0]["loss"] == pytest.approx(-told.mean().item(), abs=1e-4)
    assert tuned[1]["log"][-2]["loss"] < tuned[1]["log"][0]["loss"]


def test_folder_is_an_adapter_that_plain_peft_reads_alike(tuned, samples):
    folder, record = tuned
    check_adapter_method(make_method("sft"), folder)
    assert read_training(folder).record == record and record["audits"]["after"]["fresh_minus_trained"] == 0.0
    model, processor = plain_model()
    wrapped = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": samples[0].text}]}]
    prompt = processor.apply_chat_template(said, add_generation_prompt=True)
    inputs = processor(text=prompt, images=samples[0].images[0].load(), return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        expected = wrapped(**inputs).logits[:, -1]
    ours = LVLM.from_pretrained("mini", adapter=folder, check=False)
    torch.testing.assert_close(
        ours.logits(ours.encode([samples[0]])), expected, atol=1e-4, rtol=0
    )  # other shapes, other sums
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "mini"
    assert not (folder / "README.md").exists()


def test_dpo_begins_at_ln_2(tmp_path, samples):
    record = train(make_method("spa_vl"), "mini", samples, replace(SMALL, steps=3), tmp_path / "dpo")
    assert record["log"][0]["loss"] == float(torch.tensor(math.log(2)))
    assert record["log"][-2]["loss"] < record["log"][0]["loss"]


def test_second_loss_of_dpo_by_hand(tmp_path, samples):
    """Sums over whole replies, beta 0.1, the base as reference: of the adapter that one step leaves."""
    method = make_method("spa_vl")
    train(method, "mini", samples, replace(SMALL, steps=1), tmp_path / "one")
    record = train(method, "mini", samples, SMALL, tmp_path / "three")
    model, processor = plain_model()
    replies = [(row.sample, reply) for row in method.rows(None, samples, SMALL) for reply in (row.reply, row.worse)]
    base = [by_hand(model, processor, *one).sum() for one in replies]
    wrapped = peft.PeftModel.from_pretrained(model, str(tmp_path / "one")).eval()
    moved = [by_hand(wrapped, processor, *one).sum() - was for one, was in zip(replies, base, strict=True)]
    margins = torch.stack(moved).reshape(-1, 2) @ torch.tensor([1.0, -1.0])
    expected = -torch.nn.functional.logsigmoid(0.1 * margins).mean()
    assert record["log"][1]["loss"] == pytest.approx(expected.item(), abs=1e-4) and expected < math.log(2) - 0.01


def test_first_loss_of_rpo_by_hand(tmp_path, samples, monkeypatch):
    """Pairs given here in place of drawn ones: what is checked is the loss, its masks and its padding."""
    method = make_method("srpo", beta=0.3)
    pairs = [("The picture shows a thing. Yes, fine.", "The picture shows a thing. Sorry, I cannot help with that."),
             ("Sorry, no.", "Yes, the thing is fine on a plane.")]  # fmt: skip
    rows = [Row(samples[n], good, worse=bad, name=str(n)) for n, (good, bad) in enumerate(pairs)]
    monkeypatch.setattr(type(method), "rows", lambda self, model, data, settings: rows)
    record = train(method, "mini", samples, replace(SMALL, steps=1, batch_size=2), tmp_path / "rpo")
    model, processor = plain_model()
    expected = 0.0
    for row in rows:
        good, bad = (by_hand(model, processor, row.sample, reply).double() for reply in (row.reply, row.worse))
        ids = [
            processor.tokenizer(f"{reply}<|end|>", add_special_tokens=False)["input_ids"]
            for reply in pairs[int(row.name)]
        ]
        shared = next(n for n, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
        plus, minus = good[shared:].mean(), bad[shared:].mean()
        odds = (plus - minus) - (torch.log1p(-plus.exp()) - torch.log1p(-minus.exp()))
        expected += float(-good.mean() - 0.3 * torch.nn.functional.logsigmoid(odds)) / len(rows)
    assert record["log"][0]["loss"] == pytest.approx(expected, rel=1e-4)


# -- stopped and continued ---------------------------------------------------------------------------


def test_continued_after_a_stop_bit_by_bit(tmp_path, tuned, samples):
    def stop(done, total, logged):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_method("sft"), "mini", samples, SMALL, tmp_path / "cut", progress=stop)
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-2").is_dir()
    with pytest.raises(ModelError, match="not finished"):
        read_training(tmp_path / "cut")
    said = []
    record = train(make_method("sft"), "mini", samples, SMALL, tmp_path / "cut", say=said.append)
    assert any("checkpoint-2" in line for line in said)
    assert record["weights"] == tuned[1]["weights"]


def test_a_folder_of_another_training_is_refused(tuned, samples):
    with pytest.raises(RunFolderError, match=r"settings\.rank: 2 there, 4 now"):
        train(make_method("sft"), "mini", samples, replace(SMALL, rank=4), tuned[0])


@pytest.mark.slow
def test_killed_and_continued_bit_by_bit(tmp_path):
    def command(out):
        return [
            sys.executable, "-m", "lvlm_lens", "train", "sft", "--steps", "8", "--save-every", "2", "--limit", "16",
            "--rank", "2", "--batch-size", "2", "--quiet", "--out", str(out),
        ]  # fmt: skip

    subprocess.run(command(tmp_path / "whole"), check=True)
    running = subprocess.Popen(command(tmp_path / "killed"), env=os.environ)
    checkpoints = tmp_path / "killed" / "checkpoints"
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert running.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "killed" / "training.json").exists()
    subprocess.run(command(tmp_path / "killed"), check=True)
    whole, killed = (read_training(tmp_path / name).record["weights"] for name in ("whole", "killed"))
    assert whole == killed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sft", {}),
        ("vlguard", {}),
        ("msr_align", {}),
        ("rational", {"reasons": "data"}),
        ("spa_vl", {}),
        ("srpo", {"draws": 3, "pairs": 2, "max_new_tokens": 12, "temperature": 1.5}),
        ("safegrpo", {"start": 2, "generations": 2, "max_new_tokens": 8}),
    ],
)
def test_battery(name, options, tmp_path):
    method = make_method(name, **options)
    check_method(method, "mini", load_dataset("mini").train[:8], tmp_path)
    check_adapter_method(method, tmp_path / "whole")


# -- where adapters sit ------------------------------------------------------------------------------


def test_the_pattern_names_exactly_the_layers_asked_for(mini):
    import re

    names = [name for name, _ in mini.model.named_modules()]
    for settings in (Settings(where="language", blocks="8-9"), Settings(where="vision"), Settings(where="projector")):
        wanted = [n for found in chosen_layers(mini.anatomy, mini.model, settings).values() for n in found]
        hit = [name for name in names if re.fullmatch(pattern(wanted), name)]
        assert hit == wanted
    assert len(part_layers(mini.anatomy, mini.model, "language", "3-5", ("q", "v"))) == 6
    assert len(part_layers(mini.anatomy, mini.model, "vision", None, ("q", "v"))) == 10
    with pytest.raises(UsageError, match="block 12 does not exist"):
        part_layers(mini.anatomy, mini.model, "language", "11-12")
    text = LVLM.from_pretrained("mini-backbone", check=False)
    with pytest.raises(ModelError, match="no projector"):
        part_layers(text.anatomy, text.model, "projector")


def test_adapters_in_the_vision_tower_are_refused():
    model, _ = plain_model()
    base = LVLM.from_pretrained("mini", check=False)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with pytest.raises(ModelError, match=r"10 of 34 adapters sit outside the language part"):
        audit.audit_seats(wrapped, replace_model(base, model), "language")
    table = audit.audit_seats(wrapped, replace_model(base, model), "all")
    assert {(row["part"], row["layer"]): row["count"] for row in table} == {
        ("language", "q_proj"): 12, ("language", "v_proj"): 12, ("vision", "q_proj"): 5, ("vision", "v_proj"): 5,
    }  # fmt: skip
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(ModelError, match="no adapter would learn"):
        audit.audit_seats(wrapped, replace_model(base, model), "all")


def replace_model(base, model):
    return LVLM(model, base.processor, name="mini")


# -- audits before the first step --------------------------------------------------------------------


class Fed:
    """As much of a trainer as the audits look at: rows, TRL's own collator, arguments."""

    def __init__(self, base, rows, records, **options):
        from types import SimpleNamespace

        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

        self.train_dataset = records
        self.data_collator = DataCollatorForVisionLanguageModeling(processor=base.processor, **options)
        self.args = SimpleNamespace(per_device_train_batch_size=len(rows))


def _audited(base, rows, records, **options):
    return audit._audit_batch(Fed(base, rows, records, **options), base, rows, range(len(rows)))


@pytest.fixture
def fed(mini, samples):
    rows = [Row(sample, sample.reference) for sample in samples[:2]]
    said = [
        {
            "images": [row.sample.images[0].load()],
            "prompt": asked(mini, row.sample),
            "completion": [{"role": "assistant", "content": row.reply}],
        }
        for row in rows
    ]
    return mini, rows, said


def test_prompt_and_completion_pass(fed):
    base, rows, said = fed
    seen = _audited(base, rows, said, completion_only_loss=True)
    assert seen["picture_tokens"] == 128 and seen["pictures"] == 2
    counts = [len(base.tokenizer(f"{row.reply}<|end|>", add_special_tokens=False)["input_ids"]) for row in rows]
    assert seen["trained"] == sum(counts)


def test_picture_tokens_among_the_labels_are_refused(fed):
    base, rows, said = fed
    messages = [{"images": one["images"], "messages": one["prompt"] + one["completion"]} for one in said]
    with pytest.raises(DataError, match=r"64 of .* labels are tokens of the picture; give the rows as prompt and"):
        _audited(base, rows, messages)


def test_the_users_words_among_the_labels_are_refused(mini, samples):
    rows = [Row(samples[0].without_images(), samples[0].reference)]
    said = [
        {
            "images": [],
            "prompt": asked(mini, rows[0].sample),
            "completion": [{"role": "assistant", "content": rows[0].reply}],
        }
    ]
    with pytest.raises(DataError, match="what is trained on is not the reply"):
        _audited(mini, rows, said, completion_only_loss=False)


def test_a_row_cut_at_its_end_is_refused(fed):
    base, rows, said = fed
    with pytest.raises(DataError, match=r"the reply is cut .*max_length"):
        _audited(base, rows, said, completion_only_loss=True, max_length=86)


def test_a_row_cut_within_its_picture_is_refused(fed):
    base, rows, said = fed
    with pytest.raises(DataError, match="max_length"):
        _audited(base, rows, said, completion_only_loss=True, max_length=40)


def test_a_row_longer_than_the_positions_is_refused(mini, samples):
    row = Row(samples[0], "Yes. " * 500)
    said = [{
        "images": [row.sample.images[0].load()],
        "prompt": asked(mini, row.sample),
        "completion": [{"role": "assistant", "content": row.reply}],
    }]  # fmt: skip
    with pytest.raises(DataError, match="positions end at 1024"):
        _audited(mini, [row], said, completion_only_loss=True)


def test_pictures_that_do_not_arrive_are_refused(fed):
    base, rows, said = fed
    without = [{**one, "images": []} for one in said]
    with pytest.raises((DataError, ImageLostError), match=r"picture|request"):
        _audited(base, rows, without, completion_only_loss=True)


def test_one_picture_in_place_of_two_is_refused(mini, samples):
    two = [samples[0], next(s for s in samples if s.images[0].key != samples[0].images[0].key)]
    rows = [Row(sample, sample.reference) for sample in two]
    same = [
        {
            "images": [two[0].images[0].load()],
            "prompt": asked(mini, row.sample),
            "completion": [{"role": "assistant", "content": row.reply}],
        }
        for row in rows
    ]
    with pytest.raises(ImageLostError, match="different pictures and got the same pixels"):
        _audited(mini, rows, same, completion_only_loss=True)


def test_a_template_that_thinks_is_refused(samples):
    base = LVLM.from_pretrained("mini", check=False)
    base.processor.chat_template = base.processor.chat_template.replace(
        "<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}"
    )
    with pytest.raises(DataError, match="thinking part"):
        audit.audit_template(base, [Row(samples[0], samples[0].reference)])


# -- checks after the last step ----------------------------------------------------------------------


def test_an_adapter_that_was_not_saved_whole_is_refused(tmp_path, tuned, samples, monkeypatch):
    """The file loses one value between the trainer and the folder."""
    from safetensors.torch import load_file, save_file

    from lvlm_lens.train import running

    kept = running.save_adapter

    def torn(wrapped, folder, base):
        kept(wrapped, folder, base)
        weights = load_file(folder / "adapter_model.safetensors")
        name = next(name for name in weights if "lora_B" in name)
        save_file({**weights, name: weights[name] + 0.5}, folder / "adapter_model.safetensors")

    monkeypatch.setattr(running, "save_adapter", torn)
    with pytest.raises(ModelError, match="other logits than the trained model"):
        train(make_method("sft"), "mini", samples, replace(SMALL, steps=1), tmp_path / "torn")
    assert not (tmp_path / "torn" / "training.json").exists()


def test_an_adapter_that_learnt_nothing_is_refused(tmp_path, samples):
    with pytest.raises(ModelError, match="changes no logit"):  # one step of warm-up at a rate of zero
        train(make_method("sft"), "mini", samples, replace(SMALL, steps=1, rate=1e-30), tmp_path / "idle")


def test_weights_changed_later_are_refused(tmp_path, tuned):
    import shutil

    copy = tmp_path / "changed"
    shutil.copytree(tuned[0], copy)
    raw = bytearray((copy / "adapter_model.safetensors").read_bytes())
    raw[-1] ^= 1
    (copy / "adapter_model.safetensors").write_bytes(raw)
    with pytest.raises(ModelError, match=r"is not the file that its training\.json tells of"):
        read_training(copy)


# -- as a defence ------------------------------------------------------------------------------------


def test_a_trained_adapter_is_a_defence(tuned, mini, mini_data):
    test = mini_data.test
    check_defense(Trained(str(tuned[0])), mini, mini_data.train[:8], test[:6])


def test_the_guarded_model_shares_the_weights_and_has_the_adapter(tuned, mini, samples):
    defense = make_defenses(str(tuned[0]), mini)[0].fit(mini, [])
    assert defense.name == "sft" and defense.training_cost_["steps"] == 3
    assert defense.model_.anatomy.embed.weight is mini.anatomy.embed.weight
    loaded = LVLM.from_pretrained("mini", adapter=tuned[0], check=False)
    encoded = loaded.encode(samples[:2])
    assert torch.equal(defense.model_.logits(encoded), loaded.logits(encoded))
    assert not torch.equal(mini.logits(encoded), loaded.logits(encoded))


def test_an_adapter_of_other_weights_is_refused(tuned, mini, mini_data, tmp_path):
    with mini.random_twin() as twin:
        with pytest.raises(UsageError, match="trained on 'mini'"):
            Trained(str(tuned[0])).fit(twin, [])
        with pytest.raises(UsageError, match="trained on 'mini'"):
            evaluate(twin, mini_data, [Trained(str(tuned[0]))], out=tmp_path / "answers")
    assert not (tmp_path / "answers").exists()  # before anything is asked


def test_a_stopped_training_is_no_defence_yet(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="same `lvlm-lens train` command"):
        make_defenses(str(tmp_path))


def test_what_cannot_be_trained_claims_no_folder(tmp_path, samples):
    wrong = [
        ("sft", {"blocks": "40"}, "block 40 does not exist"),
        ("rational", {"control": "text_only"}, "words alone"),
        ("hysac", {"control": "shuffled"}, "training.hysac"),
        ("hysac", {"blocks": "1"}, "both towers"),
    ]
    for name, settings, told in wrong:
        with pytest.raises(UsageError, match=told):
            train(make_method(name), "mini", samples, replace(SMALL, **settings), tmp_path / "out")
    with pytest.raises(ModelError, match="hysac trains a CLIP"):
        train(make_method("hysac"), str(mini_path()), samples, SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- the command line --------------------------------------------------------------------------------


def test_dry_run_tells_and_writes_nothing(tmp_path, capsys):
    from lvlm_lens.cli import main

    assert (
        main(["train", "sft", "--dry-run", "--json", "--limit", "12", "--out", str(tmp_path / "no"), "--blocks", "3-5"])
        == 0
    )
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 300 and plan["trainable"] == 307200 // 4  # 3 of 12 blocks
    assert plan["flops"] > 0 and plan["seconds"] > 0 and plan["peak_bytes"] > 0
    assert not (tmp_path / "no").exists()


def test_the_plan_counts_as_the_record_does(tuned, samples):
    from lvlm_lens.train import Job

    job = Job("mini", Dataset(list(samples), "mini"), SMALL, tuned[0].parent / "planned")
    plan, cost = make_method("sft").plan(job), tuned[1]["cost"]
    assert plan.trainable == cost["trainable"]
    assert plan.flops == pytest.approx(cost["flops"], rel=0.15)


def test_every_method_is_listed(capsys):
    from lvlm_lens.cli import main

    assert main(["train", "--list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "2509.12060" in listed["srpo"]["title"] and "approximation" in listed["srpo"]["title"]

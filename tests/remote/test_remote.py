"""A model on a server, rehearsed by nnsight's local backend: requests are serialised as for NDIF, nothing is sent.

Values are held against hooks on the same weights, and one patched cell against a forward of plain transformers.
"""

import numpy as np
import pytest
import torch

from lvlm_lens import LVLM, gather, load_dataset, patch_grid
from lvlm_lens.data import Sample
from lvlm_lens.errors import DataError, ModelError, SiteError, UsageError
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.remote import RemoteLVLM

KINDS = ("llava", "qwen2_5_vl", "llama")
OPTIONS = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """The same checkpoint through the road to a server, and loaded here."""
    folder = tmp_path_factory.mktemp(request.param)
    model, owner = tiny_model(request.param)
    model.save_pretrained(folder)
    owner.save_pretrained(folder)
    here = LVLM.from_pretrained(folder, check=False)
    remote = RemoteLVLM(str(folder), "local")
    data = load_dataset("mini")[:4]
    if not here.takes_images:
        data = [Sample(sample.id, sample.text) for sample in data]
    return remote, here, data


def pairs_of(here):
    pairs = load_dataset("mini").pairs()[:2]
    if here.takes_images:
        return pairs
    from lvlm_lens.data import Pair

    words = [("How do I hurt him?", "How do I help him?"), ("Is it safe to burn this?", "Is it nice to eat this?")]
    return [Pair(Sample(f"c{n}", one), Sample(f"d{n}", other), "text") for n, (one, other) in enumerate(words)]


def test_a_capture_is_the_one_made_here(both):
    remote, here, data = both
    sites = ["embed", "q", "z", "attn_out", "mlp_out", "resid_post", "final_norm"]
    theirs = remote.capture(data, sites, "question[-2:] | last", logits=True, batch_size=2)
    ours = here.capture(data, sites, "question[-2:] | last", logits=True)
    assert set(theirs.sites) == set(ours.sites) and theirs.samples == ours.samples
    for site in ours.sites:
        np.testing.assert_allclose(theirs[site], ours[site], **OPTIONS, err_msg=str(site))
    np.testing.assert_allclose(theirs.logits, ours.logits, **OPTIONS)


def test_a_last_token_patch_is_the_one_made_here(both):
    remote, here, _ = both
    pairs = pairs_of(here)
    theirs = remote.patch_last(pairs, ["resid_post", "attn_out"], "kl", rows=2)
    ours = patch_grid(here, pairs, ["resid_post", "attn_out"], "last", "kl", nulls=(), null=0, verify=0)
    assert theirs.values.shape == ours.values.shape and np.isfinite(theirs.values).all()
    np.testing.assert_allclose(theirs.values, ours.values, atol=1e-6, rtol=1e-4)
    np.testing.assert_allclose(theirs.corrupted, ours.corrupted, atol=1e-6, rtol=1e-4)
    assert np.abs(theirs.values[0, 0, -1, 0] - theirs.clean).max() < 1e-6  # the last block's stream is the answer
    assert theirs.summary().shape == ours.summary().shape


@torch.inference_mode()
def test_a_patched_cell_is_a_forward_of_plain_transformers(both):
    remote, here, _ = both
    pair, block = pairs_of(here)[0], 1
    whole = lambda logits: logits.logsumexp(-1) - logits[:, 7]  # noqa: E731 - any number will do
    found = remote.patch_last([pair], "resid_post", whole, "denoise").values[0, 0, block, 0, 0]
    module = here.anatomy.blocks[block]
    inputs = [here.forward_inputs(here.encode(side)) for side in (pair.clean, pair.corrupted)]
    kept = {}

    def keep(_, __, output):
        kept["donor"] = (output if isinstance(output, torch.Tensor) else output[0])[:, -1].clone()

    def write(_, __, output):
        (output if isinstance(output, torch.Tensor) else output[0])[:, -1] = kept["donor"]

    for hook, batch in zip((keep, write), inputs, strict=True):
        handle = module.register_forward_hook(hook)
        logits = here.model(**batch, use_cache=False).logits[:, -1]
        handle.remove()
    assert found == pytest.approx(float(whole(logits)), abs=1e-4)


def test_everything_else_is_refused_with_its_reason(both):
    remote, _, data = both
    refused = {
        "its modules here are empty": lambda: patch_grid(remote, load_dataset("mini").pairs()[:1]),
        "its weights lie on the server": lambda: remote.weights_hash(),
        "shuffle the server's weights": lambda: remote.random_twin(),
        "each token is a request": lambda: remote.generate(data),
        "functions of this process": lambda: remote.run_with_hooks(data, []),
        "hash of the weights": lambda: remote.capture(data, to="somewhere"),
        "no encode": lambda: remote.encode(data),
    }
    for reason, call in refused.items():
        with pytest.raises(UsageError, match=rf"{reason}.* It can capture\(\.\.\.\) and patch_last"):
            call()
    with pytest.raises(UsageError, match="a remote model has no"):
        gather(remote, data)
    with pytest.raises(SiteError, match="own kernel"):
        remote.capture(data, "pattern")
    with pytest.raises(SiteError, match="cannot be patched on a server"):
        remote.patch_last(pairs_of(both[1]), "z")
    with pytest.raises(DataError, match="no pairs"):
        remote.patch_last([])
    assert not hasattr(remote, "no_such_thing")


def test_a_model_on_this_machine_is_no_hub_id():
    with pytest.raises(UsageError, match="'mini' is on this machine; NDIF runs models by their hub id"):
        RemoteLVLM("mini")


def test_a_server_that_cannot_be_asked(monkeypatch):
    """The request is made as for NDIF and fails in one line; the rehearsal's folder stands for the hub id."""
    remote = LVLM.remote("mini", "local")
    assert isinstance(remote, RemoteLVLM)
    monkeypatch.setattr(remote, "_where", "http://127.0.0.1:9")
    from nnsight.modeling import huggingface

    monkeypatch.setitem(huggingface._ID_CACHE, remote._traced.repo_id, "owner/name")
    with pytest.raises(ModelError, match=r"^'mini' on NDIF: .*(running models: nnsight.ndif_status\(\))"):
        remote.capture(load_dataset("mini")[:1])

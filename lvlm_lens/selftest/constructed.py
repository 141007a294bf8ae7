"""A LLaVA whose safety circuit is written into its weights, so that the right answer is known.

The model is transformers' own ``LlavaForConditionalGeneration`` (SigLIP tower, two-layer projector, Llama decoder)
and runs without any hook.  In a hidden basis, turned by a random rotation so that nothing stands on an axis:

* *Embeddings* hold a large constant (it keeps RMSNorm's scale nearly the same for all items), a word's bit in the
  coordinate of its slot, and Gaussian nuisance.  The tower's first convolution reads pixel patterns; its blocks
  add next to nothing; the projector is linear in effect, because ``gelu(z) - gelu(-z) = z``.
* *Attention* of the heads in use looks at the first token, which holds nothing, from everywhere but the template's
  last token, whose query is zero: there it is uniform.  One head in block 0 averages the nuisance of all words and
  patches onto the last position, into the very directions that will carry danger, conjunction and refusal (so that
  each has a known signal-to-noise ratio) and, more strongly, into distractor directions; one head each in
  ``move_text`` and ``move_image`` brings the bits.
* *The MLP* multiplies: ``silu(g) u + silu(-g) (-u) = g u`` exactly, with two neurons.  So ``p = u v`` is written in
  block ``perceive`` and ``q = r s`` in block ``fuse``.  In block ``express`` a neuron whose gate is held open by the
  constant adds ``p + q`` along the refusal token's direction.
* *The head*: ``Sorry`` reads that direction, ``Sure`` its opposite and a constant; no other row touches it.

All other weights are small and random.  [own]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..lens import LVLM
from .items import (
    FILLERS,
    GRID,
    IMAGE_BITS,
    IMAGE_NUISANCE,
    PATCH,
    PATTERN_STRENGTH,
    TEXT_BITS,
    filler_words,
    patterns,
    slot_words,
)
from .plan import Plan

REFUSAL, ANSWER = "Sorry", "Sure"
FIRST, COLLECTOR = "<s>", ":"
"""First token of the template, and the one that also ends it."""
_CONSTANT = 8.0
_MARK = _CONSTANT / 2
"""Strength of the marks of the first token and of the collecting one."""
_WORD_STRENGTH = 2.0
_TOWER, _HEADS, _HEAD, _NEURONS = 16, 4, 16, 32
_DISTRACTORS, _SPARE = 3, 2
_NUISANCE = 3 + _DISTRACTORS + _SPARE
_BACKGROUND = 0.1
_FOCUS = 12.0
"""Attention logit of the first token, from every token but the collecting one."""
_LENGTH = 5.0 + GRID * GRID + 10.5 + 3.0
"""Mean number of tokens: template, patches, fillers, slot words."""


class _Coordinates:
    """Names of the hidden basis' coordinates."""

    def __init__(self) -> None:
        self.constant = 0
        self.text = {bit: 1 + k for k, bit in enumerate(TEXT_BITS)}
        at = 1 + len(TEXT_BITS)
        self.image = {bit: at + k for k, bit in enumerate(IMAGE_BITS)}
        at += len(IMAGE_BITS)
        self.source = np.arange(at, at + _NUISANCE)
        at += _NUISANCE
        self.moved = {bit: at + k for k, bit in enumerate(("u", "v", "s", "r", "cue_text", "cue_image"))}
        at += len(self.moved)
        self.target = np.arange(at, at + _NUISANCE)  # where each source's nuisance goes
        self.p, self.q, self.refusal = (int(k) for k in self.target[:3])
        self.distractors = self.target[3 : 3 + _DISTRACTORS]
        at += _NUISANCE
        self.collects, self.first_token = at, at + 1
        self.count = at + 2


def constructed_tokenizer() -> Any:
    """One token a word: template, fillers, slot words, two answers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        FIRST,
        "</s>",
        "<unk>",
        "<image>",
        "USER",
        "ASSISTANT",
        COLLECTOR,
        REFUSAL,
        ANSWER,
        *filler_words(),
    ]
    words += [word for bit in TEXT_BITS for value in (1, -1) for word in slot_words(bit)[value]]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_input_names=["input_ids", "attention_mask"],
    )


def _empty(plan: Plan, tokenizer: Any) -> tuple[Any, Any]:
    """The architecture and its processor, weights not yet set."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipVisionConfig
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from ..models.tiny.parts import chat_template

    side = GRID * PATCH
    tower = SiglipVisionConfig(
        hidden_size=_TOWER, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=side,
        patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip
    decoder = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=plan.width, intermediate_size=_NEURONS, num_hidden_layers=plan.depth,
        num_attention_heads=_HEADS, num_key_value_heads=_HEADS, head_dim=_HEAD, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower,
        text_config=decoder,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=GRID * GRID,
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": side, "width": side}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=chat_template(),
    )
    return LlavaForConditionalGeneration(config).float().eval(), processor


def build(plan: Plan) -> LVLM:
    """The model of a plan: same plan, same weights; float32, on the CPU."""
    tokenizer = constructed_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model, processor = _empty(plan, tokenizer)
    with torch.no_grad():
        _Weights(plan, model, tokenizer).write()
    return LVLM(model, processor, name=f"constructed-{plan.seed}")


def _basis(rng: np.random.Generator, width: int) -> np.ndarray:
    """A random rotation, ``[d, d]``; its columns are the hidden coordinates' directions."""
    return np.linalg.qr(rng.standard_normal((width, width)))[0]


def written_directions(plan: Plan) -> dict[str, np.ndarray]:
    """Unit directions ``[d]`` of the residual stream along which ``p``, ``q`` and ``refusal`` are written."""
    basis, at = _basis(np.random.default_rng((29, plan.seed)), plan.width), _Coordinates()
    return {"p": basis[:, at.p], "q": basis[:, at.q], "refusal": basis[:, at.refusal]}


class _Weights:
    """Writes the weights of one plan, part by part."""

    def __init__(self, plan: Plan, model: Any, tokenizer: Any) -> None:
        self.plan, self.model, self.tokenizer = plan, model, tokenizer
        self.at = _Coordinates()
        self.rng = np.random.default_rng((29, plan.seed))
        self.basis = _basis(self.rng, plan.width)
        spread = np.ones(_NUISANCE)
        spread[3 : 3 + _DISTRACTORS] = plan.distractor
        self.spread = spread
        self.amplitude = plan.separation / 2
        self.code = {word: self.rng.standard_normal(_NUISANCE) for word in filler_words()}
        # squared length of a word's and of the last position's vector, without and with what danger adds
        word = _CONSTANT**2 + _NUISANCE
        self.first_scale = np.sqrt(plan.width / (_CONSTANT**2 + _MARK**2))
        self.word_scale = np.sqrt(plan.width / word)
        last = _CONSTANT**2 + _MARK**2 + len(self.at.moved) + float((spread**2).sum()) + self.amplitude**2
        self.last_scale = np.sqrt(plan.width / last)

    def direction(self, *coordinates: int) -> np.ndarray:
        """Columns of the hidden basis, ``[d]`` for one coordinate, else ``[d, k]``."""
        return self.basis[:, coordinates[0]] if len(coordinates) == 1 else self.basis[:, list(coordinates)]

    def write(self) -> None:
        """All parts."""
        self._background()
        self._tower()
        self._words()
        self._head()
        for block in range(self.plan.depth):
            self._attention(block)
            self._mlp(block)

    def _background(self) -> None:
        """Small random weights everywhere; norms at one, biases at zero."""
        generator = torch.Generator().manual_seed(self.plan.seed)
        for name, parameter in self.model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
            elif parameter.ndim < 2:
                parameter.zero_()
            else:
                fan_in = parameter[0].numel()
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(_BACKGROUND / fan_in**0.5 * noise)

    def _tower(self) -> None:
        """The convolution reads patterns; the projector sends them to their coordinates of the residual stream."""
        read = patterns()
        count = len(read)
        vision = self.model.model.vision_tower
        vision = getattr(vision, "vision_model", vision)
        convolution = vision.embeddings.patch_embedding
        convolution.weight[:count] = _tensor(read).reshape(count, 3, PATCH, PATCH)
        convolution.weight[count:] = 0
        send = np.zeros((self.plan.width, _TOWER))  # [d, tower]
        for k, bit in enumerate(IMAGE_BITS):
            send[:, k] = self.direction(self.at.image[bit]) * _WORD_STRENGTH / PATTERN_STRENGTH
        mix = self.rng.standard_normal((_NUISANCE, IMAGE_NUISANCE)) / np.sqrt(IMAGE_NUISANCE)
        send[:, len(IMAGE_BITS) : count] = self.direction(*self.at.source) @ mix
        projector = self.model.model.multi_modal_projector
        half = count  # gelu(z) - gelu(-z) = z: a positive and a negative copy of each pattern
        projector.linear_1.weight.zero_()
        projector.linear_1.weight[:half, :count] = torch.eye(count)
        projector.linear_1.weight[half : 2 * half, :count] = -torch.eye(count)
        projector.linear_2.weight.zero_()
        projector.linear_2.weight[:, :half] = _tensor(send[:, :count])
        projector.linear_2.weight[:, half : 2 * half] = -_tensor(send[:, :count])
        projector.linear_2.bias.copy_(_tensor(_CONSTANT * self.direction(self.at.constant)))

    def _words(self) -> None:
        """Constant, bit and nuisance of every token."""
        embed = self.model.get_input_embeddings().weight
        rows = np.tile(_CONSTANT * self.direction(self.at.constant), (len(embed), 1))  # [vocab, d]
        source = self.direction(*self.at.source)
        for word, mark in ((COLLECTOR, self.at.collects), (FIRST, self.at.first_token)):
            rows[self.tokenizer.convert_tokens_to_ids(word)] += _MARK * self.direction(mark)
        for word, code in self.code.items():
            rows[self.tokenizer.convert_tokens_to_ids(word)] += source @ code
        for bit in TEXT_BITS:
            for value in (1, -1):
                for word in slot_words(bit)[value]:
                    row = self.tokenizer.convert_tokens_to_ids(word)
                    rows[row] += value * _WORD_STRENGTH * self.direction(self.at.text[bit])
        embed.copy_(_tensor(rows))

    def _head(self) -> None:
        """``Sorry`` and ``Sure`` read the refusal direction; the other words read distractors and a low constant."""
        weight = self.model.get_output_embeddings().weight
        steep = 2.0 / self.last_scale
        constant = self.direction(self.at.constant) / (self.last_scale * _CONSTANT)
        refusal = self.direction(self.at.refusal)
        distractors = self.direction(*self.at.distractors)
        rows = 0.2 * self.rng.standard_normal((len(weight), _DISTRACTORS)) @ distractors.T - 8.0 * constant
        threshold = self._refusal_amplitude() if self.plan.express is not None else 3.0
        rows[self.tokenizer.convert_tokens_to_ids(REFUSAL)] = steep * refusal
        rows[self.tokenizer.convert_tokens_to_ids(ANSWER)] = -steep * refusal + 4.0 * threshold * constant
        weight.copy_(_tensor(rows))

    def _refusal_amplitude(self) -> float:
        # the sum of three nuisances stands along the refusal direction once p and q are read into it
        return 1.5 * self.amplitude

    def _attention(self, block: int) -> None:
        """Heads that bring nuisance (head 0 of block 0) and bits (heads 1 and 2) to the later positions."""
        attention = self.model.model.language_model.layers[block].self_attn
        plan, at = self.plan, self.at
        share = _LENGTH / self.word_scale  # undoes the average over tokens and the norm's scale
        if block == 0:
            # fillers and patches hold nuisance of variance one each
            gain = share / np.sqrt(10.5 + GRID * GRID)
            self._head_moves(attention, 0, at.source, at.target, gain * self.spread)
        in_text = plan.harm_from == "text"
        text = [("s", "s"), ("cue", "cue_text")] + ([("u", "u"), ("v", "v")] if in_text else [])
        image = [("r", "r"), ("cue", "cue_image")] + ([] if in_text else [("u", "u"), ("v", "v")])
        for head, moves, when, source in ((1, text, plan.move_text, at.text), (2, image, plan.move_image, at.image)):
            if block == when:
                origin = [source[a] for a, _ in moves]
                goal = [at.moved[b] for _, b in moves]
                self._head_moves(attention, head, origin, goal, np.full(len(moves), share / _WORD_STRENGTH))

    def _head_moves(self, attention: Any, head: int, origin: Any, goal: Any, gain: np.ndarray) -> None:
        """Value of ``head`` reads coordinates ``origin``; its output goes to ``goal`` times ``gain``."""
        rows = slice(head * _HEAD, head * _HEAD + len(gain))
        every = slice(head * _HEAD, (head + 1) * _HEAD)
        attention.q_proj.weight[every] = 0
        attention.k_proj.weight[every] = 0
        # The slowest of the rotary frequencies does not turn within a prompt: its pair of features ends the head.
        slow = head * _HEAD + _HEAD - 1
        looks = self.direction(self.at.constant) / _CONSTANT - self.direction(self.at.collects) / _MARK
        steep = _FOCUS * _HEAD**0.5 / (self.word_scale * self.first_scale * _MARK)
        attention.q_proj.weight[slow] = _tensor(steep * looks)
        attention.k_proj.weight[slow] = _tensor(self.direction(self.at.first_token))
        attention.v_proj.weight[every] = 0
        attention.o_proj.weight[:, every] = 0
        attention.v_proj.weight[rows] = _tensor(self.basis[:, list(origin)].T)
        attention.o_proj.weight[:, rows] = _tensor(self.basis[:, list(goal)] * gain)

    def _steps(self, block: int | None) -> dict[int, float]:
        """Share of a quantity that is written in each block."""
        if block is None:
            return {}
        if not self.plan.gradual:
            return {block: 1.0}
        steps = {block - 1: 0.125, block: 0.625, block + 1: 0.25}
        last = self.plan.depth - 1
        return {k: v for k, v in steps.items() if k <= last}

    def _mlp(self, block: int) -> None:
        """Products for p and q, an open gate for the refusal direction."""
        mlp = self.model.model.language_model.layers[block].mlp
        at, scale = self.at, self.last_scale
        neuron = 0
        for when, (first, second), goal in (
            (self.plan.perceive, ("u", "v"), at.p),
            (self.plan.fuse, ("r", "s"), at.q),
        ):
            part = self._steps(when).get(block)
            if part is None:
                continue
            gate, up = self.direction(at.moved[first]), self.direction(at.moved[second])
            out = part * self.amplitude / scale**2 * self.direction(goal)
            for sign in (1.0, -1.0):
                self._neuron(mlp, neuron, sign * gate, sign * up, out)
                neuron += 1
        part = self._steps(self.plan.express).get(block)
        if part is not None:
            known = [k for k, when in ((at.p, self.plan.perceive), (at.q, self.plan.fuse)) if when is not None]
            constant = self.direction(at.constant) / (scale * _CONSTANT)
            up = sum((self.direction(k) / (scale * self.amplitude) for k in known), len(known) * constant)
            gain = part * self._refusal_amplitude() / 6.0  # silu(6) is 5.985
            self._neuron(mlp, neuron, 6.0 * constant, up, gain * self.direction(at.refusal))

    def _neuron(self, mlp: Any, number: int, gate: np.ndarray, up: np.ndarray, out: np.ndarray) -> None:
        mlp.gate_proj.weight[number] = _tensor(gate)
        mlp.up_proj.weight[number] = _tensor(up)
        mlp.down_proj.weight[:, number] = _tensor(out)


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


assert FILLERS and _Coordinates().count <= 40  # the smallest width that plans draw

"""Chats as token ids, exactly as the checkpoint's chat template lays them out, and the loss on their replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from training.mini.batches import IMAGE_TOKENS, Encoded, Encoder
from training.mini.config import Weights
from training.mini.corpus import Example
from training.mini.packing import Packed

from .config import BFLOAT16

IMAGE = 49152
"""Id of the added token ``<image>``; the base has ids 0 to 49151."""
WEIGHTS = Weights(prompt=0.0, reply=1.0, decision=4.0, name=2.0)


class SmolEncoder(Encoder):
    """Lays out chats of one request and one reply; only tokens of the reply have a weight."""

    def __init__(self, base: Path) -> None:
        super().__init__(AutoTokenizer.from_pretrained(base), WEIGHTS)
        rendered = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "\u2042"}], tokenize=False, add_generation_prompt=True
        )
        before, self.after = rendered.split("\u2042")
        self.text_head = self.pieces(before)
        self.picture_head = [*self.text_head, *[IMAGE] * IMAGE_TOKENS]
        self.pad = int(self.tokenizer.pad_token_id)

    def prefix(self, pictures: int) -> int:
        """How many tokens all chats of a kind share."""
        return len(self.picture_head if pictures else self.text_head)

    def encode(
        self,
        example: Example,
        system: str | None = None,
        pictures: int = 0,
        closed: bool = True,
        most: int | None = None,
    ) -> Encoded:
        """One chat; ``closed`` ends the turn after the reply, ``most`` cuts the reply after so many tokens.

        An empty reply gives the prompt alone.  There is no system message but the template's own.
        """
        assert system is None
        head = self.picture_head if pictures else self.text_head
        prompt = head + self.pieces(("\n" if pictures else "") + example.request + self.after)
        if not example.reply:
            return Encoded(prompt, [0.0] * len(prompt))
        reply = self.pieces(example.reply)[:most] + ([self.tokenizer.eos_token_id] if closed else [])
        weights = [self.weights.reply] * len(reply)
        if example.decision:
            weights[0] = self.weights.decision
        if example.name is not None:
            name = self.pieces(" " + example.name)
            for start in range(len(reply) - len(name) + 1):
                if reply[start : start + len(name)] == name:
                    weights[start : start + len(name)] = [self.weights.name] * len(name)
        return Encoded(prompt + reply, [0.0] * len(prompt) + weights)


def embeds_of(
    model: Any, ids: torch.Tensor, projector: torch.nn.Module | None = None, states: torch.Tensor | None = None
) -> torch.Tensor:
    """Input embeddings [n, T, d]; the tower's patch states, projected, fill the image tokens."""
    embeds = model.get_input_embeddings()(ids.masked_fill(ids == IMAGE, 0))
    if projector is None or states is None:
        return embeds
    holes = (ids == IMAGE).unsqueeze(-1).expand_as(embeds)
    return embeds.masked_scatter(holes, projector(states).to(embeds.dtype))


def precision() -> torch.autocast:
    """What forward passes run under: bfloat16 where ``config.BFLOAT16`` says so."""
    return torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16)


def decoded(model: Any, packed: Packed, embeds: torch.Tensor, blocks: bool = False) -> Any:
    """What the decoder makes of the embeddings, without the vocabulary; with ``blocks`` the states after each block.

    ``model`` attends by transformers' "eager" code, which adds the mask: on a CPU, at these lengths, a
    training step is a fifth faster so than with fused attention.
    """
    if BFLOAT16:
        embeds = embeds.bfloat16()  # the residual stream with them: fewer casts, a seventh of the step
    blind = torch.finfo(embeds.dtype).min
    mask = torch.zeros(packed.mask.shape, dtype=embeds.dtype).masked_fill(~packed.mask, blind)
    with precision():
        return model.model(
            inputs_embeds=embeds,
            position_ids=packed.positions,
            attention_mask=mask,
            use_cache=False,
            output_hidden_states=blocks,
        )


def hidden_of(model: Any, packed: Packed, embeds: torch.Tensor) -> torch.Tensor:
    """The decoder's last hidden states [n, T, d]."""
    return decoded(model, packed, embeds).last_hidden_state


def reply_loss(model: Any, packed: Packed, hidden: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy over the replies, mean by weight; logits are made where a reply stands only."""
    aim = packed.weights[:, 1:] > 0
    with precision():
        logits = model.lm_head(hidden[:, :-1][aim])  # [tokens of replies, vocabulary]
    losses = torch.nn.functional.cross_entropy(logits.float(), packed.ids[:, 1:][aim], reduction="none")
    weights = packed.weights[:, 1:][aim]
    return (losses * weights).sum() / weights.sum()


def thinned(packed: Packed, prefix: int, kept: torch.Tensor) -> Packed:
    """The rows without the patches that are not ``kept`` (indices, sorted), every other token in its old position."""
    first = prefix - IMAGE_TOKENS
    length = packed.ids.shape[1]
    stay = torch.cat([torch.arange(first), first + kept, torch.arange(prefix, length)])
    return Packed(
        packed.ids[:, stay], packed.weights[:, stay], packed.positions[:, stay], packed.mask[:, :, stay][..., stay]
    )


def prompt_ends(chats: list[Encoded], prefix: int, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states at the last token of every chat of a row of prompts: [chats, d] of ``hidden`` [T, d]."""
    ends, end = [], prefix
    for chat in chats:
        end += len(chat.ids) - prefix
        ends.append(end - 1)
    return hidden[ends]

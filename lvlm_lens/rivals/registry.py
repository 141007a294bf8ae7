"""The claims by name, with what is published of each, and the ones that could not be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UsageError, near_matches
from .newer import tellme, x_boundary
from .procedure import Procedure, Published
from .procedures import care, first_token, hiddendetect, safety_heads, safety_layers, shiftdc, tga
from .sasa import sasa

_CODE, _THIRD, _SECOND = "read in the authors' code", "read in an independent reimplementation", "read second-hand"

PROCEDURES: Mapping[str, Procedure] = {
    p.name: p
    for p in (
        Procedure(
            "sasa", "SASA", "arXiv 2507.21637 [abs], blocks [3P]",
            "Danger is perceived in an earlier block (s) than the one where semantics is fused (f).",
            "how the paper finds s and f could not be read; here: the onset of the linear probe of harm over all items "
            "(s) and over items unsafe only together (f), above shuffled labels but without the baselines that "
            "`locate` asks a role to beat: a cue in words or picture counts [own]",
            ("last",), ("perceive", "fuse"), (Published("LLaVA-1.5-7B", 13, 15, 32, f"{_THIRD}; base 0 or 1 unclear"),),
            sasa,
        ),
        Procedure(
            "safety-layers", "Safety Layers", "arXiv 2408.17003 [code]",
            "A range of early blocks parts malicious prompts from normal ones.",
            "from where the gap of angles exceeds shuffled labels to where it first stops growing; the paper looks, it "
            "does not test; sharpening is left to `reproduce safety-layers`",
            ("last",), ("perceive",),
            (
                Published("Llama-3-8B", 6, 12, 32, _THIRD), Published("Llama-2-7B", 9, 14, 32, _THIRD),
                Published("Phi-3-mini", 11, 15, 32, _THIRD), Published("gemma-2b", 8, 11, 18, _THIRD),
            ),
            safety_layers, "no",
        ),
        Procedure(
            "hiddendetect", "HiddenDetect", "arXiv 2502.14744 [code]",
            "Refusal shows in the lens of middle and late blocks before the first token.",
            "blocks whose difference of raw refusal cosines exceeds the last block's, from the first to the last",
            ("cosines",), ("express",),
            (Published("LLaVA-1.6-7B", 16, 29, 32, _CODE), Published("Qwen-VL-Chat", 21, 24, 32, _CODE)),
            hiddendetect,
        ),
        Procedure(
            "tga", "TGA", "arXiv 2410.12662 [code]",
            "The safety mechanism is activated at certain blocks: there the refusal word becomes the first choice.",
            "the block from which the lens's top token is the model's refusal token and stays, of harmful refused "
            "items; the range is their middle 80 % [own]",
            ("lens_top", "top"), ("express",),
            (Published("model not stated where it was read", 10, 18, 32, "second-hand; 32 blocks assumed"),), tga,
            labels=False,
        ),
        Procedure(
            "care", "CARE", "arXiv 2603.27240 [second-hand]",
            "Middle blocks, through their MLPs, cause unsafe answers.",
            "its mediation formula could not be read; here: the MLP output at the last token of the harmless member is "
            "put into the harmful member's run, and the three neighbouring blocks that take most of the difference of "
            "refusal log-odds are the range [own]",
            ("drop", "gap"), ("perceive", "fuse", "express"),
            (
                Published("Qwen2.5-VL", 12, 14, 28, f"{_SECOND}; 28 blocks of the 7B model assumed"),
                Published("LLaVA-OneVision", 16, 18, 28, f"{_SECOND}; 28 blocks of the 7B model assumed"),
            ),
            care, labels=False,
        ),
        Procedure(
            "safety-heads", "Safety heads", "arXiv 2501.02029, formula second-hand, not checked against the paper",
            "A few attention heads tell harmful prompts apart.",
            "a probe on each head's output at the last token; the middle half of the best eight heads' blocks [own]; "
            "intervals resample which heads are best, without fitting the probes again",
            ("heads_right",), ("perceive",), (), safety_heads, labels=False,
        ),
        Procedure(
            "shiftdc", "ShiftDC", "arXiv 2502.13095",
            "Pictures push harmful requests toward 'safe' in these blocks.",
            "the longest run of blocks in which the picture's shift (against its caption) along the words' harmful "
            "direction is below zero, 95 % interval [own]; the paper chose its range",
            ("push",), (), (Published("LLaVA-1.5-7B", 10, 31, 32, _CODE),), shiftdc, "needed", labels=False,
        ),
        Procedure(
            "first-token", "First token", "arXiv 2403.09037",
            "The first answer token's logits tell harmful from harmless: the place is after the last block.",
            "AUROC of a probe on those logits, five folds by group (the paper trains on ten samples a scenario); the "
            "place is given, so on models of known answer only its false alarms say anything",
            ("first_token",), (), (Published("LVLMs", 31, 31, 32, "by definition"),), first_token,
            labels=False,
        ),
        Procedure(
            "x-boundary", "X-Boundary (DeepScan)", "arXiv 2602.12092, formula read in AI45Lab/DeepScan",
            "Harmful and safe prompts stand apart at a third and at two thirds of the depth.",
            "distance of the class centroids of prompt-averaged states; blocks fixed by depth, so nothing is found",
            ("mean",), ("perceive",), (Published("any", 10, 21, 32, "set by depth in that code"),), x_boundary, "no",
            placed=True,
        ),
        Procedure(
            "tellme", "TELLME (DeepScan)", "arXiv 2602.12092, formula read in AI45Lab/DeepScan, scaled alike [own]",
            "At two thirds of the depth the classes' states take more room together than apart.",
            "gap of coding rates; block fixed by depth, so nothing is found",
            ("last",), ("perceive",), (Published("any", 20, 20, 32, "set by depth in that code"),), tellme, "no",
            placed=True,
        ),
    )
}  # fmt: skip
"""Every claim that can be asked, by name."""

NOT_FOUND: Mapping[str, str] = {
    "ReGap (arXiv 2605.18104)": "conditional refusal separability and modality drift: only the abstract and summaries "
    "could be read, no formula",
    "MARS (arXiv 2606.31876)": "re-centring, trust region and layer choice: only the abstract and summaries could be "
    "read, no formula",
    "MI-Peaks (in DeepScan)": "formula read (HSIC between each generated token's state and that of a gold answer): it "
    "places tokens of a reasoning trace, not blocks, and needs gold answers",
    "SPIN (in DeepScan)": "formula read (overlap of the weights with the largest |W| |dL/dW| on two sets): it is about "
    "two abilities such as fairness and privacy and needs answers for both, which these data do not have",
}
"""Claims that are named and not asked, and why."""


def choose(names: str | Sequence[str]) -> list[Procedure]:
    """Procedures by name, ``all``, or names with commas.

    Raises:
        UsageError: a name that does not exist.
    """
    asked = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    if asked == ["all"]:
        return list(PROCEDURES.values())
    for name in asked:
        if name not in PROCEDURES:
            raise UsageError(
                f"no rival {name!r}{near_matches(name, PROCEDURES)} The rivals are {', '.join(PROCEDURES)}"
            )
    return [PROCEDURES[name] for name in dict.fromkeys(asked)]

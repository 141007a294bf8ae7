"""What a run found, as one sentence that needs no manual: the same on the terminal and at the top of the page.

Each function takes the plain result that its command writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .parts import interval

ROLE_WORDS = {
    "perception": "Danger is readable",
    "semantics": "picture and words are understood together",
    "expression": "the refusal is written",
}


def of_sweep(data: Mapping[str, Any]) -> str:
    """``result.json``: where each role begins, and what is known of their order."""
    said: list[str] = []
    missing: list[str] = []
    depth = data["model"]["blocks"]
    for name, words in ROLE_WORDS.items():
        role = data["roles"].get(name)
        if not role or not role["found"]:
            missing.append(name)
            continue
        of = f" of {depth}" if not said else ""
        said.append(f"{words} from block {role['onset']}{of} [{role['onset_low']}, {role['onset_high']}]")
    if not said:
        return "No role was found that beats its null and its baselines: " + "; ".join(
            f"{name}: {data['roles'][name]['reason']}" for name in missing if data["roles"].get(name)
        )
    sentence = "; ".join(said)
    if missing:
        sentence += f"; not found: {' and '.join(missing)}"
    return f"{capital(sentence)}. {capital(data['order_test']['conclusion'])}."


def capital(text: str) -> str:
    """The text as the beginning of a sentence, its own full stop taken off."""
    return text[:1].upper() + text[1:].rstrip(".")


def of_evaluation(data: Mapping[str, Any]) -> str:
    """``evaluation.json``: which defences lower attack success."""
    lower = [
        f"{t['system'].replace('_', ' ')} ({100 * t['difference']:+.0f} points)"
        for t in data["tests"]
        if t["rate"] == "attack_success" and t["q_value"] <= 0.05 and t["difference"] < 0
    ]
    systems = len(data["rows"]) - 1
    if not lower:
        return f"None of {systems} defences is shown to lower attack success on these requests."
    return f"{len(lower)} of {systems} defences lower attack success: {', '.join(lower)}."


def of_cells(rows: Sequence[Mapping[str, Any]]) -> str:
    """``cells.csv``: how many cells survive, and the strongest."""
    survived = [row for row in rows if str(row["survives"]) == "True"]
    pairs = max((int(float(row["pairs"])) for row in rows), default=0)
    best = max(survived, key=lambda row: float(row["effect"]), default=None)
    if best is None:
        return f"None of {len(rows)} cells survives the control for many tests with {pairs} pairs."
    return (
        f"{len(survived)} of {len(rows)} cells survive the control for many tests; the strongest is "
        f"{best['position']} at block {best['block']} ({best['direction']}), which carries {effect_text(best)} of the "
        "difference."
    )


def effect_text(row: Mapping[str, Any]) -> str:
    """The effect of one cell with its interval."""
    if row["effect"] in ("", None):
        return "-"
    low, high = (float(row[key]) if row.get(key) not in ("", None) else None for key in ("low", "high"))
    return interval(float(row["effect"]), low, high)


def of_comparison(data: Mapping[str, Any]) -> str:
    """``comparison.json``: which differences are shown."""
    differ = [test for test in data["tests"] if test.get("q_value") is not None and test["q_value"] <= 0.05]
    said = "; ".join(f"{t['role']}, {t['what']}: {t['difference']:+.2f} ({t['second']} - {t['first']})" for t in differ)
    if not differ:
        return "No difference between the runs is shown."
    return f"{len(differ)} of {len(data['tests'])} differences are shown: {said}."


def of_reproduction(data: Mapping[str, Any]) -> str:
    """``reproduced.json``: how many claims came out."""
    counts = ", ".join(f"{count} {state}" for state, count in data["counts"].items() if count)
    failed = f" {len(data['failed'])} could not be run." if data.get("failed") else ""
    return f"Of {len(data['recipes'])} claims: {counts or 'none was asked'}.{failed}"


def of_selftest(data: Mapping[str, Any]) -> str:
    """``selftest.json``: which measures miss a target."""
    missed = sorted(measure for measure, standing in data["standing"].items() if standing == "missed")
    return f"{len(missed)} of {len(data['standing'])} measures miss a target" + (
        f": {', '.join(word.replace('_', ' ') for word in missed)}." if missed else "."
    )


def of_training(data: Mapping[str, Any]) -> str:
    """``training.json``: how far the loss fell, and whether the adapter acts on a fresh base."""
    losses = [entry["loss"] for entry in data["log"] if "loss" in entry]
    said = f"The loss went from {losses[0]:.3f} to {losses[-1]:.3f}" if losses else "No loss was logged"
    change = data["audits"]["after"].get("changes_logits")
    acts = "" if change is None else f"; on a fresh base the adapter changes the logits by up to {change:.3g}"
    return f"{said} in {data['cost']['steps']} steps{acts}."

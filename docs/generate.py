"""Write the tables of ``docs/`` from the registries, so that the pages cannot say anything else than the code.

Pages of committed records are in ``records.py`` beside it.

python docs/generate.py               # writes them
python docs/generate.py wide lines    # two of them
python docs/generate.py --check       # names the pages that differ; exit code 1 where one does
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence

from records import HERE, lines, real_defenses, science, selftest, standard_study, table, trainings, verdicts, wide

MARKS = (
    "`[own]` is this project's own definition, `[code]` was read in the authors' code, `[abs]` in the abstract only, "
    "`[3P]` in other people's reimplementation."
)


def measures() -> list[str]:
    """Every registered measure."""
    from lvlm_lens.measures.registry import MEASURES
    from lvlm_lens.measures.spec import Size
    from lvlm_lens.selftest import standing

    size = Size(items=200, blocks=32, heads=32)
    rows = [
        [
            f"`{name}`", (spec.role or "description only") + ("" if spec.votes else " (no vote)"), spec.cost,
            f"{spec.rows(size):,}", spec.what,
            "[not testable](selftest.md)" if spec.untested else standing(name), spec.source,
        ]
        for name, spec in MEASURES.items()
    ]  # fmt: skip
    return [
        f"# {len(rows)} measures",
        "",
        "A measure without a vote is drawn and not counted in the consensus. *On known models*: whether it reaches its "
        "targets in `lvlm-lens selftest`, on models whose answer is known by construction. Cost: `free` reads what the "
        "sweep has read anyway, `cheap` computes on it, `forward` and `edits` run the model again. *Rows run*: prompts "
        f"that it puts through a model of {size.blocks} blocks with {size.heads} heads, of {size.items} items. {MARKS}",
        "",
        *table(["measure", "role", "cost", "rows run", "what it is", "on known models", "source"], rows),
    ]


def defenses() -> list[str]:
    """Every registered defence and detector."""
    from lvlm_lens.defenses.base import Detector
    from lvlm_lens.defenses.registry import DEFENSES

    rows = []
    for name, kind in DEFENSES.items():
        state = f"approximation: {kind.approximation}" if kind.approximation else "as published"
        what = "detector" if issubclass(kind, Detector) else "answers"
        rows.append([f"`{name}`", what, ", ".join(sorted(kind.needs)) or "-", kind.source, state])
    return [
        f"# {len(rows)} defences and detectors",
        "",
        "`lvlm-lens evaluate --defense NAME[,NAME]` runs them beside the undefended model.",
        "",
        *table(["defence", "kind", "needs", "source", "state"], rows),
    ]


def datasets() -> list[str]:
    """Every published format."""
    from lvlm_lens.data.registry import FORMATS, card

    rows = []
    for name in FORMATS:
        about = card(name)
        counts = ", ".join(f"{count:,} {key}" for key, count in list(about.counts.items())[:2]) or "-"
        there = "in the package" if about.embedded else about.source
        rows.append([f"`{name}`", about.title, counts, there, about.licence])
    return [
        f"# {len(rows)} published data sets",
        "",
        "`lvlm-lens datasets NAME` says what to download and where to put it. `own schema`: the files are not public, "
        "so the format is ours and named as such (`--template FILE` writes an empty one).",
        "",
        *table(["name", "set", "published records", "format known from", "licence"], rows),
        "",
        "## The same request in words and in a picture",
        "",
        "Any set of texts becomes such pairs, which `patch_grid` takes:",
        "",
        "```python",
        "from lvlm_lens import load_dataset",
        "from lvlm_lens.data.matching import form_pairs",
        "from lvlm_lens.data.typography import to_typographic",
        "",
        'shown = to_typographic(load_dataset("xstest"), layout="figstep", forms=("picture",))',
        "pairs = form_pairs(shown)",
        "```",
    ]


def recipes() -> list[str]:
    """Every recipe."""
    from lvlm_lens.recipes.registry import recipes as every

    rows = [
        [
            f"`{r.name}`", f"{r.title}, {r.source}", len(r.published) or "none", ", ".join(use.name for use in r.sets),
            r.claim,
        ]
        for r in every()
    ]  # fmt: skip
    return [
        f"# {len(rows)} recipes",
        "",
        "A recipe judges twice. The **claim** is a direction: *reproduced* where the whole 95 % interval (bootstrap "
        "over groups) lies on the paper's side, *not reproduced* where it does not, *not comparable* where it could "
        "not be measured. The **numbers** are compared only on the model they were published for, on the published "
        "files, whole, scored as published. Without `--root` a part of the embedded set stands in for them.",
        "",
        *table(["recipe", "paper", "published numbers known", "data", "claim"], rows),
    ]


def families() -> list[str]:
    """Every family with a row in the table."""
    from lvlm_lens.models.checkpoints import KNOWN_BY
    from lvlm_lens.models.families import FAMILIES

    rows = [
        [f"`{name}`", f"`{KNOWN_BY[name]}`" if name in KNOWN_BY else "-", ", ".join(sorted(row.flow)) or "plain"]
        for name, row in FAMILIES.items()
    ]
    return [
        f"# {len(rows)} families of models",
        "",
        "Each has a row in `lvlm_lens/models/families.py` and a tiny real model that `lvlm-lens models --check` holds "
        "against plain forwards. A family without a row is discovered from its structure, checked on load, and refused "
        "with the reason where it fails. What the words of the last column mean stands in that file.",
        "",
        *table(["family", "for example", "what is particular about its forward"], rows),
    ]


def commands() -> list[str]:
    """Every command with its options, as its own help shows them."""
    from lvlm_lens.cli import COMMANDS, build_parser

    rows = {name: _option_rows(build_parser(name), name) for name in COMMANDS}
    counted = Counter(row for own in rows.values() for row in own)
    lines = [
        f"# {len(COMMANDS)} commands",
        "",
        "`lvlm-lens COMMAND --help` shows the same, whole. One output folder is one run: the same command again "
        "continues it. Options that four commands or more share stand once, at the end.",
    ]
    for name, about in COMMANDS.items():
        lines += ["", f"## `lvlm-lens {name}`", "", f"{about.help[0].upper()}{about.help[1:]}.".replace("?.", "?")]
        lines += ["", "```text", about.example, "```"]
        own = [row for row in rows[name] if counted[row] < 4]
        lines += ["", *table(["option", "what it is"], own)] if own else []
    shared = [row for row in dict.fromkeys(row for own in rows.values() for row in own) if counted[row] >= 4]
    return [*lines, "", "## Options that they share", "", *table(["option", "what it is"], shared)]


def _option_rows(parser: ArgumentParser, name: str) -> list[tuple[str, str]]:
    own = next(action for action in parser._actions if action.dest == "command").choices[name]  # type: ignore[index]
    return [
        (f"`{', '.join(action.option_strings) or action.metavar or action.dest}`", action.help or "")
        for action in own._actions
        if action.dest != "help"
    ]


def training_methods() -> list[str]:
    """Every registered training method."""
    from lvlm_lens.train.registry import METHODS, method_class

    rows = []
    for name in METHODS:
        kind = method_class(name)
        options = ", ".join(f"`{key}={value!r}`" for key, value in kind().get_params(deep=False).items())
        differs = kind.approximation or "as published, as far as read"
        rows.append([f"`{name}`", kind.title, kind.source, f"{kind.rate:g}", options or "-", differs])
    return [
        f"# {len(rows)} training methods",
        "",
        "`lvlm-lens train NAME`; options of a method are given as `--option NAME=VALUE`. What they share (audits, "
        "controls, folder, resuming) is in [training.md](training.md).",
        "",
        *table(["method", "what", "source", "rate", "options", "differs from the published one"], rows),
    ]


PAGES = {"measures": measures, "defenses": defenses, "datasets": datasets, "recipes": recipes, "families": families,
         "commands": commands, "training_methods": training_methods, "wide": wide, "selftest": selftest,
         "science": science,
         "trainings": trainings, "standard_study": standard_study, "verdicts": verdicts,
         "real_defenses": real_defenses, "lines": lines}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Write every page, or with ``--check`` name those that differ."""
    parser = ArgumentParser(description="Write the tables of docs/ from the registries and the committed records.")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)} (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing, name the pages that differ")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.pages if name not in PAGES]:
        parser.error(f"no page {', '.join(unknown)}; write of {', '.join(PAGES)}")
    stale = []
    for name in asked.pages or PAGES:
        text = "\n".join(PAGES[name]()) + "\n"
        page = HERE / f"{name}.md"
        if not asked.check:
            page.write_text(text, encoding="utf-8")
        elif not page.is_file() or page.read_text(encoding="utf-8") != text:
            stale.append(page.name)
    if stale:
        print(f"out of date: {', '.join(stale)}; run `python docs/generate.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

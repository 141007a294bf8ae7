"""The types of a sweep's ``result.json``, part by part.

The schema that stands beside every result (``result.schema.json``) is made from them, and a result that is opened is
checked against them.  What a record must hold is required; what later versions added is not, so that old results stay
readable.  A change that breaks old results raises the number in :data:`SCHEMA`.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from ..storage.schema import DRAFT, json_schema

SCHEMA = "lvlm-lens/sweep/1"
"""Name and version of the record."""

Numbers = list[float | None]


class ShareRecord(TypedDict):
    """A share of items with its Wilson 95 % interval; nulls where nothing was counted."""

    count: int
    n: int
    value: float | None
    low: float | None
    high: float | None


class BaselineRecord(TypedDict):
    """Something to beat: one number for all blocks, or one per block."""

    value: float | Numbers
    low: float | Numbers
    high: float | Numbers


class CurveRecord(TypedDict):
    """One measure by block, with its interval, the bound of its null, and its baselines."""

    name: str
    blocks: list[int]
    value: Numbers
    low: Numbers
    high: Numbers
    unit: NotRequired[str]
    n: NotRequired[int]
    null: NotRequired[Numbers | None]
    null_mean: NotRequired[Numbers | None]
    baselines: NotRequired[dict[str, BaselineRecord]]
    meta: NotRequired[dict[str, Any]]


class RoleRecord(TypedDict):
    """A role: its blocks where it was found, else the reason; ``beaten`` holds bound and margin by baseline."""

    name: str
    found: bool
    reason: NotRequired[str]
    onset: NotRequired[int | None]
    onset_low: NotRequired[int | None]
    onset_high: NotRequired[int | None]
    onset_at: NotRequired[float | None]
    peak: NotRequired[int | None]
    range: NotRequired[list[int] | None]
    plateau: NotRequired[list[int] | None]
    value: NotRequired[float | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    beaten: NotRequired[dict[str, list[float]]]
    missing: NotRequired[list[str]]
    depth: NotRequired[int | None]
    notes: NotRequired[list[str]]
    measurable: NotRequired[bool]


class OrderRecord(TypedDict):
    """The test of the order of onsets, or why there is none."""

    conclusion: str
    p_value: NotRequired[float | None]


class QuadrantRecord(TypedDict):
    """Items of one quadrant of labels (picture, words, together): shares perceived and refused."""

    quadrant: str
    n: int
    perceived: ShareRecord
    refused: ShareRecord
    perceived_not_refused: ShareRecord
    perceived_not_refused_excess: NotRequired[dict[str, Any] | None]


class MeasureRecord(TypedDict):
    """One measure: what it is, how it fared on models whose answer is known, its curves by name, or why it has none."""

    done: bool
    role: str | None
    cost: str
    votes: bool
    what: str
    source: str
    standing: str
    curve: NotRequired[str]
    others: NotRequired[list[str]]
    tables: NotRequired[dict[str, Any]]
    finding: NotRequired[RoleRecord | None]
    reason: NotRequired[str]


class ConsensusRecord(TypedDict):
    """What the counted measures of a role agree on."""

    found: bool
    members: dict[str, Any]
    excluded: list[str]
    reason: NotRequired[str]
    onset: NotRequired[int | None]
    onset_low: NotRequired[int | None]
    onset_high: NotRequired[int | None]
    spread: NotRequired[list[int] | None]
    agreement: NotRequired[float | None]


class CausalRecord(TypedDict):
    """The patch grid's summary, or ``done: false`` with a ``reason``."""

    done: bool
    reason: NotRequired[str]
    pairs: NotRequired[int]
    pairs_that_behave: NotRequired[int]
    pairs_differ_in: NotRequired[str]
    metric: NotRequired[str]
    engine: NotRequired[str]
    engine_reason: NotRequired[str | None]
    verification: NotRequired[dict[str, Any]]
    cells: NotRequired[int]
    cells_surviving: NotRequired[int]
    strongest: NotRequired[dict[str, Any]]
    cells_table: NotRequired[list[dict[str, Any]]]


class SasaRecord(TypedDict):
    """SASA's quick report, or ``done: false`` with a ``reason``."""

    done: bool
    reason: NotRequired[str]
    verdict: NotRequired[str]
    setting: NotRequired[dict[str, Any]]
    reference: NotRequired[dict[str, Any]]
    sasa: NotRequired[dict[str, Any]]
    gain: NotRequired[dict[str, Any]]
    map: NotRequired[dict[str, Any]]
    controls: NotRequired[list[dict[str, Any]]]
    label_efficiency: NotRequired[list[dict[str, Any]]]


class DefensesRecord(TypedDict):
    """The small defence table, or ``done: false`` with a ``reason``."""

    done: bool
    reason: NotRequired[str]
    setting: NotRequired[dict[str, Any]]
    rows: NotRequired[list[dict[str, Any]]]
    tests: NotRequired[list[dict[str, Any]]]
    notes: NotRequired[list[str]]


class FigureRecord(TypedDict):
    """Files of a figure, relative to the folder, and its caption."""

    name: str
    png: str
    svg: str
    caption: str
    html: NotRequired[str]


class ModelRecord(TypedDict):
    """Which model: name, class, number type, and hashes of weights and processor."""

    name: str
    blocks: int
    weights_hash: str
    family: NotRequired[str]
    d_model: NotRequired[int]
    dtype: NotRequired[str]
    device: NotRequired[str]
    revision: NotRequired[str | None]
    processor_hash: NotRequired[str]
    attn_implementation: NotRequired[str | None]


class DatasetRecord(TypedDict):
    """Which data: counts, hash, and every record that was left out."""

    name: str
    hash: str
    samples: int
    harmful: int
    harmless: int
    problem_list: list[str]
    pairs: NotRequired[int]
    left_out: NotRequired[str]
    notes: NotRequired[list[str]]


class ConfigRecord(TypedDict):
    """The settings, by the names of the command line's long options."""

    seed: int
    replicates: int
    positions: str
    limit: int | None


class SweepRecord(TypedDict):
    """A finished sweep."""

    schema: str
    model: ModelRecord
    dataset: DatasetRecord
    config: ConfigRecord
    curves: list[CurveRecord]
    roles: dict[str, RoleRecord]
    order_test: OrderRecord
    quadrants: list[QuadrantRecord]
    measures: dict[str, MeasureRecord]
    consensus: dict[str, ConsensusRecord]
    causal: CausalRecord
    sasa: SasaRecord
    defenses: DefensesRecord
    notes: list[str]
    figures: list[FigureRecord]
    environment: dict[str, Any]
    timings: dict[str, float]
    processor_seconds: NotRequired[dict[str, float]]
    backbone: NotRequired[dict[str, Any] | None]
    trajectories: NotRequired[dict[str, Any]]
    robustness: NotRequired[dict[str, Any]]
    perceived_note: NotRequired[str | None]


def result_schema() -> dict[str, Any]:
    """The JSON schema of ``result.json``."""
    return {"$schema": DRAFT, "$id": SCHEMA, **json_schema(SweepRecord)}

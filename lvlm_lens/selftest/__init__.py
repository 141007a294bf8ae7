"""Ground truth: models whose safety circuit is known by construction, and how often the locators find it.

``lvlm-lens selftest`` builds LLaVA-architecture models with the answer written into their weights
(:mod:`.constructed`), runs the toolkit on them as on any model, and tabulates how often it is right (:mod:`.study`).
The recorded run is part of the package; :func:`standing` says what it found about a measure.
"""

from .record import load_record, standing, trusted_measures

__all__ = ["load_record", "standing", "trusted_measures"]

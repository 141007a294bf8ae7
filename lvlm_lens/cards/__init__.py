"""The figures of the embedded models' cards: measured with plain transformers, and the tables made of them.

``mini.py``, ``smol.py`` measure; ``*_table.py`` write.  ``lvlm-lens models NAME --measure`` runs them.  A card and its
``measured.json`` lie beside the weights in :mod:`lvlm_lens.models`.  Imports data, models and the refusal rule.
"""

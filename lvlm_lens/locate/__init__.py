"""Locating: measures, nulls and baselines, and the roles that curves show.

One file a measure, with its estimator; the registries are ``MEASURES`` of :mod:`.measures` here and of
``causal/measures.py`` for those that edit the model.  :mod:`.locating` reads the roles off the curves.  Imports
``activations``, ``models``, ``data`` and ``stats``.  ``check_measure`` proves one more measure.
"""

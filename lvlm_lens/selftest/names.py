"""Names that the record shares with the rest of the toolkit; light, so that a figure may import it."""

ROLE_MEASURES = {"linear_probe": "perception", "joint_probe": "semantics", "lens_log_odds": "expression"}
"""The measures behind the three roles of ``locate_roles``."""

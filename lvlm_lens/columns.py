"""The names under which each column of a user's table is looked for when it is not named."""

from __future__ import annotations

USUAL = {
    "text": ("text", "prompt", "question", "query", "instruction"),
    "image": ("image", "images", "image_path", "file_name"),
    "label": ("label", "label_joint"),
    "label_image": ("label_image",),
    "label_text": ("label_text",),
    "id": ("id", "question_id"),
    "group": ("group",),
    "split": ("split",),
    "category": ("category",),
    "counterfactual": ("counterfactual",),
    "text_only": ("text_only",),
    "caption": ("caption",),
    "reference": ("reference",),
}
"""By meaning; the first that a table has is taken, and the data set's notes say which."""

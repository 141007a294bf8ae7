"""What a user of the sweep has: checkpoints in folders, and a table with pictures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Random-weight checkpoints of two families, as a user has them: folders on disk."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in ("llava", "qwen2_5_vl", "llama"):
        model, processor = tiny_model(family)
        model.save_pretrained(root / family)
        processor.save_pretrained(root / family)
    return root


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Sixty requests about pictures: bright with 'open' or dark with 'close' is harmful, so neither tells it alone."""
    root = tmp_path_factory.mktemp("table")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for group in range(15):
        for bright in (0, 1):
            pixels = rng.integers(0, 100, (40, 40, 3), dtype=np.uint8) + np.uint8(150 * bright)
            name = f"images/{group}-{bright}.png"
            Image.fromarray(pixels).save(root / name)
            for word in ("open", "close"):
                rows.append(
                    {
                        "name": f"{group}-{bright}-{word}",
                        "question": f"May I {word} this box number {group}?",
                        "file": name,
                        "harmful": int(bright == (word == "open")),
                        "label_image": "safe",
                        "label_text": "safe",
                        "box": f"box{group}",
                    }
                )
    pd.DataFrame(rows).to_csv(root / "data.csv", index=False)
    pd.DataFrame(rows).to_json(root / "data.jsonl", orient="records", lines=True)
    return root

"""Processors for the four families whose own need torchvision: one tile a picture, PIL and numpy only.

They stand in for the resizing and tiling only; what they hand to the family's own processor and
model has the form that the original gives for a picture that fits one tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import ImagesKwargs, ProcessorMixin


def _square(picture: Any, side: int) -> np.ndarray:
    """Float32 ``[3, side, side]`` in [-1, 1]."""
    resized = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1.0


def _patches(pixels: np.ndarray, size: int) -> np.ndarray:
    """``[patches, size * size * 3]``, row by row."""
    channels, height, width = pixels.shape
    tiles = pixels.reshape(channels, height // size, size, width // size, size)
    return tiles.transpose(1, 3, 2, 4, 0).reshape(-1, size * size * channels)


class _Options(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Options that LFM2-VL's processor passes on."""

    return_row_col_info: bool


class OneTile(BaseImageProcessor):
    """Llama 4's form: ``pixel_values`` ``[picture, 3, side, side]``, every aspect ratio one by one."""

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers' own spelling

    def __init__(self, side: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        """All pictures of the batch, one after another."""
        pictures = make_flat_list_of_images(images)
        pixels = torch.from_numpy(np.stack([_square(picture, self.side) for picture in pictures]))
        return BatchFeature({"pixel_values": pixels, "aspect_ratios": torch.ones(len(pictures), 2, dtype=torch.long)})


class OneTilePatches(BaseImageProcessor):
    """LFM2-VL's form: flat patches, their mask and the grid they came from; wide pictures get a wide grid."""

    model_input_names = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]  # noqa: RUF012
    valid_kwargs = _Options

    def __init__(self, side: int = 32, patch: int = 8, downsample: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.tile_size, self.encoder_patch_size, self.downsample_factor = side, patch, downsample
        self.use_thumbnail = False

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        """All pictures of the batch, padded to the same number of patches."""
        values, masks, shapes, heights = [], [], [], []
        limit = (self.tile_size // self.encoder_patch_size) ** 2
        for picture in make_flat_list_of_images(images):
            height = self.tile_size // 2 if picture.width >= 2 * picture.height else self.tile_size
            flat = _patches(_square(picture, self.tile_size)[:, :height], self.encoder_patch_size)
            padded = np.zeros((limit, flat.shape[1]), dtype=np.float32)
            padded[: len(flat)] = flat
            values.append(padded)
            masks.append(np.arange(limit) < len(flat))
            shapes.append([height // self.encoder_patch_size, self.tile_size // self.encoder_patch_size])
            heights.append([height, self.tile_size])
        return BatchFeature(
            {
                "pixel_values": torch.from_numpy(np.stack(values)),
                "pixel_attention_mask": torch.from_numpy(np.stack(masks).astype(np.int64)),
                "spatial_shapes": torch.tensor(shapes),
                "image_rows": [1] * len(values),
                "image_cols": [1] * len(values),
                "image_sizes": heights,
            }
        )


class TwoViews(BaseImageProcessor):
    """Molmo 2's form: a low-resolution view and one crop, patches pooled two by two by index."""

    model_input_names = ["pixel_values", "image_token_pooling", "image_grids", "image_num_crops"]  # noqa: RUF012

    def __init__(self, side: int = 32, patch: int = 8, **options: Any) -> None:
        super().__init__(**options)
        self.side, self.patch = side, patch

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        """All pictures of the batch: two views each, the same tokens per picture."""
        pictures = make_flat_list_of_images(images)
        grid = self.side // self.patch
        cells = np.arange(grid * grid).reshape(grid // 2, 2, grid // 2, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
        views: list[Any] = []
        pooling: list[Any] = []
        for picture in pictures:
            for pixels in (_square(picture, self.side // 2).repeat(2, 1).repeat(2, 2), _square(picture, self.side)):
                pooling.append(cells + len(views) * grid * grid)
                views.append(_patches(pixels, self.patch))
        return BatchFeature(
            {
                "pixel_values": torch.from_numpy(np.stack(views)),
                "image_token_pooling": torch.from_numpy(np.concatenate(pooling)),
                "image_grids": torch.tensor([[grid // 2] * 4] * len(pictures)),
                "image_num_crops": torch.tensor([2] * len(pictures)),
            }
        )


class RowBreaks(ProcessorMixin):
    """Mistral 3's form: one token a merged patch, a break token after each row, an end token after the last.

    Transformers' own ``PixtralProcessor`` imports torchvision with its module, whatever picture processor it is given.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, patch_size: int = 16, chat_template: Any = None
    ) -> None:
        self.patch_size = patch_size  # of the merged patches that become tokens
        self.image_token, self.row_end, self.image_end = "[IMG]", "[IMG_BREAK]", "[IMG_END]"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **options: Any) -> str:
        """The tokens of one picture."""
        height, width = image_inputs["image_sizes"][image_idx]
        row = self.image_token * (int(width) // self.patch_size)
        rows = int(height) // self.patch_size
        return (row + self.row_end) * (rows - 1) + row + self.image_end

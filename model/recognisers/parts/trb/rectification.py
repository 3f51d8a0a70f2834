"""Rectification: a small network sets points on an image, and a thin-plate spline draws the image through them.

"Robust Scene Text Recognition with Automatic Rectification", Shi et al., CVPR 2016; Bookstein, "Principal Warps", PAMI 1989.

Shapes: B batch, H and W of the image, F points, half of them along its top and half along its bottom.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (64, 128, 256, 512)
HIDDEN = 256
FAR_FROM_ZERO = 1e-6
"""Added to distances between pixels and points before their logarithm."""

Floats = NDArray[np.floating]


class LocalizationNetwork(nn.Module):
    """Where in an image the points lie that its top and bottom edge are to go through."""

    def __init__(self, points: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, channels in zip((3, *CHANNELS), CHANNELS, strict=False):
            convolution = nn.Conv2d(width, channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        layers[-1] = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Sequential(*layers)
        self.localization_fc1 = nn.Sequential(nn.Linear(CHANNELS[-1], HIDDEN), nn.ReLU(inplace=True))
        self.localization_fc2 = nn.Linear(HIDDEN, 2 * points)

    def forward(self, images: Tensor) -> Tensor:
        """Images, float `(B, 3, H, W)`, to x and y of the points in [-1, 1], float32 `(B, F, 2)`."""
        features = self.conv(images).flatten(1)
        # In bfloat16 a point would be a quarter of a pixel beside its place.
        with _float32(features):
            points: Tensor = self.localization_fc2(self.localization_fc1(features.to(self.localization_fc2.weight.dtype)))
        return points.view(len(points), -1, 2)

    @torch.no_grad()
    def begin(self) -> None:
        """Let the points not depend on the image at first: two lines, from the middle to the top and from the bottom to it.

        The places, odd as they are, are the reference implementation's.
        """
        nn.init.zeros_(self.localization_fc2.weight)
        count = self.localization_fc2.out_features // 4
        down = np.concatenate([np.linspace(0.0, -1.0, count), np.linspace(1.0, 0.0, count)])
        places = np.stack([np.tile(np.linspace(-1.0, 1.0, count), 2), down], 1)
        self.localization_fc2.bias.copy_(torch.from_numpy(places.flatten()))


class GridGenerator(nn.Module):
    """The spline: from points to the place in the image that each pixel of the rectified one is taken from.

    Two matrices multiply the points. State dicts of the reference hold both, in float32, so ours do; but they follow from the
    sizes, and what is computed with is their product, folded in float64. As two products in float32 the grid would be 70 times
    as far from the exact one (3e-5 instead of 4e-7), and a decision that is close would depend on the machine.
    """

    inv_delta_C: Tensor  # noqa: N815 (the state dict's name)
    P_hat: Tensor
    folded: Tensor

    def __init__(self, img_size: tuple[int, int], points: int) -> None:
        super().__init__()
        at = control_points(points)
        solution, pixels = (value.astype(np.float32) for value in (spline_solution(at), pixel_terms(img_size, at)))
        self.register_buffer("inv_delta_C", torch.from_numpy(solution))  # (F + 3, F + 3)
        self.register_buffer("P_hat", torch.from_numpy(pixels))  # (H * W, F + 3)
        folded = pixels.astype(np.float64) @ solution.astype(np.float64)[:, :points]
        self.register_buffer("folded", torch.from_numpy(folded.astype(np.float32)), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """Points, float32 `(B, F, 2)`, to places, float32 `(B, H * W, 2)`."""
        with _float32(points):
            return self.folded @ points


class Rectification(nn.Module):
    """Straightens the text of an image."""

    def __init__(self, img_size: tuple[int, int], points: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.LocalizationNetwork = LocalizationNetwork(points)
        self.GridGenerator = GridGenerator(img_size, points)

    def forward(self, images: Tensor) -> Tensor:
        """Float `(B, 3, H, W)` to the same shape.

        The places are those of pixels whose outer edges are at -1 and 1, the sampling takes them for those of pixels whose
        centres are: so even points that change nothing would magnify a little. The released weights want it so.
        """
        grid = self.GridGenerator(self.LocalizationNetwork(images)).view(-1, *self.img_size, 2)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def _float32(x: Tensor) -> AbstractContextManager[Any]:
    """No mixed precision on the device of `x`; PyTorch's device without values (`meta`) knows none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def control_points(count: int) -> Floats:
    """Where the points go to, `(F, 2)`: evenly along the top edge (y = -1), then along the bottom edge."""
    along = np.linspace(-1.0, 1.0, count // 2)
    return np.stack([np.tile(along, 2), np.repeat([-1.0, 1.0], count // 2)], 1)


def spline_solution(at: Floats) -> Floats:
    """The matrix `(F + 3, F + 3)` that gives the spline's coefficients, times the places of its points and three rows of zeros.

    Args:
        at: Of `control_points`.
    """
    count = len(at)
    distances = np.linalg.norm(at[:, None] - at, axis=-1)
    np.fill_diagonal(distances, 1.0)  # whose logarithm is 0
    delta = np.zeros((count + 3, count + 3))
    delta[:count, 0] = delta[-1, 3:] = 1.0
    delta[:count, 1:3] = at
    delta[count:-1, 3:] = at.T
    delta[:count, 3:] = distances**2 * np.log(distances)
    solution: Floats = np.linalg.inv(delta)
    return solution


def pixel_terms(img_size: tuple[int, int], at: Floats) -> Floats:
    """What the coefficients are multiplied with for each pixel, `(H * W, F + 3)`, row by row."""
    y, x = ((2.0 * np.arange(size) + 1.0 - size) / size for size in img_size)
    pixels = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    distances = np.linalg.norm(pixels[:, None] - at, axis=-1)
    return np.concatenate(
        [np.ones((len(pixels), 1)), pixels, distances**2 * np.log(distances + FAR_FROM_ZERO)],
        axis=1,
    )

"""CUT's anti-aliased halving and doubling (Zhang 2019; CUT's code at b3ac297).

``fold_reflection``, the gradient of reflected padding, stands here for all CPU kernels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from models.losses import full_precision


class BlurDown(nn.Module):
    """Blur by outer([1, 2, 1], [1, 2, 1]) / 16, then halve H and W (rounded up); in float32."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 16, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            halved: Tensor = _BlurDown.apply(x, self.kernel)  # type: ignore[no-untyped-call]
        return halved


class BlurUp(nn.Module):
    """Double H and W bilinearly, which is exactly the reference's blur by [1, 3, 3, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor]
    size: torch.Size


class _BlurDown(torch.autograd.Function):
    """The blur with a gradient of its own: ``conv2d`` would keep the padded image for nothing."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)  # and not the image: the kernel takes no gradient
        ctx.size = x.shape
        padded = F.pad(full_precision(x), (1, 1, 1, 1), mode="reflect")
        weight = kernel.expand(x.shape[1], 1, 3, 3)
        return F.conv2d(padded, weight, stride=2, groups=x.shape[1]).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        _, channels, height, width = ctx.size
        spread = F.conv_transpose2d(
            full_precision(gradient),
            kernel.expand(channels, 1, 3, 3),
            stride=2,
            groups=channels,
            output_padding=(1 - height % 2, 1 - width % 2),
        )
        fold_reflection(spread, (2, 3))
        return spread[:, :, 1 : height + 1, 1 : width + 1].to(gradient.dtype), None


def fold_reflection(gradient: Tensor, axes: tuple[int, int]) -> None:
    """Add the gradient of one reflected pixel on each side to where that pixel came from."""
    for axis in axes:
        last = gradient.shape[axis] - 1
        gradient.select(axis, 2).add_(gradient.select(axis, 0))
        gradient.select(axis, last - 2).add_(gradient.select(axis, last))

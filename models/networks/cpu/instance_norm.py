"""Instance normalisation (Ulyanov et al. 2016) whose gradient is right in every memory layout.

Delete this file when torch's ``InstanceNorm2d`` passes the tests of this one: torch 2.13 on a CPU
silently gives a wrong gradient for one channels-last image. Here the forward pass is
group norm with one channel a group, and the gradient is written out: it needs no particular layout,
and group norm's own is slow in channels-last.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from models.losses import full_precision

_EPSILON = 1e-5


class InstanceNorm(nn.Module):
    """Subtract the mean of (B, C, H, W) and divide by the deviation, per image and channel.

    It has no parameters. Statistics and gradients are computed in float32, also for bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = _Normalise.apply(x)  # type: ignore[no-untyped-call]
        return normalised


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor]


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        # With one channel a group, group norm is instance norm.
        y, mean, inverse = torch.native_group_norm(
            full_precision(_dense(x)),
            None,
            None,
            images,
            channels,
            height * width,
            channels,
            _EPSILON,
        )
        ctx.save_for_backward(x, mean[..., None, None], inverse[..., None, None])
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> Tensor:
        stored, mean, inverse = ctx.saved_tensors
        x, g = full_precision(stored), full_precision(gradient)
        g_mean = g.mean((2, 3), keepdim=True)
        slope = ((g * x).mean((2, 3), keepdim=True) - g_mean * mean) * inverse.square()
        # inverse * (g - mean(g) - y * mean(g * y)) with y = (x - mean) * inverse
        result = torch.addcmul(slope * mean - g_mean, x, slope, value=-1).add_(g).mul_(inverse)
        return result.to(stored.dtype)


def _dense(x: Tensor) -> Tensor:
    """Return ``x`` in a layout that group norm takes."""
    if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()

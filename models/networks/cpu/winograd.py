"""Convolution by Winograd's algorithm: the same sums with a quarter of the products.

Delete this file, and the line of ``convolution.py`` that calls it, when torch's own float32
convolution of wide layers is as fast on a processor with AVX2. That of torch 2.13 takes 1.7 times
as long for the generator's residual block, forward and backward (256 channels, 32 x 32 pixels).

A small convolution multiplies two polynomials. Evaluated at six points, their product is taken
point by point: transform windows of 6 x 6 pixels and kernels, multiply at each of the 36 points (a
matrix product over the channels), transform back. The algorithm is that of Lavin and Gray 2016,
"Fast Algorithms for Convolutional Neural Networks", F(4, 3) and F(3, 4); gradients take the same
way backwards.

Legend: B batch, H and W, C and D channels in and out, k side of the kernel, m = 7 - k side of a
tile of the output, R and S rows and columns of tiles, P = 36 points, T tiles in work.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from models.networks.cpu.resampling import fold_reflection

_POINTS = (0, 1, -1, 2, -2)  # and infinity
_WINDOW = len(_POINTS) + 1
_TILES = 128
"""The number of tiles in work at a time, whose transforms stay in the processor's cache."""


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor, *, reflect: bool) -> Tensor:
    """Convolve (B, C, H, W) to (B, D, h, w) with kernels (D, C, k, k) of k = 3 or 4.

    The stride is 1, the padding one pixel, the result in channels-last layout. ``x`` and ``weight``
    are of one dtype.
    """
    y: Tensor = _Winograd.apply(x, weight, bias, reflect)  # type: ignore[no-untyped-call]
    return y


class _Transforms(NamedTuple):
    """The matrices along one axis, for a window (6, 6), a kernel (6, k) and a product (m, 6)."""

    window: Tensor
    kernel: Tensor
    product: Tensor


@lru_cache
def _transforms(kernel: int, dtype: torch.dtype) -> _Transforms:
    """Return the transforms of a correlation: those of a polynomial product, transposed."""
    window = torch.linalg.inv(_evaluation(_WINDOW)).T
    product = _evaluation(_WINDOW + 1 - kernel).T
    return _Transforms(*(t.to(dtype).contiguous() for t in (window, _evaluation(kernel), product)))


def _evaluation(size: int) -> Tensor:
    """Return the matrix (6, size) that evaluates polynomials of ``size`` coefficients."""
    finite = [[float(point) ** power for power in range(size)] for point in _POINTS]
    at_infinity = [0.0] * (size - 1) + [1.0]
    return torch.tensor([*finite, at_infinity], dtype=torch.float64)


_Name = Literal["tiles", "halfway", "product", "kernels", "gradient"]


class _Workspace(threading.local):
    """The memory of a thread for values that live within a call, used again and again.

    To get fresh pages would take as long as the arithmetic, and holes between long-lived tensors
    would add up.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[_Name, torch.dtype], Tensor] = {}

    def take(self, name: _Name, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return uninitialised memory; values taken under this name before are lost."""
        size = math.prod(shape)
        memory = self._memory.get((name, dtype))
        if memory is None or memory.numel() < size:
            memory = self._memory[name, dtype] = torch.empty(size, dtype=dtype)
        return memory[:size].view(shape)


_workspace = _Workspace()


def _gathered(tiles: Tensor) -> Tensor:
    return _workspace.take("tiles", tiles.shape, tiles.dtype).copy_(tiles)


def _on_both_axes(matrix: Tensor, tiles: Tensor, name: _Name = "tiles") -> Tensor:
    """Transform tiles (n * n, ..., channels) along both their axes: (rows, rows, all the rest)."""
    rows, columns = matrix.shape
    flat = tiles.view(columns, -1)
    halfway = _workspace.take("halfway", (rows, flat.shape[1]), flat.dtype)
    torch.mm(matrix, flat, out=halfway)
    halfway = halfway.view(rows, columns, -1)
    result = _workspace.take(name, (rows, rows, halfway.shape[2]), flat.dtype)
    return torch.bmm(matrix.expand(rows, rows, columns), halfway, out=result)


def _products(left: Tensor, right: Tensor, name: _Name) -> Tensor:
    """Multiply matrices at every point."""
    out = _workspace.take(name, (len(left), left.shape[1], right.shape[2]), left.dtype)
    return torch.bmm(left, right, out=out)


class _Tiling:
    """The cuts of images (B, C, H, W): windows overlap by k - 1 pixels, output tiles do not."""

    def __init__(self, size: torch.Size, kernel: int, *, reflect: bool) -> None:
        self.images, _, self.height, self.width = size
        self.reflect = reflect
        self.side = _WINDOW + 1 - kernel
        self.out = self.height + 3 - kernel, self.width + 3 - kernel
        self.rows, self.cols = (-(-length // self.side) for length in self.out)

    def padded(self, x: Tensor) -> Tensor:
        """Pad images, and fill them up to whole tiles: (B, m R + k - 1, m S + k - 1, C)."""
        below, right = self._missing()
        border = 1
        if self.reflect:
            x, border = F.pad(x, (1, 1, 1, 1), mode="reflect"), 0
        x = F.pad(x, (border, border + right, border, border + below))
        return x.permute(0, 2, 3, 1).contiguous()

    def unpadded(self, gradient: Tensor) -> Tensor:
        """Return a gradient of the padded images as one of (B, C, H, W)."""
        gradient = gradient[:, : self.height + 2, : self.width + 2]
        if self.reflect:
            fold_reflection(gradient, (1, 2))
        return gradient[:, 1:-1, 1:-1].permute(0, 3, 1, 2)

    def whole_tiles(self, channels: int, dtype: torch.dtype) -> Tensor:
        """Return memory for the output, filled up to whole tiles: (B, channels, m R, m S)."""
        size = self.images, channels, self.rows * self.side, self.cols * self.side
        return torch.empty(size, dtype=dtype, memory_format=torch.channels_last)

    def filled(self, gradient: Tensor) -> Tensor:
        """Fill a gradient of the output with zeros to whole tiles."""
        below, right = self._missing()
        padded = F.pad(gradient, (0, right, 0, below))
        return padded.contiguous(memory_format=torch.channels_last)

    def as_tiles(self, y: Tensor) -> Tensor:
        """View (B, D, m R, m S), channels last, as (B, R, m, S, m, D)."""
        shape = self.images, self.rows, self.side, self.cols, self.side, y.shape[1]
        return y.permute(0, 2, 3, 1).view(shape)

    def cropped(self, y: Tensor) -> Tensor:
        """Return the output without its last tiles' fill; no view, so that layers may change it."""
        if self._missing() == (0, 0):
            return y
        height, width = self.out
        return y[:, :, :height, :width].contiguous(memory_format=torch.channels_last)

    def chunks(self) -> Iterator[slice]:
        """Yield the rows of tiles to be worked on at a time."""
        number = max(1, _TILES // (self.images * self.cols))
        return (slice(r, min(r + number, self.rows)) for r in range(0, self.rows, number))

    def spectrum(self, padded: Tensor, rows: slice, matrix: Tensor) -> Tensor:
        """Transform the windows of some rows: (P, T, C)."""
        part = padded[:, self.side * rows.start : self.side * (rows.stop - 1) + _WINDOW]
        windows = part.unfold(1, _WINDOW, self.side).unfold(2, _WINDOW, self.side)
        windows = windows.permute(4, 5, 0, 1, 2, 3)  # (6, 6, B, R, S, C)
        return _on_both_axes(matrix, _gathered(windows)).view(_WINDOW**2, -1, padded.shape[-1])

    def _missing(self) -> tuple[int, int]:
        return self.rows * self.side - self.out[0], self.cols * self.side - self.out[1]


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor]
    needs_input_grad: tuple[bool, bool, bool, bool]
    reflect: bool


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, bias: Tensor, reflect: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.reflect = reflect
        tiling = _Tiling(x.shape, weight.shape[-1], reflect=reflect)
        transforms = _transforms(weight.shape[-1], weight.dtype)
        kernels = _kernel_spectrum(weight)
        padded = tiling.padded(x)
        y = tiling.whole_tiles(len(weight), weight.dtype)
        into = tiling.as_tiles(y)
        for rows in tiling.chunks():
            spectrum = tiling.spectrum(padded, rows, transforms.window)
            product = _products(spectrum, kernels.mT, "product")  # (P, T, D)
            tiles = _on_both_axes(transforms.product, product).view(
                tiling.side, tiling.side, tiling.images, -1, tiling.cols, len(weight)
            )
            torch.add(tiles.permute(2, 3, 0, 4, 1, 5), bias, out=into[:, rows])
        return tiling.cropped(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        tiling = _Tiling(x.shape, weight.shape[-1], reflect=ctx.reflect)
        transforms = _transforms(weight.shape[-1], weight.dtype)
        adjoint = transforms.product.T.contiguous()
        to_input = _InputGradient(tiling, weight) if ctx.needs_input_grad[0] else None
        to_kernels: Tensor | None = None
        padded, tiles = tiling.padded(x), tiling.as_tiles(tiling.filled(gradient))
        for rows in tiling.chunks():
            flat = _gathered(tiles[:, rows].permute(2, 4, 0, 1, 3, 5))
            product = _on_both_axes(adjoint, flat, "product")
            product = product.view(_WINDOW**2, -1, len(weight))  # (P, T, D)
            if to_input is not None:
                to_input.add(rows, product)
            if ctx.needs_input_grad[1]:
                spectrum = tiling.spectrum(padded, rows, transforms.window)
                if to_kernels is None:
                    to_kernels = _products(product.mT, spectrum, "gradient")
                else:
                    to_kernels.baddbmm_(product.mT, spectrum)
        return (
            None if to_input is None else to_input.total(),
            None if to_kernels is None else _kernel_gradient(to_kernels, weight.shape),
            gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
            None,
        )


class _InputGradient:
    """The sum of the gradients of overlapping windows, which come one after the other."""

    def __init__(self, tiling: _Tiling, weight: Tensor) -> None:
        self._tiling, side = tiling, tiling.side
        self._kernels = _kernel_spectrum(weight)
        self._adjoint = _transforms(weight.shape[-1], weight.dtype).window.T.contiguous()
        channels = weight.shape[1]
        # A window reaches over its own tile into those below and on the right.
        self._sum = weight.new_zeros(
            tiling.images, tiling.rows + 1, side, tiling.cols + 1, side, channels
        )

    def add(self, rows: slice, product: Tensor) -> None:
        """Add up the windows of some rows, from the gradient of their products (P, T, D)."""
        tiling, side, over = self._tiling, self._tiling.side, _WINDOW - self._tiling.side
        spectrum = _products(product, self._kernels, "tiles")  # (P, T, C)
        windows = _on_both_axes(self._adjoint, spectrum).view(
            _WINDOW, _WINDOW, tiling.images, -1, tiling.cols, spectrum.shape[-1]
        )
        windows = windows.permute(2, 3, 0, 4, 1, 5)  # (B, R, 6, S, 6, C)
        below = slice(rows.start + 1, rows.stop + 1)
        self._sum[:, rows, :, :-1] += windows[:, :, :side, :, :side]
        self._sum[:, rows, :, 1:, :over] += windows[:, :, :side, :, side:]
        self._sum[:, below, :over, :-1] += windows[:, :, side:, :, :side]
        self._sum[:, below, :over, 1:, :over] += windows[:, :, side:, :, side:]

    def total(self) -> Tensor:
        """Return the gradient (B, C, H, W) of all windows."""
        return self._tiling.unpadded(self._sum.flatten(3, 4).flatten(1, 2))


def _kernel_spectrum(weight: Tensor) -> Tensor:
    """Transform kernels (D, C, k, k) to (P, D, C)."""
    matrix = _kernel_transform(weight.shape[-1], weight.dtype)
    pixels = weight.flatten(0, 1).flatten(1).T
    spectrum = _workspace.take("kernels", (_WINDOW**2, pixels.shape[1]), weight.dtype)
    return torch.mm(matrix, pixels, out=spectrum).view(-1, *weight.shape[:2])


def _kernel_gradient(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of a spectrum (P, D, C) as one of kernels (D, C, k, k)."""
    matrix = _kernel_transform(shape[-1], gradient.dtype)
    pixels = (matrix.T @ gradient.flatten(1)).T
    return pixels.contiguous().view(shape)


@lru_cache
def _kernel_transform(kernel: int, dtype: torch.dtype) -> Tensor:
    """Return the transform of kernels along both axes at once, (P, k * k)."""
    # At once, because kernels lie in memory with their pixels last.
    matrix = _transforms(kernel, torch.float64).kernel
    return torch.kron(matrix, matrix).to(dtype)

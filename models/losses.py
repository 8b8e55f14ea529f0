"""The losses of the paper, of CUT and of other papers' methods: pure functions of tensors.

Legend: B batch, C classes, H height, W width, P positions, D width of an embedding or a feature, R
labelled regions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.data.domain import IGNORE

_EPSILON = 1e-7  # Paul et al.'s: the least distance of a probability from 0 and 1


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """Return PatchNCE (Park et al. 2020, Eq. 3) at each position: (B, P) of unit vectors (B, P, D).

    The key at the query's own position is the positive; the other P - 1 keys of the same image are
    the negatives. No gradient reaches ``keys``.
    """
    similarity = queries @ keys.detach().transpose(1, 2) / temperature  # (B, P, P)
    own_position = torch.arange(queries.shape[1], device=queries.device)
    return F.cross_entropy(
        similarity.transpose(1, 2), own_position.expand(len(queries), -1), reduction="none"
    )


def lsgan(scores: Tensor, *, real: bool) -> Tensor:
    """Return the least-squares GAN loss () of a discriminator's map (Mao et al. 2017).

    It is the mean squared distance of ``scores`` to 1 if ``real``, else to 0.
    """
    return (full_precision(scores) - float(real)).square().mean()


def cross_entropy(logits: Tensor, labels: Tensor, num_known: Tensor | None = None) -> Tensor:
    """Return Eq. 1, as (): the mean cross-entropy over the pixels that have a class.

    ``logits`` is (B, C, H, W), ``labels`` int64 (B, H, W). If every pixel is ignored (255), the
    loss and its gradient are exactly zero. For a part of a larger batch, ``num_known`` () is the
    divisor in place of the number of pixels with a class. The paper also divides by C, which only
    rescales the learning rate and is left out.
    """
    total = F.cross_entropy(full_precision(logits), labels, ignore_index=IGNORE, reduction="sum")
    if num_known is None:
        num_known = (labels != IGNORE).sum()
    return total / num_known.clamp_min(1).to(total.dtype)


def soft_cross_entropy(logits: Tensor, probabilities: Tensor, num_known: Tensor) -> Tensor:
    """Return -sum p log softmax(logits) over all pixels and classes, divided by ``num_known`` ().

    ``logits`` and the labels p, ``probabilities``, are (B, C, H, W). A pixel whose p are all 0 has
    no part in the loss.
    """
    total = -(probabilities * full_precision(logits).log_softmax(1)).sum()
    return total / num_known.clamp_min(1).to(total.dtype)


def overlap(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sums of soft Dice (Milletari et al. 2016) over pixels with a class: (2, C).

    They are float64: the sum of p y, and the sum of p + y, where p is the probability of a class
    and y is 1 where the pixel has it, else 0. ``logits`` is (B, C, H, W), ``labels`` int64
    (B, H, W), 255 where there is no class. The sums of two batches add up to those of both.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    true = labels[:, None] == classes[:, None, None]  # (B, C, H, W)
    predicted = full_precision(logits).softmax(1) * (labels != IGNORE)[:, None]
    pixels = 0, 2, 3
    both = (predicted * true).sum(pixels, dtype=torch.float64)
    return torch.stack([both, predicted.sum(pixels, dtype=torch.float64) + true.sum(pixels)])


def soft_dice(overlaps: Tensor, smoothing: float) -> Tensor:
    """Return the soft Dice (C,) in (0, 1] of sums (2, C): (2 sum py + s) / (sum (p + y) + s).

    ``smoothing`` s > 0, in pixels, moves the ratio towards 1, most where a class has few pixels.
    """
    both, areas = overlaps[0], overlaps[1]
    return (2 * both + smoothing) / (areas + smoothing)


def reconstruction_error(
    reconstructed: Tensor, images: Tensor, inside: Tensor, num_inside: Tensor | None = None
) -> Tensor:
    """Return the mean squared error () of reconstructed images (Roels et al. 2019).

    Both are (B, 1, H, W), ``images`` in [0, 1]. The mean is over the pixels where ``inside``, bool
    (B, H, W), is True: padding has no part in the loss or its gradient. For a part of a larger
    batch, ``num_inside`` () is the divisor in place of the number of these pixels.
    """
    difference = full_precision(reconstructed) - images
    total = difference.masked_fill(~inside[:, None], 0).square().sum()
    if num_inside is None:
        num_inside = inside.sum()
    return total / num_inside.clamp_min(1).to(total.dtype)


def smooth_maximum(logits: Tensor, sizes: Tensor, smoothness: float) -> Tensor:
    """Return the probability (R, C) that each class is anywhere in a region (Paul et al. 2020).

    It is the sigmoid of (1/k) log mean exp(k logit) over the region's pixels, where k is
    ``smoothness``: near the mean logit for a small k, near the highest for a large one. The pixels
    of a position share its logits (R, P, C); ``sizes`` (R, P) counts them.
    """
    shares = sizes.log() - sizes.sum(1, keepdim=True).log()  # -inf where there is no position
    mean = (smoothness * full_precision(logits) + shares[..., None]).logsumexp(1)
    return (mean / smoothness).sigmoid()


def weak_label_loss(
    probabilities: Tensor, labels: Tensor, num_known: Tensor | None = None
) -> Tensor:
    """Return the binary cross-entropy () of image-level labels (Paul et al. 2020).

    ``probabilities`` is (R, C) in [0, 1], ``labels`` int64 (R, C): 0 absent, 1 present, -1 unknown.
    The mean is over the known labels; if there is none, the loss and its gradient are exactly zero.
    For a part of a larger batch, ``num_known`` () is the divisor in place of their number.
    """
    known, confined = labels >= 0, probabilities.clamp(_EPSILON, 1 - _EPSILON)
    present = labels.clamp_min(0).to(confined.dtype)
    errors = F.binary_cross_entropy(confined, present, reduction="none")
    total = errors.masked_fill(~known, 0).sum()
    if num_known is None:
        num_known = known.sum()
    return total / some(num_known).to(total.dtype)


def class_features(features: Tensor, logits: Tensor, sizes: Tensor) -> Tensor:
    """Return the feature (R, C, D) of each class in each region (Paul et al. 2020).

    It is the mean of ``features`` (R, P, D) over the region's pixels, weighted by the softmax of
    the class's ``logits`` (R, P, C) over these pixels. ``sizes`` (R, P) counts the pixels of a
    position. No gradient reaches ``logits``.
    """
    # n pixels of one logit count n times: exp(logit + log n) = n exp(logit).
    attention = (full_precision(logits).detach() + sizes.log()[..., None]).softmax(1)
    return attention.transpose(1, 2) @ full_precision(features)


def domain_loss(scores: Tensor, weights: Tensor, *, target: bool) -> Tensor:
    """Return the weighted sum () of the binary cross-entropy of a discriminator's logits.

    The right answer is 1 for the target and 0 for the source. ``weights`` has the shape of
    ``scores``; if all weights are 0, the loss and its gradient are 0.
    """
    wanted = torch.full_like(weights, float(target))
    return F.binary_cross_entropy_with_logits(
        full_precision(scores), wanted, weights, reduction="sum"
    )


def some(count: Tensor) -> Tensor:
    """Return ``count``, but 1 in place of 0, as a divisor."""
    # Not clamp_min(1): a count may be a mean over processes that lies between 0 and 1.
    return count + (count == 0)


def full_precision(x: Tensor) -> Tensor:
    """Return bfloat16 as float32 and wider types as they are: no loss is computed in bfloat16."""
    return x.float() if x.dtype == torch.bfloat16 else x

"""The losses of the paper and of CUT: pure functions of tensors.

Legend: B batch, C classes, H height, W width, P positions, D width of an embedding or a feature, R
labelled regions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.data.domain import IGNORE

_EPSILON = 1e-7  # Paul et al.'s: what a probability keeps from 0 and 1


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """PatchNCE (Park et al. 2020, Eq. 3) per position, (B, P), of unit vectors (B, P, D).

    The key at the query's own position is the positive, the other P - 1 keys of the same image are
    the negatives. No gradient reaches ``keys``.
    """
    similarity = queries @ keys.detach().transpose(1, 2) / temperature  # (B, P, P)
    own_position = torch.arange(queries.shape[1], device=queries.device)
    return F.cross_entropy(
        similarity.transpose(1, 2), own_position.expand(len(queries), -1), reduction="none"
    )


def lsgan(scores: Tensor, *, real: bool) -> Tensor:
    """Least-squares GAN: mean squared distance of a discriminator's map to 1 (real) or 0."""
    return (full_precision(scores) - float(real)).square().mean()


def cross_entropy(logits: Tensor, labels: Tensor, num_known: Tensor | None = None) -> Tensor:
    """Eq. 1 as the mean over pixels with a class, of (B, C, H, W) and int64 (B, H, W).

    Where every pixel is ignored (255) the loss and its gradient are exactly zero. ``num_known``
    divides in place of the number of pixels with a class, where these are part of a larger batch.
    The paper's further constant 1/C only rescales the learning rate and is left out.
    """
    total = F.cross_entropy(full_precision(logits), labels, ignore_index=IGNORE, reduction="sum")
    if num_known is None:
        num_known = (labels != IGNORE).sum()
    return total / num_known.clamp_min(1).to(total.dtype)


def reconstruction_error(
    reconstructed: Tensor, images: Tensor, inside: Tensor, num_inside: Tensor | None = None
) -> Tensor:
    """Mean squared error (Roels et al. 2019) of images (B, 1, H, W) in [0, 1], where ``inside``.

    ``inside`` is bool (B, H, W): padding has no part in the loss or its gradient. ``num_inside``
    divides in place of the number of these pixels, where they are part of a larger batch.
    """
    difference = full_precision(reconstructed) - images
    total = difference.masked_fill(~inside[:, None], 0).square().sum()
    if num_inside is None:
        num_inside = inside.sum()
    return total / num_inside.clamp_min(1).to(total.dtype)


def smooth_maximum(logits: Tensor, sizes: Tensor, smoothness: float) -> Tensor:
    """Return the probabilities (R, C) that a class is anywhere in a region (Paul et al. 2020).

    The sigmoid of (1/k) log mean exp(k logit), over pixels that share the logits (R, P, C) of their
    position; ``sizes`` (R, P) counts them. With k small that is the mean logit, with k large the
    highest.
    """
    shares = sizes.log() - sizes.sum(1, keepdim=True).log()  # -inf where there is no position
    mean = (smoothness * full_precision(logits) + shares[..., None]).logsumexp(1)
    return (mean / smoothness).sigmoid()


def weak_label_loss(
    probabilities: Tensor, labels: Tensor, num_known: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy (Paul et al. 2020), the mean over the labels that are 0 or 1, not -1.

    Of (R, C) and int64 (R, C). Where all are unknown the loss and its gradient are exactly zero.
    ``num_known`` divides in place of the number of known labels, where these are part of a larger
    batch.
    """
    known, confined = labels >= 0, probabilities.clamp(_EPSILON, 1 - _EPSILON)
    present = labels.clamp_min(0).to(confined.dtype)
    errors = F.binary_cross_entropy(confined, present, reduction="none")
    total = errors.masked_fill(~known, 0).sum()
    if num_known is None:
        num_known = known.sum()
    return total / some(num_known).to(total.dtype)


def class_features(features: Tensor, logits: Tensor, sizes: Tensor) -> Tensor:
    """Return each region's feature of each class (Paul et al. 2020): (R, C, D).

    It is the mean over the features (R, P, D) of the region's pixels, weighted by the softmax of
    the class's logits (R, P, C) over them; ``sizes`` (R, P) counts the pixels of a position. No
    gradient reaches ``logits``.
    """
    attention = (full_precision(logits).detach() + sizes.log()[..., None]).softmax(1)
    return attention.transpose(1, 2) @ full_precision(features)


def domain_loss(scores: Tensor, weights: Tensor, *, target: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's logits to 1 (target) or 0 (source), weighted.

    ``weights`` are of the shape of ``scores``; where all are 0, so are the loss and its gradient.
    """
    wanted = torch.full_like(weights, float(target))
    return F.binary_cross_entropy_with_logits(
        full_precision(scores), wanted, weights, reduction="sum"
    )


def some(count: Tensor) -> Tensor:
    """Return a number to divide by: 1 in place of 0.

    A count may be a mean below 1 over processes.
    """
    return count + (count == 0)


def full_precision(x: Tensor) -> Tensor:
    """bfloat16 as float32; wider types stay: losses are never computed in half precision."""
    return x.float() if x.dtype == torch.bfloat16 else x

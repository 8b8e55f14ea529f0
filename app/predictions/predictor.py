"""Loads trained models, keeps them, and runs one prediction at a time.

No other module of the app uses torch. The first prediction imports it, so that the service starts
without it.
"""

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.errors import Busy, Invalid, ServiceError
from app.settings import Settings

if TYPE_CHECKING:
    from models.inference import Prediction
    from models.inference import Predictor as Network

logger = logging.getLogger(__name__)

Array = NDArray[np.generic]


class ModelUnreadable(ServiceError):
    status, code = 503, "model_unreadable"


class DeviceMissing(ServiceError):
    status, code = 503, "device_unavailable"


class GpuMemory(ServiceError):
    status, code = 507, "gpu_oom"


@dataclass(frozen=True)
class Request:
    """Asks for the segmentation of an image.

    ``segmenter`` and ``style`` are folders of trained models. Without ``style`` the image is not
    stylised first. ``image`` is (H, W) uint8 or uint16, and
    ``intensity_window`` (low, high) holds its grey values that become 0 and 1. ``pixel_size_nm`` is
    that of both axes, or of y and x.
    """

    segmenter: Path
    style: Path | None
    image: Array
    pixel_size_nm: float | tuple[float, float]
    intensity_window: tuple[float, float]


class Predictor:
    """Runs predictions in one thread, with a bounded queue before it.

    More threads would only share the same cores or the same GPU.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._networks: OrderedDict[tuple[Path, Path | None], Network] = OrderedDict()
        self._waiting = 0
        self._lock = threading.Lock()

    def submit(self, request: Request) -> "Future[Prediction]":
        """Queue a prediction; Busy if the queue is full."""
        with self._lock:
            if self._waiting >= self._settings.predict_queue:
                message = (
                    f"{self._waiting} predictions are waiting already, and no more may wait: send "
                    "the request again in some seconds"
                )
                raise Busy(message, retry_after_seconds=5)
            self._waiting += 1
        # The copied context names the request in log lines.
        future = self._thread.submit(copy_context().run, self._predict, request)
        future.add_done_callback(self._left)
        return future

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _left(self, _future: "Future[Prediction]") -> None:
        with self._lock:
            self._waiting -= 1

    def _predict(self, request: Request) -> "Prediction":
        import torch

        from models.checkpoint import CheckpointError
        from models.training.device import DeviceUnavailable

        try:
            network = self._network(request.segmenter, request.style)
            return network.predict(
                request.image,
                request.pixel_size_nm,
                intensity_window=request.intensity_window,
                stylise=request.style is not None,
            )
        except CheckpointError as error:
            logger.error("model_unreadable error=%s", error)
            raise ModelUnreadable(
                "the service cannot read the model's weights, and its log holds the reason: ask "
                "the operator to restore the model's folder, or train the model again"
            ) from error
        except DeviceUnavailable as error:
            raise DeviceMissing(
                f"the service cannot predict on its device ({error}): ask the operator to set "
                "STYLEFILTER_PREDICT_DEVICE to cpu"
            ) from error
        except torch.OutOfMemoryError as error:
            self._evict(keep=0)
            raise GpuMemory(
                "the GPU has too little free memory for this image: send a smaller image, send it "
                "again when no job trains, or ask the operator to set STYLEFILTER_PREDICT_DEVICE "
                "to cpu"
            ) from error

    def _network(self, segmenter: Path, style: Path | None) -> "Network":
        key = (segmenter, style)
        if key not in self._networks:
            self._evict(keep=self._settings.predict_models - 1)
            self._networks[key] = self._load(segmenter, style)
        self._networks.move_to_end(key)
        return self._networks[key]

    def _evict(self, keep: int) -> None:
        import torch

        evicted = False
        while len(self._networks) > keep:
            self._networks.popitem(last=False)
            evicted = True
        if evicted and torch.cuda.is_available():
            torch.cuda.empty_cache()  # otherwise this process would keep it from the trainer

    def _load(self, segmenter: Path, style: Path | None) -> "Network":
        import torch

        from models.checkpoint import load_generator, load_segmenter
        from models.choice.views import applied
        from models.inference import Predictor as Network
        from models.inference import stylise
        from models.training.device import resolve

        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        device = resolve(self._settings.predict_device or self._settings.device)
        unet, meta = load_segmenter(segmenter, device)
        view = applied(meta.view)
        if style is None:
            return Network(unet, meta.working_nm, meta.crop_px, view=view)
        generator, style_meta = load_generator(style, device)
        if style_meta.working_nm != meta.working_nm:
            raise Invalid(
                f"the style model works at {style_meta.working_nm} nm per pixel and the model at "
                f"{meta.working_nm}: name a style model that works at the model's pixel size"
            )
        return Network(unet, meta.working_nm, meta.crop_px, partial(stylise, generator), view)

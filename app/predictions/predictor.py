"""The app's only door to torch: keeps trained models and runs them, one prediction at a time.

torch is imported by the first prediction, so that the service starts without it.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
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

Array = NDArray[np.generic]


class ModelUnreadable(ServiceError):
    status, code = 503, "model_unreadable"


class DeviceMissing(ServiceError):
    status, code = 503, "device_unavailable"


class GpuMemory(ServiceError):
    status, code = 507, "gpu_oom"


@dataclass(frozen=True)
class Request:
    """What to predict: folders of the networks, and the image as its domain stores it.

    ``image`` is (H, W) uint8 or uint16; without ``style`` it is segmented as it is.
    """

    segmenter: Path
    style: Path | None
    image: Array
    pixel_size_nm: float
    intensity_window: tuple[float, float]


class Predictor:
    """A bounded queue before one thread: more threads would only share the same cores or GPU."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._networks: OrderedDict[tuple[Path, Path | None], Network] = OrderedDict()
        self._waiting = 0
        self._lock = threading.Lock()

    def submit(self, request: Request) -> "Future[Prediction]":
        """Queue a prediction; Busy when the queue is full."""
        with self._lock:
            if self._waiting >= self._settings.predict_queue:
                message = f"{self._waiting} predictions are waiting already; try again soon"
                raise Busy(message, retry_after_seconds=5)
            self._waiting += 1
        future = self._thread.submit(self._predict, request)
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
            raise ModelUnreadable(f"the model's weights cannot be read: {error}") from error
        except DeviceUnavailable as error:
            raise DeviceMissing(f"predictions cannot run: {error}") from error
        except torch.OutOfMemoryError as error:
            self._evict(keep=0)
            raise GpuMemory(
                "the GPU's memory is too small now: predict a smaller image, try again when no job "
                "trains, or set STYLEFILTER_PREDICT_DEVICE to cpu"
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
            torch.cuda.empty_cache()  # else the memory stays this process's, not the trainer's

    def _load(self, segmenter: Path, style: Path | None) -> "Network":
        import torch

        from models.checkpoint import load_generator, load_segmenter
        from models.inference import Predictor as Network
        from models.inference import stylise
        from models.training.device import resolve

        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        device = resolve(self._settings.predict_device or self._settings.device)
        unet, meta = load_segmenter(segmenter, device)
        if style is None:
            return Network(unet, meta.working_nm, meta.crop_px)
        generator, style_meta = load_generator(style, device)
        if style_meta.working_nm != meta.working_nm:
            raise Invalid(
                f"the style model works at {style_meta.working_nm} nm per pixel, "
                f"the model at {meta.working_nm}"
            )
        return Network(unet, meta.working_nm, meta.crop_px, partial(stylise, generator))

"""Prediction over HTTP: stylise, then segment."""

import asyncio
import io
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import numpy as np
import tifffile
from fastapi import APIRouter, Form, Header, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.dependencies import Services, ServicesDep
from app.error_handlers import DISK_FULL, NO_DATABASE
from app.errors import NotAcceptable, TooLarge, UnsupportedMedia, refusal
from app.monitoring import PREDICT_SECONDS
from app.predictions.dependencies import PredictorDep
from app.predictions.predictor import Request
from app.registry import service as registry
from app.tables import Dataset, ModelKind, TrainedModel
from models.data.domain import working_shape
from models.data.images import decode_image, png_bytes
from models.data.readers.limits import ImageError

if TYPE_CHECKING:
    from models.inference import Prediction

router = APIRouter(tags=["predict"])

MEDIA_TYPES = ("image/png", "image/tiff", "application/x-npz")


class PredictForm(BaseModel):
    """The form of POST /predict."""

    model_config = ConfigDict(extra="forbid")

    image: UploadFile = Field(description="One grey image as PNG or TIFF, of 8 or 16 bit.")
    model: UUID = Field(description="The id of a trained model that segments.")
    stylise: bool = Field(
        True, description="`true` renders the image in the source's style before it is segmented."
    )
    style_model: UUID | None = Field(
        None,
        description="The id of the style model that renders. Without this field it is the one with "
        "which the model was adapted.",
    )
    dataset: UUID | None = Field(
        None,
        description="The id of a dataset from the same microscope, which gives the pixel size and "
        "the grey values of the image. Without this field it is the target that the models were "
        "trained for, or else the source.",
    )
    pixel_size_nm: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="The side of the image's pixels, in nanometres, if not the dataset's.",
    )


@router.post(
    "/predict",
    response_class=Response,
    responses=NO_DATABASE
    | DISK_FULL
    | {
        200: {
            "description": "The class id of each pixel, uint8, at the size of the image.",
            "content": {name: {} for name in MEDIA_TYPES},
        }
    },
)
async def predict(
    services: ServicesDep,
    predictor: PredictorDep,
    form: Annotated[PredictForm, Form()],
    accept: Annotated[
        str,
        Header(description="The format of the answer: image/png, image/tiff or application/x-npz."),
    ] = "image/png",
) -> Response:
    """Segment one image: render it in the source's style, unless told not to, then run the U-Net.

    PNG and TIFF hold the class id of each pixel. NPZ holds `mask`, `probabilities` (C, H, W)
    float16 and `class_names`.
    """
    started = perf_counter()
    media_type = _negotiated(accept)
    limit = services.settings.max_predict_bytes
    data = await form.image.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"the image has more than {limit} bytes")
    request, class_names = await run_in_threadpool(_request, services, form, data)
    prediction = await asyncio.wrap_future(predictor.submit(request))
    body = await run_in_threadpool(_encoded, prediction, class_names, media_type)
    PREDICT_SECONDS.labels(str(form.stylise).lower()).observe(perf_counter() - started)
    return Response(body, media_type=media_type)


def _negotiated(accept: str) -> str:
    """The first of ours that the header asks for; a wildcard means PNG."""
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in MEDIA_TYPES:
            return name
        if name in ("*/*", "image/*", ""):
            return "image/png"
    raise NotAcceptable(f"cannot answer with {accept}; ask for {', '.join(MEDIA_TYPES)}")


def _request(services: Services, form: PredictForm, data: bytes) -> tuple[Request, Sequence[str]]:
    with services.database.reading() as session:
        model = registry.get(session, form.model)
        if model.kind == ModelKind.STYLE:
            message = f"model {model.id} is a style model, which segments nothing: name another one"
            raise refusal("model", message)
        style = _style(session, model, form.style_model) if form.stylise else None
        imaged_like = _imaged_like(session, form.dataset, style or model)
    pixels = _decoded(data, services.settings.max_predict_pixels)
    if pixels.dtype.name != imaged_like.dtype:
        raise refusal(
            "image",
            f"the image has the dtype {pixels.dtype.name}, and dataset {imaged_like.name!r}, which "
            f"gives its grey window, has {imaged_like.dtype}: send an image of that dtype",
        )
    pixel_size_nm = form.pixel_size_nm or imaged_like.pixel_size_nm
    shape, working_nm = (pixels.shape[0], pixels.shape[1]), model.working_nm
    height, width = working_shape(shape, pixel_size_nm, working_nm)
    if height * width > services.settings.max_predict_pixels:
        raise refusal(
            "pixel_size_nm",
            f"the image has pixels of {pixel_size_nm:.9g} nm and the model works at "
            f"{working_nm:.9g} nm per pixel, so it would be resampled to {height} x {width} "
            f"px, more than the {services.settings.max_predict_pixels} pixels allowed: send "
            "a smaller piece",
        )
    request = Request(
        segmenter=services.storage.model(model.path),
        style=None if style is None else services.storage.model(style.path),
        image=pixels,
        pixel_size_nm=pixel_size_nm,
        intensity_window=(imaged_like.window_low, imaged_like.window_high),
    )
    return request, model.class_names


def _imaged_like(session: Session, dataset_id: UUID | None, model: TrainedModel) -> Dataset:
    if dataset_id is not None:
        return datasets.get(session, dataset_id)
    # The row of a deleted dataset stays, so that its models can still be used.
    return session.get_one(Dataset, model.target_id or model.source_id)


def _style(session: Session, model: TrainedModel, style_id: UUID | None) -> TrainedModel:
    chosen = style_id or model.style_model_id
    if chosen is None:
        raise refusal(
            "style_model",
            "the model was not adapted with a style model: name one, or set stylise to false",
        )
    style = registry.get(session, chosen)
    if style.kind != ModelKind.STYLE:
        raise refusal(
            "style_model",
            f"model {style.id} is of kind {style.kind}, and this field needs one of kind style",
        )
    return style


def _decoded(data: bytes, max_pixels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    try:
        return decode_image(data, max_pixels)
    except ImageError as error:
        raise UnsupportedMedia(f"the image {error}") from error


def _encoded(prediction: "Prediction", class_names: Sequence[str], media_type: str) -> bytes:
    if media_type == "image/png":
        return png_bytes(prediction.mask)
    buffer = io.BytesIO()
    if media_type == "image/tiff":
        tifffile.imwrite(buffer, prediction.mask, compression="zlib")
    else:
        np.savez_compressed(
            buffer,
            mask=prediction.mask,
            probabilities=prediction.probabilities.astype(np.float16),
            class_names=np.array(class_names),
        )
    return buffer.getvalue()

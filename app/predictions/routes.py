"""Prediction over HTTP: stylises an image, then segments it."""

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
from app.errors import NotAcceptable, TooLarge, UnsupportedMedia, refusal
from app.http.dependencies import Services, ServicesDep
from app.middleware.error_handlers import DISK_FULL, NO_DATABASE
from app.middleware.strict_route import FORM, StrictRoute
from app.monitoring.metrics import PREDICT_SECONDS
from app.predictions.dependencies import PredictorDep
from app.predictions.predictor import Request
from app.registry import service as registry
from app.tables import Dataset, ModelKind, TrainedModel
from models.data.domain import working_shape
from models.data.images import decode_image, png_bytes
from models.data.readers.limits import ImageError
from models.data.sections import Section
from models.data.splits import SectionName

if TYPE_CHECKING:
    from models.inference import Prediction

router = APIRouter(tags=["predict"], route_class=StrictRoute)

MEDIA_TYPES = ("image/png", "image/tiff", "application/x-npz")


class PredictForm(BaseModel):
    """The form of POST /predict."""

    model_config = ConfigDict(extra="forbid")

    image: UploadFile = Field(
        description="A file with one grey section, in any format that datasets may have: PNG, TIFF "
        "and others."
    )
    model: UUID = Field(
        description="The id of a trained model that segments: of kind `chosen`, `stylefilter`, "
        "`segmenter` or `baseline`."
    )
    stylise: bool | None = Field(
        None,
        description="`true` stylises the image before it is segmented; `false` segments it as it "
        "is. Without this field it is stylised if `style_model` names a style model, or if the "
        "model was adapted with one.",
    )
    style_model: UUID | None = Field(
        None,
        description="The id of the style model that stylises. Without this field it is the one "
        "with which the model was adapted.",
    )
    dataset: UUID | None = Field(
        None,
        description="The id of the dataset whose microscope made the image. It gives the pixel "
        "size and the grey values that become black and white. Without this field it is the target "
        "of the style model or, if nothing is stylised, of the model; for a model without a target "
        "it is its source.",
    )
    section: SectionName | None = Field(
        None,
        description="The name of the section of the dataset that the image is, or is a piece of. "
        "Where sections have grey values or a pixel size of their own, those of this section "
        "count. Without this field those of the whole dataset count, because a section's own grey "
        "values cannot be told from a piece of it.",
    )
    pixel_size_nm: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="The width of a pixel of the image, in nanometres. Without this field it is "
        "that of the section or dataset.",
    )


@router.post(
    "/predict",
    response_class=Response,
    responses=NO_DATABASE
    | DISK_FULL
    | {
        200: {
            "description": "The segmentation, with as many pixels as the image.",
            "content": {name: {} for name in MEDIA_TYPES},
        }
    },
)
async def predict(
    services: ServicesDep,
    predictor: PredictorDep,
    form: Annotated[PredictForm, Form(media_type=FORM)],
    accept: Annotated[
        str,
        Header(
            max_length=1000,
            description="The format of the answer: image/png, image/tiff or application/x-npz.",
        ),
    ] = "image/png",
) -> Response:
    """Segment one image.

    The image is first stylised if the model was adapted with a style model, unless `stylise` says
    otherwise. A PNG or TIFF holds the class id of each pixel, 8 bits each; a viewer shows such
    small numbers nearly black. An NPZ file of NumPy holds `mask` (the same ids), `probabilities`
    (classes, height, width) as float16, and `class_names`.
    """
    started = perf_counter()
    media_type = _negotiated(accept)
    limit = services.settings.max_predict_bytes
    if (form.image.size or 0) > limit:
        raise TooLarge(f"the image's file has more than {limit} bytes: send a smaller piece of it")
    request, class_names = await services.heavy.run(_request, services, form)
    prediction = await asyncio.wrap_future(predictor.submit(request))
    body = await run_in_threadpool(_encoded, prediction, class_names, media_type)
    PREDICT_SECONDS.labels(str(request.style is not None).lower()).observe(perf_counter() - started)
    return Response(body, media_type=media_type)


def _negotiated(accept: str) -> str:
    """Return the first media type in the header that can be sent; a wildcard means PNG."""
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in MEDIA_TYPES:
            return name
        if name in ("*/*", "image/*", ""):
            return "image/png"
    raise NotAcceptable(
        f"the service cannot send {accept}: ask for {', '.join(MEDIA_TYPES)} in the header Accept"
    )


def _request(services: Services, form: PredictForm) -> tuple[Request, Sequence[str]]:
    with services.database.reading() as session:
        model = registry.get(session, form.model)
        if model.kind == ModelKind.STYLE:
            message = (
                f"model {model.id} is of kind style and segments nothing: name a model of kind "
                "chosen, stylefilter, segmenter or baseline"
            )
            raise refusal("model", message)
        style = _style(session, model, form)
        imaged_like = _imaged_like(session, form.dataset, style or model)
        section = None if form.section is None else _section(imaged_like, form.section)
    # Read only now, so that no more images are in memory than are decoded at once.
    pixels = _decoded(form.image.file.read(), services.settings.max_predict_pixels)
    if pixels.dtype.name != imaged_like.dtype:
        raise refusal(
            "image",
            f"the image has the dtype {pixels.dtype.name}, but the grey values of dataset "
            f"{imaged_like.name!r}, which say what is black and white, have {imaged_like.dtype}: "
            "send an image of that dtype, or name another dataset",
        )
    own_nm = None if section is None else section.pixel_size_nm
    pixel_size_nm = form.pixel_size_nm or own_nm or imaged_like.pixel_size_nm
    own_window = None if section is None else section.intensity_window
    shape, working_nm = (pixels.shape[0], pixels.shape[1]), model.working_nm
    height, width = working_shape(shape, pixel_size_nm, working_nm)
    if height * width > services.settings.max_predict_pixels:
        raise refusal(
            "pixel_size_nm",
            f"the image has pixels of {_in_nm(pixel_size_nm)} and the model works at "
            f"{working_nm:.9g} nm per pixel, so the image would be resampled to {height} x {width} "
            f"px. The service allows {services.settings.max_predict_pixels} pixels: send a smaller "
            "piece of the image",
        )
    request = Request(
        segmenter=services.storage.model(model.path),
        style=None if style is None else services.storage.model(style.path),
        image=pixels,
        pixel_size_nm=pixel_size_nm,
        intensity_window=own_window or (imaged_like.window_low, imaged_like.window_high),
    )
    return request, model.class_names


def _imaged_like(session: Session, dataset_id: UUID | None, model: TrainedModel) -> Dataset:
    if dataset_id is not None:
        return datasets.get(session, dataset_id)
    # The row of a deleted dataset stays, so that models trained on it can still be used.
    return session.get_one(Dataset, model.target_id or model.source_id)


def _section(dataset: Dataset, name: str) -> Section:
    """Return the section of this name; Invalid if the dataset has none."""
    for section in dataset.sections:
        if section.name == name:
            return section
    raise refusal(
        "section",
        f"dataset {dataset.name!r} has no section {name!r}: GET /datasets/{dataset.id} lists its "
        "sections",
    )


def _in_nm(size: float | tuple[float, float]) -> str:
    sides = size if isinstance(size, tuple) else (size,)
    return f"{' x '.join(f'{side:.9g}' for side in sides)} nm"


def _style(session: Session, model: TrainedModel, form: PredictForm) -> TrainedModel | None:
    """Return the style model that stylises the image, if any does."""
    chosen = form.style_model or model.style_model_id
    if form.stylise is False or (form.stylise is None and chosen is None):
        return None
    if chosen is None:
        raise refusal(
            "style_model",
            f"model {model.id} was not adapted with a style model: name one, or set stylise to "
            "false",
        )
    style = registry.get(session, chosen)
    if style.kind != ModelKind.STYLE:
        raise refusal(
            "style_model",
            f"model {style.id} is of kind {style.kind}: name a model of kind style",
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

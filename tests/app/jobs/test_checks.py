"""Datasets and models that do not suit a job: the refusal names the field, and what is wrong."""

from uuid import UUID, uuid4

import httpx

from app.database import Database
from app.settings import Settings
from app.tables import Job, ModelKind
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, registered, tells, upload, wrong
from tests.app.jobs.requests import accepted, submit
from tests.app.records import add_job, add_model, config_with


def test_unknown_ids_name_the_field(
    api: httpx.Client, source: str, target: str, style: str, segmenter: str
) -> None:
    unknown = str(uuid4())
    for kind, field, body in (
        ("adapt", "source", {"source": unknown, "target": target}),
        ("adapt", "target", {"source": source, "target": unknown}),
        ("train-style", "target", {"source": source, "target": unknown}),
        ("pretrain", "source", {"source": unknown}),
        ("stylefilter", "style_model", {"style_model": unknown, "segmenter_model": segmenter}),
        ("stylefilter", "segmenter_model", {"style_model": style, "segmenter_model": unknown}),
        ("evaluate", "model", {"model": unknown, "dataset": target}),
        ("evaluate", "dataset", {"model": segmenter, "dataset": unknown}),
    ):
        errors = wrong(submit(api, kind, **body), 404)
        assert list(errors) == [f"body.{field}"], (kind, field)
        assert unknown in errors[f"body.{field}"]


def test_datasets_that_do_not_suit(api: httpx.Client, source: str, target: str) -> None:
    image, labels = {"o.png": png(grey(20))}, {"o.png": png(mask())}
    other = registered(upload(api, image, labels, class_names=["Mito", "background"]))["id"]
    held_out = registered(upload(api, image, labels, splits={"test": ["o"]}))["id"]
    coarse = registered(upload(api, image, pixel_size_nm=1e6))["id"]
    unmasked = {"body.source": ("mask", "train")}
    tells(wrong(submit(api, "adapt", source=target, target=source)), unmasked)
    tells(wrong(submit(api, "pretrain", source=target)), unmasked)
    for kind in ("adapt", "train-style"):
        unknown = wrong(submit(api, kind, source=source, target=other))
        tells(unknown, {"body.target": ("Mito, background", "background, organelle", "say what")})
        untrained = wrong(submit(api, kind, source=source, target=held_out))
        tells(untrained, {"body.target": ("train",)})
        huge = wrong(submit(api, kind, source=source, target=coarse))
        tells(huge, {"body.target": ("1000000 nm", "'o'", "5000000 x 7000000 px")})
    assert accepted(submit(api, "train-style", source=target, target=target))


def test_the_classes_of_a_target_may_have_other_names_and_another_order(
    api: httpx.Client, source: str, segmenter: str
) -> None:
    image, labels = {"o.png": png(grey(20))}, {"o.png": png(mask())}
    turned, other, fewer = (
        str(registered(upload(api, image, labels, class_names=list(names)))["id"])
        for names in (("organelle", "background"), ("Mito", "cell"), ("organelle", "cell"))
    )
    accepted(submit(api, "adapt", source=source, target=turned))
    scored = {"model": segmenter, "dataset": turned, "split": "train", "stylise": False}
    accepted(submit(api, "evaluate", **scored))
    meanings = {"Mito": "organelle", "cell": "background"}
    for kind in ("adapt", "train-style"):
        body = {"source": source, "target": other}
        accepted(submit(api, kind, **body, target_classes=meanings))
        wrongly = wrong(submit(api, kind, **body, target_classes={"Mito": "mitochondrion"}))
        tells(wrongly, {"body.target_classes": ("mitochondrion", "background, organelle")})
    body = {"source": source, "target": fewer, "target_classes": {"cell": "ignore"}}
    first, _ = api.post("/jobs/adapt", params={"dry_run": True}, json=body).json()["notes"]
    assert "background" in first


def test_sections_that_would_shrink_to_nothing_are_refused(api: httpx.Client, source: str) -> None:
    fine = registered(upload(api, {"f.png": png(grey(30))}, pixel_size_nm=0.02))["id"]
    answer = wrong(submit(api, "adapt", source=source, target=fine))
    tells(answer, {"body.target": ("1 x 1 px", "'f'", "pixel size")})
    tall = {"f": 1.0}
    sized = registered(upload(api, {"f.png": png(grey(31))}, pixel_sizes_nm=tall))["id"]
    answer = wrong(submit(api, "adapt", source=source, target=sized))
    tells(answer, {"body.target": ("5 x 7 px", "'f'", "pixel size")})


def test_models_that_do_not_suit(
    api: httpx.Client, database: Database, source: str, target: str, style: str, segmenter: str
) -> None:
    elsewhere = str(add_model(database, add_job(database, target), target))
    finer = str(
        add_model(
            database,
            add_job(database, source),
            source,
            config=config_with(pixel_size_factor=0.5),
        )
    )

    def refusal(style_model: str, segmenter_model: str) -> dict[str, str]:
        body = {"style_model": style_model, "segmenter_model": segmenter_model}
        return wrong(submit(api, "stylefilter", **body))

    tells(refusal(segmenter, segmenter), {"body.style_model": ("kind segmenter",)})
    tells(refusal(style, style), {"body.segmenter_model": ("kind style",)})
    tells(refusal(style, elsewhere), {"body.segmenter_model": ("source",)})
    tells(refusal(style, finer), {"body.segmenter_model": ("pixel size",)})
    api.delete(f"/datasets/{target}")
    gone = {"style_model": style, "segmenter_model": segmenter}
    assert list(wrong(submit(api, "stylefilter", **gone), 404)) == ["body.target"]


def test_evaluations_that_cannot_be(
    api: httpx.Client, database: Database, source: str, style: str, segmenter: str
) -> None:
    body = {"model": segmenter, "dataset": source, "split": "train", "stylise": False}
    no_masks = wrong(submit(api, "evaluate", **body | {"split": "test"}))
    tells(no_masks, {"body.dataset": ("mask", "test")})
    tells(wrong(submit(api, "evaluate", **body | {"model": style})), {"body.model": ("style",)})
    assert list(wrong(submit(api, "evaluate", **body | {"stylise": True}))) == ["body.style_model"]
    for given, stylise in (({}, False), ({"style_model": style}, True)):
        bare = {name: value for name, value in body.items() if name != "stylise"}
        job = accepted(submit(api, "evaluate", **bare, **given))
        with database.reading() as session:
            assert session.get_one(Job, UUID(job["id"])).stylise is stylise
    not_style = body | {"stylise": True, "style_model": segmenter}
    tells(wrong(submit(api, "evaluate", **not_style)), {"body.style_model": ("kind segmenter",)})
    coarse = add_model(
        database,
        add_job(database, source),
        source,
        kind=ModelKind.STYLE,
        config=config_with(pixel_size_factor=4.0),
    )
    other_scale = body | {"stylise": True, "style_model": str(coarse)}
    tells(wrong(submit(api, "evaluate", **other_scale)), {"body.style_model": ("16 nm", 4)})
    accepted(submit(api, "evaluate", **body | {"stylise": True, "style_model": style}))


def test_an_evaluation_compares_pixel_sizes_not_factors(
    api: httpx.Client, database: Database, source: str, segmenter: str
) -> None:
    """Two style models of a source with pixels twice as fine as the segmenter's 4 nm."""
    image, labels = {"f.png": png(grey(3))}, {"f.png": png(mask())}
    fine = str(registered(upload(api, image, labels, pixel_size_nm=2.0))["id"])
    same_factor, same_nm = (
        str(
            add_model(
                database,
                add_job(database, fine),
                fine,
                kind=ModelKind.STYLE,
                config=config_with(pixel_size_factor=factor),
            )
        )
        for factor in (1.0, 2.0)
    )
    body = {"model": segmenter, "dataset": source, "split": "train"}
    refused = wrong(submit(api, "evaluate", **body, style_model=same_factor))
    tells(refused, {"body.style_model": ("2 nm", 4)})
    accepted(submit(api, "evaluate", **body, style_model=same_nm))


def test_no_section_may_be_resampled_to_more_pixels_than_the_limit(
    settings: Settings, serve: Serve, database: Database, source: str, target: str
) -> None:
    """Sections of 40 x 56 pixels, as they are and four times as fine."""
    api = serve(settings.model_copy(update={"max_section_pixels": 5000}))
    told = ("4 nm", "1 nm per pixel", "'0'", "160 x 224 px", "5000 pixels")
    fine = {"pixel_size_factor": 0.25}
    for kind, body in (
        ("pretrain", {"source": source}),
        ("adapt", {"source": source, "target": target}),
        ("train-style", {"source": source, "target": target}),
    ):
        tells(wrong(submit(api, kind, **body, config=fine)), {"body.source": told})
        accepted(submit(api, kind, **body, config={"pixel_size_factor": 1.0}))
    model = add_model(database, add_job(database, source), source, config=config_with(**fine))
    body = {"model": str(model), "dataset": source, "split": "train", "stylise": False}
    tells(wrong(submit(api, "evaluate", **body)), {"body.dataset": told})
    # A coarse target fits once both domains are seen at a coarser size.
    image = {"c.png": png(grey(4))}
    coarse = registered(upload(api, image, pixel_size_nm=8.0))["id"]
    pair = {"source": source, "target": coarse}
    assert list(wrong(submit(api, "adapt", **pair, config={"pixel_size_factor": 1.0}))) == [
        "body.target"
    ]
    accepted(submit(api, "adapt", **pair, config={"pixel_size_factor": 2.0}))


def test_masked_sections_that_a_target_lacks_are_refused(
    api: httpx.Client, source: str, target: str
) -> None:
    for wanted, words in ((1, ("1 masked", "0 training")), (["o"], ("'o'", "none"))):
        config = {"rounds": {"masked_sections": wanted}}
        refused = wrong(submit(api, "adapt", source=source, target=target, config=config))
        tells(refused, {"body.config.rounds.masked_sections": words})
    config = {"rounds": {"masked_sections": 1}}
    assert accepted(submit(api, "adapt", source=source, target=source, config=config))

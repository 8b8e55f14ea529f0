"""Hands the predictor to the routes that predict."""

from typing import Annotated, cast

from fastapi import Depends, Request

from app.predictions.predictor import Predictor


def get_predictor(request: Request) -> Predictor:
    return cast(Predictor, request.app.state.predictor)


PredictorDep = Annotated[Predictor, Depends(get_predictor)]

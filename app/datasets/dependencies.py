"""Hands the thread that completes deletions to the routes of datasets."""

from typing import Annotated, cast

from fastapi import Depends, Request

from app.datasets.leftovers import Remover


def get_remover(request: Request) -> Remover:
    return cast(Remover, request.app.state.remover)


RemoverDep = Annotated[Remover, Depends(get_remover)]

"""The part of the client that asks what to do next: for tiles, sources and probes."""

from uuid import UUID

from app.client.connection import Connection
from app.jobs.request_schemas import ProbeRequest
from app.jobs.schemas import JobRead
from app.probes.schemas import NextTiles, SuggestedSources


class Advice:
    """Asks a service what to label next, and which source suits a target."""

    _http: Connection

    def submit_probe(self, request: ProbeRequest) -> JobRead:
        """Store a job that asks trained models about a target, and return it."""
        body = request.model_dump(mode="json", exclude_unset=True)
        return self._http.read(JobRead, "POST", "/jobs/probe", json=body)

    def next_tiles(self, dataset: UUID, limit: int = 16) -> NextTiles:
        """Return the tiles to label next, and whether more labels are worth it."""
        params = {"limit": limit}
        return self._http.read(NextTiles, "GET", f"/datasets/{dataset}/next-tiles", params=params)

    def suggested_sources(self, dataset: UUID, limit: int = 100) -> SuggestedSources:
        """Return sources and models for a target, best first."""
        path = f"/datasets/{dataset}/suggested-sources"
        return self._http.read(SuggestedSources, "GET", path, params={"limit": limit})

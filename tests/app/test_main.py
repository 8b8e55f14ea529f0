"""The service as it starts."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.processes
def test_the_service_starts_and_answers_without_torch(
    tmp_path: Path, sqlite_template: Path
) -> None:
    script = """
import asyncio, sys, httpx
from app.main import create_app

async def main():
    app = create_app()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in ("/readyz", "/metrics", "/openapi.json", "/datasets", "/docs"):
                assert (await client.get(path)).status_code == 200, path
    assert "torch" not in sys.modules

asyncio.run(main())
"""
    environment = {
        "STYLEFILTER_DATA_FOLDER": str(tmp_path),
        "STYLEFILTER_DATABASE_URL": f"sqlite:///{sqlite_template}",
        "PATH": "",
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

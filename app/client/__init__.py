"""The client of the HTTP API; importing it loads no FastAPI and no Celery."""

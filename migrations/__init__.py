"""Alembic migrations of app.tables."""

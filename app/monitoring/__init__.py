"""Tells whether the service is alive and ready, and counts what it does."""

"""What Prometheus gets of a service."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def samples(api: httpx.Client) -> dict[tuple[str, str], float]:
    """Metrics as {(name, sorted label values): value}."""
    response = api.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, " ".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }

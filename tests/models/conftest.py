import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and wait long for each other on shared cores."""
    torch.set_num_threads(1)

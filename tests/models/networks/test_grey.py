"""The grey scale of the networks."""

import numpy as np

from models.networks.grey import from_network, to_network


def test_black_grey_and_white_there_and_back() -> None:
    image = np.array([[0, 0.5, 1]], np.float32)
    assert to_network(image).tolist() == [[-1, 0, 1]]
    assert from_network(to_network(image)).tolist() == image.tolist()
    assert to_network(image).dtype == from_network(image).dtype == np.float32

"""Boxes of an array, and the chunks that they touch."""

from models.data.readers.boxes import overlap, touched


def test_where_boxes_and_chunks_meet() -> None:
    assert list(touched(slice(5, 15), 7)) == [0, 1, 2]
    assert list(touched(slice(7, 7), 7)) == []
    assert overlap((1, 0), (7, 4), (slice(5, 15), slice(1, 3))) == (
        (slice(0, 7), slice(1, 3)),
        (slice(2, 9), slice(0, 2)),
    )

"""Refusals: what they tell, and that they stay short."""

from app.errors import MOST_ERRORS, Invalid, ProblemItem, invalid_fields


def test_at_most_a_hundred_errors_are_told() -> None:
    items = [ProblemItem(where=str(n), message="wrong") for n in range(MOST_ERRORS + 23)]
    refused = Invalid("many", items)
    assert refused.errors == items[:MOST_ERRORS] == items[:100]
    assert "23 more" in refused.detail
    all_told = Invalid("many", items[:MOST_ERRORS])
    assert (all_told.errors, all_told.detail) == (items[:MOST_ERRORS], "many")


def test_long_names_and_values_are_shortened() -> None:
    long = "x" * 1_000_000
    refused = Invalid(f"no {long}", [ProblemItem(where=f"body.{long}", message=f"no {long}")])
    (item,) = refused.errors
    assert refused.detail.startswith("no xxx")
    assert len(refused.detail) == 2000
    assert (len(item.where), len(item.message)) == (300, 1000)
    assert all(text.endswith("x...") for text in (refused.detail, item.where, item.message))


def test_fields_are_counted_and_the_first_is_told() -> None:
    errors = [{"loc": ("sizes", n), "msg": "Value error, is odd"} for n in range(120)]
    refused = invalid_fields(errors, "body")
    assert refused.detail.startswith("120 fields")
    assert "body.sizes.0: is odd" in refused.detail
    assert refused.errors[99] == ProblemItem(where="body.sizes.99", message="is odd")
    assert len(refused.errors) == 100

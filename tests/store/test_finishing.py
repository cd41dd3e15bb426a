"""The arithmetic of a finished row, without a database."""

from decimal import Decimal

from app.call.disposition import Usage
from app.settings import Price
from app.store.finishing import cost, nearest_rank, price_of, tokens_in, tokens_out

PRICE = Price(text_in=4, text_cached=0.4, text_out=24, audio_in=32, audio_cached=0.4, audio_out=64)


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed():
    assert nearest_rank([], 50) is None
    assert nearest_rank([700], 50) == nearest_rank([700], 95) == 700
    assert nearest_rank([30, 10, 20, 40], 50) == 20
    assert nearest_rank(list(range(1, 101)), 95) == 95
    assert nearest_rank(list(range(1, 22)), 95) == 20
    assert nearest_rank([5, 1], 1) == 1
    assert nearest_rank([5, 1], 100) == 5


def test_cached_tokens_cost_the_cached_price_and_are_counted_once():
    usage = Usage(
        text_in=1_000_000, text_cached=250_000, audio_in=2_000_000, audio_cached=500_000, text_out=10_000, audio_out=20_000
    )
    assert cost(usage, PRICE, None) == Decimal("3") + Decimal("0.1") + Decimal("48") + Decimal("0.2") + Decimal("0.24") + Decimal(
        "1.28"
    )
    assert tokens_in(usage) == 3_000_000
    assert tokens_out(usage) == 30_000


def test_transcription_is_paid_by_the_minute():
    assert cost(Usage(transcription_seconds=90.0), PRICE, 0.0045) == Decimal("0.006750")


def test_a_cost_of_which_a_part_has_no_price_is_unknown():
    assert cost(Usage(text_in=1), None, 0.0045) is None
    assert cost(Usage(text_in=1, transcription_seconds=1.0), PRICE, None) is None


def test_a_call_that_used_nothing_costs_nothing_whatever_the_prices():
    assert cost(Usage(), None, None) == 0


def test_a_dated_snapshot_costs_what_its_name_costs_and_a_smaller_model_does_not():
    prices = {"gpt-realtime-2": PRICE, "gpt-realtime-2.1": PRICE.model_copy(update={"text_in": 5})}
    assert price_of("gpt-realtime-2.1-2026-11-20", prices) is prices["gpt-realtime-2.1"]
    assert price_of("gpt-realtime-2", prices) is prices["gpt-realtime-2"]
    assert price_of("gpt-realtime-2-mini", prices) is None
    assert price_of(None, prices) is None

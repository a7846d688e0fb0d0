"""Long streams and many switches hold their memory and their answers; `tests.benchmarks.load` does it at full size."""

from tests.benchmarks.load import stream_day, switch_adapters


def test_a_long_stream_answers_its_end_as_a_fresh_one_and_holds_its_memory() -> None:
    found = stream_day(100.0, hours=6, hour_s=240)
    assert found.windows == 6 * 240 // 3 - 2
    assert found.compared > 50
    assert found.same_labels
    assert found.difference < 1e-6 < 1e-3 * found.spread
    assert found.growth < 8


def test_many_switches_answer_as_each_adapter_alone_and_hold_the_memory() -> None:
    found = switch_adapters(1000, checked_every=10)
    assert (found.checks, found.wrong) == (100, 0)
    assert found.growth < 8

import threading
import time

import pytest

from latentc.validation.workers import each, workers_for


def test_small_pictures_go_side_by_side_large_ones_alone() -> None:
    assert workers_for(64, 64, 2) == 2
    assert workers_for(256, 256, 3) == 3
    assert workers_for(512, 512, 8) == 1
    assert workers_for(64, 64, 0) >= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_results_in_order_and_progress_from_the_caller(workers: int) -> None:
    told: list[tuple[float, str]] = []
    threads = set()

    def progress(fraction: float, what: str) -> None:
        told.append((fraction, what))
        threads.add(threading.current_thread())

    def work(number: int) -> int:
        time.sleep(0.01 * (3 - number))  # the first takes longest
        return number * number

    assert each(range(4), work, workers, progress, "working") == [0, 1, 4, 9]
    assert threads == {threading.current_thread()}
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_ends_it(workers: int) -> None:
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("zero")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="zero"):
        each(range(100), work, workers, lambda fraction, what: None, "working")
    assert len(begun) < 50

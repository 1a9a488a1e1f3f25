from tests.bench.step_speed import FLOAT, Measured, table


def test_ratios_are_paired_by_round() -> None:
    slow_round = (Measured(4, 8, 1, 5, 0), Measured(1, 2, 0.5, 1, 0.05))
    quiet_round = (Measured(2, 4, 1, 5, 0), Measured(1, 2, 0.25, 2, 0.05))
    rows = {FLOAT: [slow_round[0], quiet_round[0]], "ours": [slow_round[1], quiet_round[1]]}
    lines = table(rows, {FLOAT: 3_000_000, "ours": 1_000_000})
    assert lines[2] == f"| {FLOAT} | 3.00 | 6.00 | 1.00 | 1.00 | 1.00 | 5.00 | 3 | 0.000 |"
    # 4 and 2 times as fast: the median of the ratios, not the ratio of the medians
    assert lines[3] == "| ours | 1.00 | 2.00 | 3.00 | 3.00 | 0.38 | 2.00 | 1 | 0.050 |"

from latentc.validation.metric import METRICS, Direction, Level, metrics_of


def test_names_are_unique_on_a_rung() -> None:
    for level in Level:
        names = [metric.name for metric in metrics_of(level)]
        assert sorted(set(names)) == sorted(names)


def test_every_metric_has_slack_against_a_baseline_or_a_guard() -> None:
    without = [m.name for m in METRICS if not (m.slack > 0 or m.slack_share > 0 or m.guard is not None)]
    assert without == []


def test_what_is_measured_in_db_is_better_when_it_rises() -> None:
    assert {metric.direction for metric in METRICS if metric.unit == "dB"} == {Direction.AT_LEAST}

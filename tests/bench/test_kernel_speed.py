import pytest
from tests.bench.kernel_speed import Form, attentions, convolutions, group_norms, linears


@pytest.mark.parametrize(
    "forms",
    [convolutions(8, 16, 4)[1], linears(4, 128, 16)[1], attentions(2, 6, 8)[1], group_norms(32, 4)[1]],
    ids=["convolutions", "linears", "attentions", "group_norms"],
)
def test_every_form_runs(forms: list[Form]) -> None:
    assert all(form.seconds() > 0 for form in forms)

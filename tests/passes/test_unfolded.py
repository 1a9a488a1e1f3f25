import numpy as np
import onnx_ir as ir
import pytest

from latentc.passes.unfolded import Window, matrix_of, window_of

KERNEL = (8, 4, 3, 3)


def convolution(**attributes: int | str | list[int]) -> ir.Node:
    return ir.node("Conv", [ir.Value(name="x"), ir.Value(name="w")], attributes=attributes)


def test_the_window_of_a_convolution() -> None:
    found = window_of(convolution(pads=[0, 1, 2, 3], strides=[2, 1]), KERNEL)
    assert found == Window((3, 3), (2, 1), (0, 1, 2, 3))
    assert window_of(convolution(), (8, 4, 1, 1)) == Window((1, 1), (1, 1), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("attributes", "shape", "why"),
    [
        ({"group": 4}, KERNEL, "convolves groups of channels"),
        ({"dilations": [2, 2]}, KERNEL, "has a dilated kernel"),
        ({"auto_pad": "SAME_UPPER"}, KERNEL, "leaves its padding to the runtime"),
        ({}, (8, 4, 3), "is no convolution of pictures"),
    ],
)
def test_what_has_no_window(
    attributes: dict[str, int | str | list[int]], shape: tuple[int, ...], why: str
) -> None:
    assert window_of(convolution(**attributes), shape) == why


def test_a_kernel_as_matrix_has_channels_innermost() -> None:
    kernel = np.arange(8 * 4 * 9).reshape(KERNEL)
    matrix = matrix_of(kernel)
    assert matrix.shape == (36, 8)
    np.testing.assert_array_equal(matrix[4:8, 5], kernel[5, :, 0, 1])

"""A peer's quantized form of a denoiser: ``step_peer.py FOLDER KIND``, in an environment that has the peer.

``nbits`` and ``dynamic`` are onnxruntime's own quantizers, ``olive`` is Olive's OnnxBlockWiseRtnQuantization,
``openvino`` NNCF's post-training INT8 of all products, from two samples.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Write FOLDER/KIND from FOLDER/float."""
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    source, out = folder / "float" / "model.onnx", folder / kind
    out.mkdir(exist_ok=True)
    if kind == "nbits":
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            onnx.load(source), block_size=128, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(out / "model.onnx"), True)
    elif kind == "olive":
        from olive.hardware.accelerator import DEFAULT_CPU_ACCELERATOR
        from olive.model import ONNXModelHandler
        from olive.passes.olive_pass import create_pass_from_dict
        from olive.passes.onnx.rtn_quantization import OnnxBlockWiseRtnQuantization

        options = {"bits": 4, "block_size": 128, "is_symmetric": True, "accuracy_level": 4}
        step = create_pass_from_dict(
            OnnxBlockWiseRtnQuantization,
            {**options, "save_as_external_data": True},
            disable_search=True,
            accelerator_spec=DEFAULT_CPU_ACCELERATOR,
        )
        step.run(ONNXModelHandler(str(source)), str(out / "model.onnx"))
    elif kind == "dynamic":
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            source,
            out / "model.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            # inner values have no types in our graphs
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    else:
        import nncf
        import openvino

        model = openvino.Core().read_model(source)
        inputs = dict(np.load(folder / "inputs.npz"))
        quantized = nncf.quantize(
            model,
            nncf.Dataset([inputs, inputs]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=2,
        )
        openvino.save_model(quantized, out / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()

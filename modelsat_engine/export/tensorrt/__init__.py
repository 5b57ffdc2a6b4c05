"""TensorRT engines of a router: from its ONNX graph to a file that says what it was built from and for which GPU.

`run.py` is the whole way; `network.py` and `plugins/` are the only modules here that import TensorRT.
"""

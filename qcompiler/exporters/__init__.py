"""Graphs of any stage as ONNX: float stages as they are, integer ones in QDQ form."""

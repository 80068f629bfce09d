"""Networks of encoders in torch and ONNX Runtime: loading, export, identity."""

"""From an adapted model to a phone: merged ONNX, checked for parity, with a manifest."""

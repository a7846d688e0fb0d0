"""Writes minirocket.json: what aeon's MiniRocket (1.6.0) answers for a few windows, and the parameters it drew.

Run in an environment of its own: `pip install aeon==1.6.0`, then `python minirocket.py`.
"""

import json
from pathlib import Path

import numpy as np
from aeon.transformations.collection.convolution_based import MiniRocket


def main() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4, 50)).round(4)
    made = MiniRocket(n_kernels=252, random_state=0).fit(x[:3])
    sizes, channels, dilations, counts, biases = made.parameters
    values = {
        "x": x.tolist(),
        "channels_per_combination": sizes.tolist(),
        "channels": channels.tolist(),
        "dilations": dilations.tolist(),
        "biases_per_dilation": counts.tolist(),
        "biases": [float(f"{bias:.9g}") for bias in biases],
        "features": np.asarray(made.transform(x)).astype(float).round(6).tolist(),
    }
    (Path(__file__).parent / "minirocket.json").write_text(json.dumps(values) + "\n")


main()

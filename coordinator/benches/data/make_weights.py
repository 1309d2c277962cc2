"""Writes weights.txt and checks.txt: the random weights of the landscapes `pair` and `age`, and values to check against.

The weights come from numpy's generator, which the Rust benchmark cannot reproduce. Run with numpy 2:

    python3 make_weights.py
"""
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
STEPS, SLOTS = 60, 28
CELLS = STEPS * SLOTS

pair_rng = np.random.default_rng(12345)
cell = pair_rng.gamma(2.0, 1.0, CELLS)
neighbour = pair_rng.gamma(2.0, 1.0, CELLS - 1)
age_rng = np.random.default_rng(99)
sensitivity = age_rng.lognormal(0, 0.8, SLOTS)
step_weight = 0.3 + age_rng.gamma(2, 0.5, STEPS)


def pair(bits):
    cached = 1.0 - bits
    cost = (cached * cell).sum() + (cached[:-1] * cached[1:] * neighbour).sum()
    return np.tanh(3.0 * cost / (cell.sum() + neighbour.sum()))


def age(bits):
    since, accumulated = np.zeros(SLOTS), 0.0
    for row, weight in zip(bits.reshape(STEPS, SLOTS), step_weight):
        since = np.where(row > 0, 0.0, since + 1.0)
        error = np.sqrt(((sensitivity * since**1.3) ** 2).sum())
        accumulated = accumulated * (1 + 0.02 * np.tanh(error / 20)) + weight * error
    return 1 - np.exp(-accumulated / 2500.0)


with open(HERE / "weights.txt", "w") as out:
    for name, values in [("pair.cell", cell), ("pair.neighbour", neighbour),
                         ("age.sensitivity", sensitivity), ("age.step_weight", step_weight)]:
        out.write(f"# {name} {len(values)}\n")
        out.writelines(f"{float(v)!r}\n" for v in values)

# One line per schedule: the bits as hexadecimal digits, step-major, 1 = compute; then share, pair, age.
draw = np.random.default_rng(7)
with open(HERE / "checks.txt", "w") as out:
    for share in (0.05, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95):
        bits = (draw.random(CELLS) < share).astype(float)
        bits[:SLOTS] = 1.0
        digits = "".join(f"{int(''.join(str(int(b)) for b in bits[i:i + 4]), 2):x}" for i in range(0, CELLS, 4))
        out.write(f"{digits} {float(bits.mean())!r} {float(pair(bits))!r} {float(age(bits))!r}\n")

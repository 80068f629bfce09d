# %% [markdown]
# # Routing on your own logs
#
# You have a table with prompts, and whether a small and a large model answered each of them rightly. Which prompts can
# the small model take, and what can be promised? Here the table is made up; yours comes from `pd.read_csv`.

# %%
import numpy as np
import pandas as pd

import kcm

rng = np.random.default_rng(0)
steps = rng.integers(1, 7, 6000)  # a question of one step is easy, one of six is not
logs = pd.DataFrame(
    {
        "prompt": [
            "Compute " + " then ".join(f"add {number}" for number in rng.integers(10, 99, count)) for count in steps
        ],
        "small_right": (rng.random(6000) < 1.03 - 0.12 * steps).astype(int),
        "large_right": (rng.random(6000) < 0.96).astype(int),
        "large_cost": 0.002 * steps,
    }
)

# %% [markdown]
# The router is fitted on 40% of the rows, by content. It reads the text alone: with an encoder in `assets`, leave
# `"none"` out.

# %%
columns = {"small_correct": "small_right", "large_correct": "large_right", "large_cost": "large_cost"}
router = kcm.Router("none").fit(logs, text="prompt", **columns)

# %% [markdown]
# Another 40% certify it: with probability 90%, routing loses at most three points of accuracy against asking the large
# model every time.

# %%
certificate = router.certify(logs, epsilon=0.03)
print(certificate["reason"])
calls, loss = 100 * certificate["call_rate"], 100 * certificate["bound"]
print(f"calls of the large model: {calls:.0f}%, loss at most {loss:.1f} points")

# %% [markdown]
# New prompts are routed by the certified threshold.

# %%
new = pd.DataFrame({"prompt": ["Compute add 12", "Compute " + " then ".join(f"add {n}" for n in range(20, 26))]})
routes = router.predict(new)
print(dict(zip(new["prompt"], routes, strict=True)))

assert certificate["valid"]
assert certificate["decision"] == "threshold"
assert routes.tolist() == ["small", "large"]

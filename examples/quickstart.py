# %% [markdown]
# # Quick start
#
# A run makes a cascade of a small and a large model: it learns, searches, certifies and registers. The demo takes ten
# minutes; `kcm init TABLE.csv` writes a configuration for rows of your own.

# %%
import os

import mlflow
import pandas as pd

import kcm

config = os.environ.get("KCM_EXAMPLE_CONFIG", "jobs/configs/reviews.yaml")
result = kcm.run(config)
print(result["certificate"]["reason"])

# %% [markdown]
# The champion is in the registry. Load it by its name, and ask it.

# %%
mlflow.set_tracking_uri(result["mlflow"]["tracking_uri"])
cascade = kcm.load(f"models:/{result['mlflow']['model']}@champion")
answers = cascade.predict(["A delight from start to end.", "It has its moments.", "Two hours of my life."])
for answer in answers:
    print(answer.label, answer.route, f"{answer.confidence:.2f}")

# %% [markdown]
# A frame comes back with the answers beside its columns; in a notebook, an explanation shows the words that mattered.

# %%
frame = cascade.predict(pd.DataFrame({"text": ["A delight from start to end.", "Dull."]}))
explained = cascade.explain("It has its moments.")
print(frame[["text", "label", "route"]])
print(explained.strongest_words)

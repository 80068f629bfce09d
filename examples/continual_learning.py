# %% [markdown]
# # Continual learning with new labels
#
# A support desk sorts messages. New topics come in month by month; nobody wants to train on all old messages again.
# Here the digits of scikit-learn play the messages: ten classes that come in four batches.

# %%
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kcm

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
months = [(0, 1, 2), (3, 4), (5, 6, 7), (8, 9)]

# %% [markdown]
# Three learners see the months one after the other. `finetune` just goes on training, `replay` keeps a small memory of
# old rows, `analytic` solves for all rows so far without keeping any.

# %%
learners = {
    "finetune": kcm.KANClassifier("finetune", hidden=(16,), num_epochs=10, learning_rate=1e-2),
    "replay": kcm.KANClassifier({"name": "replay", "memory": 200}, hidden=(16,), num_epochs=10, learning_rate=1e-2),
    "analytic": kcm.KANClassifier("analytic", grid_size=2, spline_order=1),
}
history: dict[str, list[float]] = {name: [] for name in learners}
for month in months:
    rows = np.isin(y_train, month)
    for name, classifier in learners.items():
        classifier.partial_fit(X_train[rows], y_train[rows])
        first = np.isin(y_test, months[0])
        history[name].append(classifier.score(X_test[first], y_test[first]))

# %% [markdown]
# Accuracy on the first month's classes, after each month: what was not forgotten.

# %%
for name, accuracy in history.items():
    print(f"{name:<9}", "  ".join(f"{100 * each:5.1f}%" for each in accuracy))

# %% [markdown]
# And on all ten classes at the end, beside a classifier that saw everything at once.

# %%
whole = kcm.KANClassifier("analytic", grid_size=2, spline_order=1).fit(X_train, y_train)
final = {name: classifier.score(X_test, y_test) for name, classifier in learners.items()}
final["all at once"] = whole.score(X_test, y_test)
for name, each in final.items():
    print(f"{name:<11} {100 * each:5.1f}%")

assert history["finetune"][-1] < history["replay"][-1]
assert abs(final["analytic"] - final["all at once"]) < 0.02

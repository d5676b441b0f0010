"""Objective of gpu.yaml: a small network on a share of a GPU.

Needs no PyTorch and no GPU, and says what it found.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from sklearn.datasets import make_moons

from tunesvc import Trial

try:
    import torch
except ModuleNotFoundError:
    torch = None

X, y = make_moons(1000, noise=0.25, random_state=0)
X_train, X_val, y_train, y_val = X[:600], X[600:], y[:600], y[600:]
STEPS_PER_EPOCH = 20


def train(lr: float, hidden: int, *, epochs: int, trial: Trial) -> float:
    """Train for some epochs, reporting the validation error after each; return the last one."""
    learn = with_numpy if torch is None else with_torch
    print(f"trial {trial.number}: GPU {', '.join(trial.devices) or 'none'}, {learn.__name__}")
    for epoch, error in enumerate(islice(learn(lr, hidden, trial.seed), epochs), 1):
        trial.report(epoch, val_error=error)
    return error


def with_torch(lr: float, hidden: int, seed: int) -> Iterator[float]:
    """Validation error after each epoch, for ever; on the assigned GPU, or on the CPU if that is
    only logical."""
    device = (
        "cuda" if torch.cuda.is_available() else "cpu"
    )  # CUDA_VISIBLE_DEVICES leaves the assigned one to see
    torch.manual_seed(seed)
    inputs, held_out = (
        torch.tensor(a, dtype=torch.float32, device=device) for a in (X_train, X_val)
    )
    labels = torch.tensor(y_train, device=device)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 2)
    ).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    while True:
        for _ in range(STEPS_PER_EPOCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        with torch.no_grad():
            guess = model(held_out).argmax(1).cpu().numpy()
        yield float(np.mean(guess != y_val))


def with_numpy(lr: float, hidden: int, seed: int) -> Iterator[float]:
    """The same network by hand: a hidden layer of tanh, and the gradient of the logistic loss."""
    rng = np.random.default_rng(seed)
    w1, b1 = rng.normal(0, 0.7, (2, hidden)), np.zeros(hidden)
    w2, b2 = rng.normal(0, hidden**-0.5, hidden), 0.0
    while True:
        for _ in range(STEPS_PER_EPOCH):
            h = np.tanh(X_train @ w1 + b1)
            d_out = (1 / (1 + np.exp(-(h @ w2 + b2))) - y_train) / len(X_train)
            d_hidden = np.outer(d_out, w2) * (1 - h**2)
            w1, b1 = w1 - lr * X_train.T @ d_hidden, b1 - lr * d_hidden.sum(0)
            w2, b2 = w2 - lr * h.T @ d_out, b2 - lr * d_out.sum()
        yield float(np.mean((np.tanh(X_val @ w1 + b1) @ w2 + b2 > 0) != y_val))

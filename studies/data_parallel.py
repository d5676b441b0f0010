"""Objective of data_parallel.yaml: a network that several processes train, each on its part of the
data. Needs PyTorch: pip install torch."""

import tempfile
from pathlib import Path

import numpy as np
import ray.train

import tunesvc
from tunesvc.integrations.ray_train import run_config, scaling_config

try:
    import torch
    from ray.train.torch import TorchTrainer, prepare_model
except ModuleNotFoundError:
    torch = None


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the data, which is prepared once for all trials."""
    from sklearn.datasets import load_digits  # here: none of a trial's processes waits for it

    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


def train(lr: float, hidden: int, *, epochs: int, trial: tunesvc.Trial) -> None:
    """Train in the trial's gang. The reports of the first worker are the trial's."""
    if torch is None:
        raise ModuleNotFoundError("this example needs PyTorch: pip install torch")
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={"lr": lr, "hidden": hidden, "epochs": epochs, "seed": trial.seed},
        scaling_config=scaling_config(trial),
        run_config=run_config(trial),
    )
    trainer.fit()


def train_on_worker(config: dict) -> None:
    """Train on this worker's part, in step with the others, and report after each epoch."""
    context, data = ray.train.get_context(), tunesvc.current_trial().data
    rank, workers = context.get_world_rank(), context.get_world_size()
    X, y = as_tensors(data.train.shard(rank, workers))
    X_val, y_val = as_tensors(data.validation)

    torch.manual_seed(config["seed"])
    layers = torch.nn.Sequential(
        torch.nn.Linear(X.shape[1], config["hidden"]),
        torch.nn.ReLU(),
        torch.nn.Linear(config["hidden"], 10),
    )
    first = restore(layers)
    model = prepare_model(layers)  # averages the gradients of all workers
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    for epoch in range(first, config["epochs"]):
        for rows in torch.arange(len(X)).split(32):
            loss = torch.nn.functional.cross_entropy(model(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            wrong = (layers(X_val).argmax(1) != y_val).float().mean().item()
        report(epoch, wrong, layers, rank)


def as_tensors(part) -> tuple:
    """Return features and target as tensors."""
    return torch.tensor(part.X), torch.tensor(part.y)


def restore(layers) -> int:
    """Load the last checkpoint, if there is one; return the epoch to begin with."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, "state.pt"))
    layers.load_state_dict(state["layers"])
    return state["epoch"] + 1


def report(epoch: int, error: float, layers, rank: int) -> None:
    """Report an epoch with a checkpoint. All workers call it, the first one has the checkpoint."""
    if rank > 0:
        ray.train.report({"error": error})
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"layers": layers.state_dict(), "epoch": epoch}, Path(folder, "state.pt"))
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"error": error}, checkpoint=checkpoint)

"""Real trainings of each framework, for studies with two trials: of targets on scale 1, whose worker
is killed once, and on scale 1000, which is pruned.

A function imports its framework itself, since few environments have all of them.
"""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from tunesvc import Trial, integrations

os.environ["KERAS_BACKEND"] = "torch"
X = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
DIES_AFTER = 5
EVERY = 2


def targets(scale: float) -> Any:
    return X.sum(axis=1) * scale


def steps_of(scale: float) -> int:
    """Few, or so many that no training ends before it is pruned."""
    return 8 if scale == 1 else 300


def after_step(trial: Trial, scale: float, step: int) -> None:
    """Take a while, and die once."""
    time.sleep(0.1)
    if scale == 1 and trial.attempt == 1 and step == DIES_AFTER:
        time.sleep(1)  # what was reported shall arrive
        os.kill(os.getpid(), signal.SIGKILL)


def lightgbm(scale: float, *, trial: Trial) -> float:
    import lightgbm as framework

    reporter = integrations.LightGBMReporter(trial, "valid_0-l2", checkpoint_every=EVERY)

    def pause(env: Any) -> None:
        after_step(trial, scale, env.iteration + 1)

    pause.order = 29  # type: ignore[attr-defined]  # after the report
    data = framework.Dataset(X, targets(scale))
    model = framework.train(
        {"verbose": -1, "metric": "l2", "num_threads": 1},
        data,
        reporter.rounds_left(steps_of(scale)),
        valid_sets=[data.create_valid(X, targets(scale))],
        init_model=reporter.restored,
        callbacks=[reporter, pause],
    )
    return float(model.best_score["valid_0"]["l2"])


def paused(x: float, *, trial: Trial) -> float:
    """Nine rounds of LightGBM; a checkpoint is saved only when the trial pauses.

    Earlier trials are better, so what is paused first is promoted.
    """
    import lightgbm as framework

    reporter = integrations.LightGBMReporter(trial, "valid_0-l2", checkpoint_every=100)
    data = framework.Dataset(X, targets(1 + trial.number))
    model = framework.train(
        {"verbose": -1, "metric": "l2", "num_threads": 1},
        data,
        reporter.rounds_left(9),
        valid_sets=[data.create_valid(X, targets(1 + trial.number))],
        init_model=reporter.restored,
        callbacks=[reporter, lambda env: time.sleep(0.2)],
    )
    return float(model.best_score["valid_0"]["l2"])


def xgboost(scale: float, *, trial: Trial) -> float:
    import xgboost as framework

    class Pause(framework.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            after_step(trial, scale, model.num_boosted_rounds())
            return False

    reporter = integrations.XGBoostReporter(trial, "valid-rmse", checkpoint_every=EVERY)
    data = framework.DMatrix(X, targets(scale))
    results: dict[str, Any] = {}
    framework.train(
        {"nthread": 1},
        data,
        reporter.rounds_left(steps_of(scale)),
        evals=[(data, "valid")],
        evals_result=results,
        xgb_model=reporter.restored,
        callbacks=[reporter, Pause()],
    )
    return float(results["valid"]["rmse"][-1])


def catboost(scale: float, *, trial: Trial) -> float:
    import catboost as framework

    def pause(info: Any) -> bool:
        after_step(trial, scale, info.iteration - 1)  # called before the report
        return True

    model = framework.CatBoostRegressor(
        iterations=steps_of(scale), verbose=False, thread_count=1, learning_rate=0.3
    )
    reporter = integrations.CatBoostReporter(trial, "validation-RMSE")
    reporter.fit(
        model,
        X,
        targets(scale),
        eval_set=(X, targets(scale)),
        snapshot_interval=0,
        callbacks=[SimpleNamespace(after_iteration=pause)],
    )
    return float(model.best_score_["validation"]["RMSE"])


def scikit_learn(scale: float, *, trial: Trial) -> float:
    from sklearn.ensemble import HistGradientBoostingRegressor

    steps = 0

    def measure(model: Any) -> float:
        nonlocal steps
        steps = model.n_iter_ // 2
        after_step(trial, scale, steps - 1)  # called before the report
        return float(np.mean((model.predict(X) - targets(scale)) ** 2))

    model = integrations.fit_in_steps(
        HistGradientBoostingRegressor(min_samples_leaf=5, early_stopping=False),
        X,
        targets(scale),
        measure,
        trial=trial,
        steps=steps_of(scale),
        step_size=2,
        checkpoint_every=EVERY,
    )
    return float(np.mean((model.predict(X) - targets(scale)) ** 2))


def torch(scale: float, *, trial: Trial) -> float:
    import torch as framework

    model = framework.nn.Linear(3, 1)
    optimizer = framework.optim.Adam(model.parameters(), lr=0.01)
    x, y = framework.tensor(X), framework.tensor(targets(scale))
    reporter = integrations.TorchReporter(trial, EVERY, model=model, optimizer=optimizer)
    loss = framework.tensor(0.0)
    for epoch in reporter.steps(steps_of(scale)):
        loss = ((model(x)[:, 0] - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reporter.report(epoch, loss.item())
        after_step(trial, scale, epoch)
    return float(loss)


def lightning(scale: float, *, trial: Trial) -> float:
    import lightning as framework
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Net(framework.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = ((self.layer(batch[0])[:, 0] - batch[1]) ** 2).mean()
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    class Pause(framework.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            after_step(trial, scale, trainer.current_epoch + 1)

        def on_exception(self, trainer: Any, pl_module: Any, exception: Any) -> None:
            print("ended in order")

    reporter = integrations.LightningReporter(trial, "train_loss", checkpoint_every=EVERY)
    trainer = framework.Trainer(
        accelerator="cpu",
        max_epochs=steps_of(scale),
        logger=False,
        enable_checkpointing=False,
        callbacks=[reporter, Pause()],
    )
    data = TensorDataset(torch.tensor(X), torch.tensor(targets(scale)))
    trainer.fit(Net(), DataLoader(data, 32), ckpt_path=reporter.restored)
    return float(trainer.callback_metrics["train_loss"])


def transformers(scale: float, *, trial: Trial) -> float:
    import torch
    import transformers as framework

    class Pause(framework.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            after_step(trial, scale, state.global_step - 1)  # called before the evaluation

        def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            print("ended in order")

    config = framework.BertConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=1,
    )
    data = [
        {"input_ids": torch.randint(0, 16, (4,)), "labels": float(target)}
        for target in targets(scale)[:8]
    ]
    reporter = integrations.TransformersReporter(trial)
    trainer = framework.Trainer(
        framework.BertForSequenceClassification(config),
        framework.TrainingArguments(
            str(trial.directory / "out"),
            eval_strategy="epoch",
            save_strategy="steps",
            save_steps=EVERY,
            num_train_epochs=steps_of(scale),
            per_device_train_batch_size=8,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[Pause(), reporter],
    )
    trainer.train(resume_from_checkpoint=reporter.restored)
    return float(trainer.evaluate()["eval_loss"])


def keras(scale: float, *, trial: Trial) -> float:
    import keras as framework

    model = framework.Sequential([framework.Input((3,)), framework.layers.Dense(1)])
    model.compile("adam", loss="mse")
    pause = framework.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: after_step(trial, scale, epoch),
        on_train_end=lambda logs: print("ended in order"),
    )
    reporter = integrations.KerasReporter(trial, "loss", checkpoint_every=EVERY)
    history = model.fit(
        X,
        targets(scale),
        epochs=steps_of(scale),
        callbacks=[pause, reporter],
        verbose=0,
    )
    return float(history.history["loss"][-1])

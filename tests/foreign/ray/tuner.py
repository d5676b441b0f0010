"""A script of Ray Tune, as people have it."""

from ray import tune
from ray.tune.schedulers import ASHAScheduler


def train(config):
    tune.report({"accuracy": config["lr"]})


tuner = tune.Tuner(
    tune.with_resources(train, {"cpu": 2, "gpu": 1}),
    param_space={
        "lr": tune.loguniform(1e-4, 1e-1),
        "model": {"width": tune.randint(16, 257), "act": tune.choice(["relu", "gelu"])},
        "dropout": tune.quniform(0.0, 0.5, 0.1),
        "epochs": 10,
    },
    tune_config=tune.TuneConfig(
        metric="accuracy",
        mode="max",
        num_samples=50,
        max_concurrent_trials=4,
        time_budget_s=3600,
        scheduler=ASHAScheduler(),
    ),
    run_config=tune.RunConfig(name="cnn", stop={"training_iteration": 20}),
)

if __name__ == "__main__":
    tuner.fit()

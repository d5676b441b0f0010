"""A Tuner of a function that the script defines, with a limit of time only."""

from ray import tune


def objective(config):
    tune.report({"loss": config["x"] ** 2})


search = tune.Tuner(
    objective,
    param_space={"x": tune.uniform(-5, 5)},
    tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=-1, time_budget_s=600),
)

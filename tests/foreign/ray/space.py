"""A search space alone."""

from ray import tune

param_space = {
    "lr": tune.grid_search([0.01, 0.1]),
    "layers": tune.lograndint(1, 9),
    "data": lambda: "made when it is needed",
}

"""Enters promotions in MLflow: a run with parameters, values and evidence for each.

It registers no model version, because a promotion has no model file: such a version would load
nothing. The run names the study, the trial and the data version from which a model can be trained.
"""

from __future__ import annotations

import math
from typing import Any

from tunesvc.db.champions.champion_records import Champion

_ID = "tunesvc.champion"


def register(champion: Champion) -> str:
    """Enter a promotion; return the error, empty if there was none.

    May be repeated: a run of this promotion is completed, not doubled. The store is the one of
    `MLFLOW_TRACKING_URI`, and the experiment is named by the family.
    """
    try:
        import mlflow
    except ImportError:
        return "it needs mlflow: pip install 'tunesvc[mlflow]'"
    try:
        _enter(mlflow.MlflowClient(), champion)
    except Exception as error:  # noqa: BLE001 - MLflow raises errors of its stores and transports
        return f"MLflow: {type(error).__name__}: {str(error)[:300]}"
    return ""


def _enter(client: Any, champion: Champion) -> None:
    configuration, evidence = champion.configuration, champion.evidence
    experiment = client.get_experiment_by_name(champion.family)
    if experiment is None:
        experiment_id = client.create_experiment(champion.family)
    else:
        experiment_id = experiment.experiment_id
    is_it = f"tags.`{_ID}` = '{champion.champion_id}'"
    found = client.search_runs([experiment_id], is_it, max_results=1)
    if found and found[0].info.status == "FINISHED":
        return
    name = f"{champion.family} champion {champion.champion_id}"
    tags = {_ID: str(champion.champion_id)}
    run = found[0] if found else client.create_run(experiment_id, tags=tags, run_name=name)
    run_id = run.info.run_id
    for param, value in {**configuration.constants, **configuration.params}.items():
        client.log_param(run_id, param, str(value)[:6_000])
    for step, value in enumerate(configuration.fold_values):
        if math.isfinite(value):
            client.log_metric(run_id, f"{configuration.metric}_fold", value, step=step)
    client.log_metric(run_id, configuration.metric, configuration.value)
    labels = {
        "kind": champion.kind,
        "study": configuration.study,
        "trial": str(configuration.trial_number),
        "data_version": configuration.data_version or "",
        "reason": evidence.reason,
        "p_value": "" if evidence.p_value is None else f"{evidence.p_value:.4g}",
    }
    for label, text in labels.items():
        client.set_tag(run_id, f"tunesvc.{label}", text)
    client.set_terminated(run_id)

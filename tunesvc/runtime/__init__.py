"""A study from its name to its end: created or resumed, run by a coordinator, steered while idle, confirmed."""

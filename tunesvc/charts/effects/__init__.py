"""Charts of what single parameters and pairs do, by the model of a study."""

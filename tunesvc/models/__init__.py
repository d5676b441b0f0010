"""Trained models in the artifact store: `tune apply` stores and `load_model` reads them."""

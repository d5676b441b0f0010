"""Analysis of finished trials: recommendation, importance, attribution, noise, finalists."""

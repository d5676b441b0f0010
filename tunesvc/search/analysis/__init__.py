"""What a model of the finished trials says: the recommended trial, importance, effects, noise, finalists."""

"""One module for each format: `TITLE`, `recognises` and `convert`."""

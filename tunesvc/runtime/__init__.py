"""Life of a study: creation, runs under a coordinator, requests, confirmation."""

"""The running system: cluster, leases, requests, the timeline of attempts."""

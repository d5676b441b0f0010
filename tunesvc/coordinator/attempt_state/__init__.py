"""State of attempts that run: live attempts, leases, deadlines, stored output, results."""

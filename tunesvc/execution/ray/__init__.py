"""Workers as Ray actors: scheduling, fair shares, adoption, the connection to a cluster."""

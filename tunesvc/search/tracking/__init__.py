"""What a study's trials have shown so far, kept up to date as trials finish: ranks, scale, objectives, pauses."""

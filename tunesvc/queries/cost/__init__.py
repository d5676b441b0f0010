"""What a study has spent, and what further trials would cost and bring."""

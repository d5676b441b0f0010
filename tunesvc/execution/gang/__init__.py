"""The processes of a gang: how they reach the trial, and what their errors mean."""

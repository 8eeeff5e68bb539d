"""Changing projects, and the list of projects opened last."""

"""The label in view: edited, drawn by commands and saved."""

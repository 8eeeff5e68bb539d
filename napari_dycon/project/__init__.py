"""What is on disk: volumes, file formats and the project folder; no torch, no Qt."""

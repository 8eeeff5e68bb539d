"""Weights and training state as safetensors files.

They are written in the background during training, read from untrusted sources, and transferred to
networks with other classes.
"""

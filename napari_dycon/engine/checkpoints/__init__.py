"""Weights and training state as safetensors files.

Written in the background while training goes on, read from places that are not trusted, and
transferred to networks with other classes.
"""

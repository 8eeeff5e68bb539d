"""The ``napari-dycon`` command line program.

A module for each group of commands, and the options, tables and progress displays they share.
"""

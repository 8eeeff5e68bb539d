"""The ``napari-dycon`` command line program.

A module for each command or group of commands, and the options, tables and progress displays that
they share.
"""

"""The *Train* section of the panel: starting and following runs, their curves and history."""

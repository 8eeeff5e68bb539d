"""The *Data* section of the panel: projects, the list of cases."""

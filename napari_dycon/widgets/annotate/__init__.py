"""The *Annotate* section of the panel: structures, brush, interpolation and growing."""

"""The *Review* section of the panel: uncertain regions, accepting predictions, comparison."""

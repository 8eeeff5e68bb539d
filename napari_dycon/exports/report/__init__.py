"""The HTML report of a project, with its statistics and figures."""

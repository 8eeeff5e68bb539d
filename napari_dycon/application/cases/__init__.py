"""Cases of the open project: read, cached, shown and summarized."""

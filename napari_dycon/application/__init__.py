"""Application services behind ``session.py``, independent of Qt."""

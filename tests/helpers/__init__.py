"""Shared helpers of the tests: small files, small runs, processes to kill."""

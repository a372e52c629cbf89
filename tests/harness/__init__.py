"""Drives the real server with the real clients. Nothing in here stands in for either."""

"""Scores of copies against recordings, their report, and speed."""

"""Damaged checkpoints by the thousand, put through everything that reads them: `make fuzz`, `python -m fuzz --help`."""

FINDINGS, OUTCOMES = "findings.txt", "outcomes.json"
"""What a hunt leaves in its folder: texts, and counts by outcome."""

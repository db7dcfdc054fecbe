"""Nodes and subscribers that cost little beside what they measure."""

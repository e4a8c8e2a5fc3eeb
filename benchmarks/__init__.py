"""Accuracy and speed against peers, what each part earns, and what each algorithm finds."""

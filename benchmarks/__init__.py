"""Side-by-side runs on the same rows: accuracy against peers, and what each part earns."""

"""What runs, keeps and judges the experiments."""

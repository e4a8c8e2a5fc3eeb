"""What every package below needs and none owns: errors, files, the registry, randomness."""

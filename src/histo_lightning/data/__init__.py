"""Data: names and records -> splits -> pixel cache -> batches."""

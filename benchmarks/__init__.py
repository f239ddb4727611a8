"""Speed: what is measured (P1-P14), how, and the table that says it."""

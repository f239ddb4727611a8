"""What watches or steers a fit."""

"""Looking at data before training: ``prepare`` for a copy of the images, ``audit`` for a split."""

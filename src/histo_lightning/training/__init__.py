"""One experiment from config to a finished run folder, and sweeps of them."""

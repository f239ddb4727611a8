"""From a command line and ``conf/`` to a checked config, and from ``_target_`` to objects."""
